// Opens a terminal from anywhere: a new tab in the layout, and the terminal page in front.

import { useCallback } from "react";
import { useNavigate } from "react-router";
import type { Session } from "../api/types";
import type { Mode } from "./conversation";
import { openTab } from "./layout";
import { changeLayout } from "./layout-store";

export function useOpenTerminal() {
  const navigate = useNavigate();
  return useCallback(
    (machine: { id: string; name: string }) => {
      changeLayout((layout) =>
        openTab(layout, {
          machineId: machine.id,
          machineName: machine.name,
          mode: "own",
          sessionId: null,
        }),
      );
      navigate("/terminal");
    },
    [navigate],
  );
}

/** Watches, joins or returns to a session that runs already. */
export function useEnterSession() {
  const navigate = useNavigate();
  return useCallback(
    (session: Session, machineName: string, mode: Mode) => {
      changeLayout((layout) =>
        openTab(layout, { machineId: session.asset_id, machineName, mode, sessionId: session.id }),
      );
      navigate("/terminal");
    },
    [navigate],
  );
}

// Short messages in the corner. A failure says what to do and stays until it is closed.

import { notifications } from "@mantine/notifications";
import { explain } from "../api/client";
import { translate } from "../i18n";

const closing = () => ({ "aria-label": translate("action.close") });

export const toastDone = (message: string): void => {
  notifications.show({ message, color: "jade", autoClose: 3500, closeButtonProps: closing() });
};

export const toastFailure = (title: string, error: unknown): void => {
  notifications.show({
    title,
    message: explain(error),
    color: "red",
    autoClose: false,
    closeButtonProps: closing(),
  });
};

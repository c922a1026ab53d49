// asciinema's player with what it lacks: speed while playing, skipping idle time, jumps to moments
// of the real time line.

import { Group, Loader, SegmentedControl, Switch, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import * as asciinema from "asciinema-player";
import "asciinema-player/dist/bundle/asciinema-player.css";
import { forwardRef, useEffect, useImperativeHandle, useMemo, useRef } from "react";
import { ApiError } from "../api/client";
import { ErrorState } from "../app/ErrorState";
import { bytes } from "../app/format";
import { setting, useSetting } from "../app/setting";
import { translate, useT } from "../i18n";
import { castTimes, translateTime, wholeLines } from "./cast";
import { castAddress } from "./queries";

export interface PlayerHandle {
  /** Seconds on the recording's own time line. */
  seek(time: number): void;
}

const SPEEDS = ["0.5", "1", "2", "4", "8"] as const;
const IDLE_LIMIT = 1.5;
/** Beyond this a browser tab would rather die than play; the command line streams. */
const LARGEST = 300 * 1024 * 1024;

const speedSetting = setting("player.speed", "1", (value): value is string =>
  SPEEDS.includes(value as "1"),
);
const skipSetting = setting(
  "player.skip-idle",
  true,
  (value): value is boolean => typeof value === "boolean",
);

async function fetchCast(id: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(castAddress(id), { signal });
  if (!response.ok) throw new ApiError(response.status, "cast", translate("player.gone"));
  return wholeLines(await response.text());
}

interface PlayerProps {
  id: string;
  size: number;
  startAt: number;
}

export const Player = forwardRef<PlayerHandle, PlayerProps>(function Player(
  { id, size, startAt },
  handle,
) {
  const t = useT();
  const tooLarge = size > LARGEST;
  const cast = useQuery({
    queryKey: ["cast", id],
    queryFn: ({ signal }) => fetchCast(id, signal),
    enabled: !tooLarge,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0, // megabytes of text are not worth keeping
  });
  const [speed, setSpeed] = useSetting(speedSetting);
  const [skip, setSkip] = useSetting(skipSetting);
  const limit = skip ? IDLE_LIMIT : Number.POSITIVE_INFINITY;
  const times = useMemo(() => castTimes(cast.data ?? "", limit), [cast.data, limit]);
  const host = useRef<HTMLDivElement>(null);
  const player = useRef<asciinema.Player | null>(null);
  /** Where we are on the real time line; survives making the player anew for another speed. */
  const position = useRef({ time: startAt, playing: startAt > 0 });

  useEffect(() => {
    const element = host.current;
    if (!element || !cast.data) return;
    const { time, playing } = position.current;
    const made = asciinema.create({ data: cast.data }, element, {
      fit: "both",
      controls: true,
      preload: true,
      speed: Number(speed),
      startAt: translateTime(time, times.raw, times.shown),
      autoPlay: playing,
      idleTimeLimit: Number.isFinite(limit) ? limit : 1e9, // also over the header's own wish
      terminalFontFamily:
        'ui-monospace, "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
      poster: time > 0 ? undefined : "npt:0:01",
    });
    player.current = made;
    made.addEventListener("playing", () => {
      position.current.playing = true;
    });
    for (const stop of ["pause", "ended"] as const)
      made.addEventListener(stop, () => {
        position.current.playing = false;
      });
    return () => {
      position.current.time = translateTime(made.getCurrentTime(), times.shown, times.raw);
      made.dispose();
      player.current = null;
    };
  }, [cast.data, speed, limit, times]);

  useImperativeHandle(
    handle,
    () => ({
      seek: (time) => {
        void player.current?.seek(translateTime(time, times.raw, times.shown));
        void player.current?.play();
      },
    }),
    [times],
  );

  if (tooLarge) return <Text c="dimmed">{t("player.tooLarge", { size: bytes(size), id })}</Text>;
  if (cast.error) return <ErrorState error={cast.error} onRetry={() => void cast.refetch()} />;
  return (
    <div className="player">
      <div className="player-host" ref={host} data-testid="player">
        {!cast.data && <Loader size="sm" m="xl" />}
      </div>
      <Group gap="lg" mt="sm">
        <Group gap="xs">
          <Text size="sm" id="speed-label">
            {t("player.speed")}
          </Text>
          <SegmentedControl
            size="xs"
            aria-labelledby="speed-label"
            value={speed}
            onChange={setSpeed}
            data={SPEEDS.map((value) => ({ value, label: `${value}×` }))}
          />
        </Group>
        <Switch
          size="sm"
          label={t("player.skipIdle")}
          checked={skip}
          onChange={(event) => setSkip(event.currentTarget.checked)}
        />
      </Group>
    </div>
  );
});

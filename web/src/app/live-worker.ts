// The shared worker behind live.ts: one live feed for all tabs of this console in a browser.

import { type LiveAsked, LiveHub } from "./live-hub";

const hub = new LiveHub();

(globalThis as unknown as SharedWorkerGlobalScope).onconnect = ({ ports }: MessageEvent) => {
  const [port] = ports;
  if (!port) return;
  port.onmessage = ({ data }: MessageEvent<LiveAsked>) => hub.receive(port, data);
};

interface SharedWorkerGlobalScope {
  onconnect: ((event: MessageEvent) => void) | null;
}

// Answers the console's API calls during `npm run dev` when no gateway is named. It knows the shapes
// of the contract and none of its rules.

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Plugin } from "vite";
import { WebSocketServer } from "ws";
import * as data from "./data.ts";
import * as lending from "./lending.ts";
import { serveTerminal } from "./terminal.ts";
import * as tunnels from "./tunnels.ts";

const page = (items: unknown[], query: URLSearchParams) => {
  const size = Number(query.get("page_size") ?? 50);
  const number = Number(query.get("page") ?? 1);
  return {
    items: items.slice((number - 1) * size, number * size),
    total: items.length,
    page: number,
    page_size: size,
  };
};
const me = data.users[0];
let signedIn = process.env.MOCK_SIGNED_OUT === undefined;
const streams = new Set<ServerResponse>();

const metrics = () => ({
  time: Date.now() / 1000,
  cpu: 20 + Math.random() * 30,
  memory: 40 + Math.random() * 4,
  disk: 38,
  load: 0.6 + Math.random(),
});

function answer(method: string, path: string, query: URLSearchParams): unknown {
  const [noun, id, verb] = path.split("/");
  if (noun === "setup") return method === "GET" ? { needed: false } : { user: me, csrf_token: "c" };
  if (path === "auth/login") {
    signedIn = true;
    return { user: me, csrf_token: "c" };
  }
  if (path === "auth/logout") {
    signedIn = false;
    return {};
  }
  if (noun === "auth") return { user: me, csrf_token: "c" };
  if (noun === "assets") {
    if (!id) return page(data.machines, query);
    if (verb === "metrics")
      return {
        points: Array.from({ length: 60 }, (_, n) => ({
          ...metrics(),
          time: Date.now() / 1000 - (60 - n) * 30,
        })),
      };
    return data.machines.find((one) => one.id === id);
  }
  if (noun === "enrolments") return page(data.enrolments, query);
  if (noun === "join-tokens")
    return {
      token: "upj_mock",
      id: "j1",
      join_command: "underpass agent --join http://localhost:3000 upj_mock",
    };
  if (noun === "sessions")
    return id ? data.sessions.find((one) => one.id === id) : page(data.sessions, query);
  if (noun === "recordings") {
    if (verb === "index")
      return {
        keyframes: [],
        markers: [
          { time: 12, label: "detached" },
          { time: 20, label: "attached" },
        ],
        duration: 61.5,
        size: 18_400,
      };
    if (id) return data.recordings.find((one) => one.id === id);
    const hits = query.get("text")
      ? [{ time: 8.4, line: `line 17 of the ${query.get("text")}` }]
      : undefined;
    return page(
      data.recordings.map((one) => ({ ...one, hits })),
      query,
    );
  }
  if (noun === "mappings") {
    if (verb === "stats") return tunnels.stats(id ?? "");
    const known = tunnels.mappings();
    if (id) return known.find((one) => one.id === id);
    if (method === "POST") return known[0];
    const [q = "", status] = [query.get("q") ?? "", query.get("status")];
    return page(
      known.filter((one) => one.name.includes(q) && (!status || one.status === status)),
      query,
    );
  }
  if (noun === "offers") {
    if (method === "POST") return lending.madeOffer();
    return id ? lending.offers()[1] : page(lending.offers(), query);
  }
  if (noun === "users" && verb === "quota") return lending.quota(id ?? "");
  if (noun === "users") return page(data.users, query);
  if (noun === "api-keys")
    return method === "POST" ? { id: "k", name: "ci", token: "upt_mock" } : page([], query);
  if (noun === "events") return page(data.events, query);
  return {};
}

function serve(request: IncomingMessage, response: ServerResponse, next: () => void): unknown {
  const url = new URL(request.url ?? "/", "http://mock");
  if (!url.pathname.startsWith("/api/v1/")) return next();
  const path = url.pathname.slice("/api/v1/".length);
  const json = (status: number, body: unknown) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
  if (path === "live" || path.endsWith("/metrics/live")) {
    response.writeHead(200, { "content-type": "text/event-stream" });
    streams.add(response);
    const timer =
      path === "live"
        ? undefined
        : setInterval(
            () => response.write(`event: metrics\ndata: ${JSON.stringify(metrics())}\n\n`),
            2000,
          );
    response.on("close", () => {
      clearInterval(timer);
      streams.delete(response);
    });
    return undefined;
  }
  if (path === "auth/me" && !signedIn)
    return json(401, { success: false, code: "unauthenticated", message: "Sign in first." });
  if (path.endsWith("/cast")) {
    response.writeHead(200, { "content-type": "application/x-asciicast" }).end(data.cast());
    return undefined;
  }
  if (path.endsWith("/tty/authorize")) return json(200, { token: "upx_mock", expires_in: 300 });
  return json(200, {
    success: true,
    code: 0,
    data: answer(request.method ?? "GET", path, url.searchParams),
  });
}

export function mockGateway(): Plugin {
  return {
    name: "underpass-mock-gateway",
    apply: (_, { command }) => command === "serve" && process.env.VITEST === undefined,
    configureServer(server) {
      const sockets = new WebSocketServer({ noServer: true });
      server.httpServer?.on("upgrade", (request, socket, head) => {
        if (!request.url?.startsWith("/api/v1/tty/ws")) return;
        sockets.handleUpgrade(request, socket, head, serveTerminal);
      });
      server.middlewares.use(serve);
    },
  };
}

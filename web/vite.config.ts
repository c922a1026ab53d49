/// <reference types="vitest/config" />
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { mockGateway } from "./mock/plugin.ts";

// `npm run dev` talks to a real gateway when UNDERPASS_DEV_GATEWAY names one
// (http://127.0.0.1:3000); otherwise a small mock answers, so that a page can be
// designed without starting anything else.
const gateway = process.env.UNDERPASS_DEV_GATEWAY;

export default defineConfig({
  plugins: [react(), ...(gateway ? [] : [mockGateway()])],
  build: {
    outDir: "../src/underpass/gateway/console",
    emptyOutDir: true,
    target: "es2022",
    // The gateway serves a strict CSP: no data: scripts, no inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
    manifest: true,
  },
  server: {
    host: "127.0.0.1",
    proxy: gateway ? { "/api": { target: gateway, ws: true, changeOrigin: true } } : undefined,
  },
  test: { environment: "node", include: ["src/**/*.test.{ts,tsx}"] },
});

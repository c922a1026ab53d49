// A pretend shell behind the terminal socket, speaking spec 7's messages: enough to look at prompts,
// floods, resume and exit without a gateway.

import type { WebSocket } from "ws";

interface Shell {
  output: Buffer;
  input: number;
  line: string;
  socket: WebSocket | null;
  credit: number;
  sent: number;
}
const shells = new Map<string, Shell>();

const pump = (shell: Shell) => {
  while (shell.socket && shell.sent < shell.output.length && shell.credit > 0) {
    const chunk = shell.output.subarray(shell.sent, shell.sent + Math.min(16_384, shell.credit));
    shell.socket.send(chunk);
    shell.sent += chunk.length;
    shell.credit -= chunk.length;
  }
};
const say = (shell: Shell, text: string) => {
  shell.output = Buffer.concat([shell.output, Buffer.from(text)]);
  pump(shell);
};
const PROMPT = "\x1b[32mli@web-01\x1b[0m:\x1b[34m~\x1b[0m$ ";

const run = (shell: Shell, line: string) => {
  if (line.startsWith("exit")) {
    shell.socket?.send(
      JSON.stringify({ type: "exit", code: Number(line.slice(5)) || 0, signal: null }),
    );
    shell.socket?.close(1000);
    return;
  }
  if (line === "drop") shell.socket?.terminate();
  if (line === "flood") say(shell, "y\r\n".repeat(400_000));
  if (line === "ls")
    say(
      shell,
      "\x1b[34mbin\x1b[0m  etc  \x1b[34mhome\x1b[0m  README  https://example.org/docs\r\n",
    );
  if (line === "colors")
    say(shell, `${Array.from({ length: 16 }, (_, n) => `\x1b[48;5;${n}m  \x1b[0m`).join("")}\r\n`);
  say(shell, PROMPT);
};

export function serveTerminal(socket: WebSocket): void {
  let id = `mock-${shells.size + 1}`;
  let shell: Shell | undefined;
  const start = () => {
    shell = {
      output: Buffer.from(PROMPT),
      input: 0,
      line: "",
      socket,
      credit: 256 * 1024,
      sent: 0,
    };
    shells.set(id, shell);
    socket.send(JSON.stringify({ session_id: id }));
    pump(shell);
  };
  let pendingStart: ReturnType<typeof setTimeout> | undefined;
  socket.on("message", (data: Buffer, binary: boolean) => {
    if (!binary) {
      const message = JSON.parse(data.toString());
      if (message.type === "auth") pendingStart = setTimeout(start, 30);
      if (message.type === "resume") {
        clearTimeout(pendingStart);
        id = message.session_id;
        shell = shells.get(id);
        if (!shell) return socket.close(4404);
        Object.assign(shell, { socket, credit: 256 * 1024, sent: message.offset });
        socket.send(JSON.stringify({ session_id: id }));
        socket.send(
          JSON.stringify({ type: "resumed", offset: message.offset, input_offset: shell.input }),
        );
        pump(shell);
      }
      if (message.type === "ping") socket.send(JSON.stringify({ type: "pong", t: message.t }));
      if (message.type === "credit" && shell) {
        shell.credit += message.bytes;
        pump(shell);
      }
      return;
    }
    if (!shell) return;
    shell.input += data.length;
    socket.send(JSON.stringify({ type: "ack", input: shell.input }));
    for (const char of data.toString()) {
      if (char === "\r") {
        say(shell, "\r\n");
        const { line } = shell;
        shell.line = "";
        run(shell, line);
      } else if (char === "\x7f") {
        if (shell.line) say(shell, "\b \b");
        shell.line = shell.line.slice(0, -1);
      } else if (char === "\x03") {
        shell.line = "";
        shell.output = shell.output.subarray(0, shell.sent);
        say(shell, `^C\r\n${PROMPT}`);
      } else {
        shell.line += char;
        say(shell, char);
      }
    }
  });
}

// Fails when the script a first visit loads exceeds the budget (spec 6: 300 kB gzip without the
// terminal, player and charts, which load on demand). Reads Vite's manifest, so it counts what the
// entry imports statically plus every page that is not one of the heavy ones.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const BUDGET = 300 * 1024;
const root = new URL("../../src/underpass/gateway/console/", import.meta.url);
const manifest = JSON.parse(readFileSync(new URL(".vite/manifest.json", root), "utf8"));
const gzipped = (file) => gzipSync(readFileSync(new URL(file, root))).length;

const first = new Set();
const visit = (key) => {
  const chunk = manifest[key];
  if (!chunk || first.has(chunk.file)) return;
  first.add(chunk.file);
  for (const child of chunk.imports ?? []) visit(child);
};
for (const [key, chunk] of Object.entries(manifest)) if (chunk.isEntry) visit(key);

let total = 0;
for (const file of first) {
  const size = gzipped(file);
  total += size;
  process.stdout.write(`${(size / 1024).toFixed(1).padStart(8)} kB  ${file}\n`);
}
process.stdout.write(
  `${(total / 1024).toFixed(1).padStart(8)} kB  first load (budget ${BUDGET / 1024} kB)\n`,
);
for (const chunk of Object.values(manifest)) {
  if (first.has(chunk.file) || !chunk.file.endsWith(".js")) continue;
  process.stdout.write(
    `${(gzipped(chunk.file) / 1024).toFixed(1).padStart(8)} kB  ${chunk.file} (on demand)\n`,
  );
}
if (total > BUDGET) {
  process.stderr.write("First load is over budget: move the newcomer behind a lazy import.\n");
  process.exit(1);
}

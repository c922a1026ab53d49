#!/bin/sh
# Regenerates src/api/schema.d.ts from the gateway's own description of its routes.
# PYTHON names the interpreter that has underpass installed; default: the repository's .venv.
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-../.venv/bin/python}"
description="$(mktemp)"
trap 'rm -f "$description"' EXIT
"$python" -m underpass.gateway.openapi > "$description"
npx openapi-typescript "$description" -o src/api/schema.d.ts

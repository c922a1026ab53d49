#!/bin/sh
# Write requirements/*.lock anew: hashes for everything, no index addresses (`make lock`).
# UPGRADE=1 takes the newest versions; otherwise what is locked stays unless pyproject.toml forbids it.
set -eu
cd "$(dirname "$0")/.."
UV=${VENV:-.venv}/bin/uv
compile() {
  "$UV" pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --universal \
    --python-version 3.11 --custom-compile-command "make lock" ${UPGRADE:+--upgrade} "$@" >/dev/null
}
compile pyproject.toml --group dev -o requirements/dev.lock
compile pyproject.toml -c requirements/dev.lock -o requirements/runtime.lock
compile requirements/bootstrap.in -c requirements/dev.lock -o requirements/bootstrap.lock

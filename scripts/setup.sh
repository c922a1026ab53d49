#!/bin/sh
# Set-up that `make` runs before everything: virtual environment, pinned packages, console build.
# Idempotent, and silent when there is nothing to do.
#
#   scripts/setup.sh runtime|dev [console]
#
# VENV    where the virtual environment is        (default .venv)
# PYTHON  the interpreter to make it with         (default: newest of 3.13, 3.12, 3.11, python3)
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
STAMP=$VENV/.underpass-setup
WEB_STAMP=web/node_modules/.underpass-setup
CONSOLE=src/underpass/gateway/console

say() { printf '%s\n' "$*" >&2; }
fail() { say "underpass: $*"; exit 2; }
digest() { cat "$@" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -c1-32; }

# --- Python -----------------------------------------------------------------------------------

suitable_python() { # prints the first interpreter that can make the environment
  reason="no working ${PYTHON:-Python} was found; install Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv)"
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python3.14}; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      reason="$candidate is Python $version, Underpass needs 3.11 or newer; install one, or name it: make PYTHON=/path/to/python3.12"
    elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      reason="Python $version here cannot make virtual environments; install its venv package (Debian, Ubuntu: apt-get install python3-venv or python$version-venv)"
    else
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  fail "$reason"
}

make_environment() {
  python=$(suitable_python)
  say "Making $VENV with $("$python" --version) …"
  rm -rf "$VENV"
  "$python" -m venv "$VENV" || fail "could not make $VENV with $python; see above"
  # pip is used once, to bring a pinned uv and the build backend; uv does the rest, much faster.
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes -r requirements/bootstrap.lock ||
    fail "could not install the packages of requirements/bootstrap.lock; is the package index reachable?"
}

python_packages() { # runtime|dev; an environment that has the dev packages serves runtime too
  wanted=$1
  have=$(cat "$STAMP" 2>/dev/null || true)
  case $have in dev\ *) wanted=dev ;; esac
  now="$wanted $(digest requirements/bootstrap.lock "requirements/$wanted.lock" pyproject.toml)"
  [ "$have" = "$now" ] && "$VENV/bin/python" -c '' 2>/dev/null && return 0
  if ! "$VENV/bin/uv" --version >/dev/null 2>&1 || ! "$VENV/bin/python" -c '' 2>/dev/null; then
    make_environment
  fi
  say "Installing Python packages ($wanted) …"
  "$VENV/bin/uv" pip sync --quiet --compile-bytecode --require-hashes --python "$VENV/bin/python" \
    requirements/bootstrap.lock "requirements/$wanted.lock" ||
    fail "could not install the packages of requirements/$wanted.lock; see above"
  "$VENV/bin/uv" pip install --quiet --offline --no-deps --no-build-isolation \
    --python "$VENV/bin/python" --editable . || fail "could not install Underpass into $VENV; see above"
  printf '%s\n' "$now" >"$STAMP"
}

# --- Console ----------------------------------------------------------------------------------

need_node() {
  version=$(node --version 2>/dev/null) ||
    fail "Node.js was not found; install Node.js 20.19 or newer with npm: it builds the console"
  node -e 'const [a, b] = process.versions.node.split("."); process.exit(+a > 20 || (+a === 20 && +b >= 19) ? 0 : 1)' ||
    fail "Node.js here is $version, the console needs 20.19 or newer; install one, or put it first in PATH"
  npm --version >/dev/null 2>&1 || fail "npm was not found; install the npm that belongs to Node.js $version"
}

node_packages() {
  now=$(digest web/package.json web/package-lock.json)
  [ "$(cat "$WEB_STAMP" 2>/dev/null || true)" = "$now" ] && return 0
  need_node
  say "Installing console packages …"
  (cd web && npm ci --no-audit --no-fund --loglevel=error --update-notifier=false >/dev/null) || fail "npm ci failed in web/; see above"
  printf '%s\n' "$now" >"$WEB_STAMP"
}

console_is_built() { # the build is newer than every source of it
  [ -f "$CONSOLE/index.html" ] && [ -f "$WEB_STAMP.console" ] &&
    [ -z "$(find web -name node_modules -prune -o -newer "$WEB_STAMP.console" ! -path web -print 2>/dev/null | head -n 1)" ]
}

console() {
  node_packages
  console_is_built && return 0
  need_node
  say "Building the console …"
  log=$(mktemp)
  : >"$WEB_STAMP.console.next"
  if ! (cd web && npm run --silent build) >"$log" 2>&1; then
    cat "$log" >&2; rm -f "$log"
    fail "the console did not build; see above"
  fi
  rm -f "$log"
  mv "$WEB_STAMP.console.next" "$WEB_STAMP.console"
}

for step in "$@"; do
  case $step in
    runtime | dev) python_packages "$step" ;;
    console) console ;;
    node) node_packages ;;
    *) fail "scripts/setup.sh knows runtime, dev, node and console, not $step" ;;
  esac
done

"""``python -m bench <part> [options]``: run one part of the benchmarks, or all of them."""

from __future__ import annotations

import importlib
import sys

PARTS = {
    "links": "bench.links",
    "tunnels": "bench.tunnels",
    "paths": "bench.paths",
    "config_push": "bench.config_push",
}
"""Each part's name and the module whose ``main(arguments)`` runs it."""


def main() -> int:
    """Run the part named first on the command line; all parts when none is named."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: python -m bench [{'|'.join(PARTS)}] [options of the part, see --help]")
        return 0
    if arguments and not arguments[0].startswith("-"):
        part, *rest = arguments
        if part not in PARTS:
            print(f"There is no part {part!r}; there are: {', '.join(PARTS)}.", file=sys.stderr)
            return 2
        chosen = [part]
    else:
        chosen, rest = list(PARTS), arguments
    return max(importlib.import_module(PARTS[part]).main(rest) for part in chosen)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench NAME …`: measure. `python -m bench` lists what there is."""

import sys

from . import charging, http, ledger, pages, reading, serving, start, stats, what_if

BENCHES = {
    "charging": charging,
    "http": http,
    "ledger": ledger,
    "pages": pages,
    "reading": reading,
    "serving": serving,
    "start": start,
    "stats": stats,
    "what_if": what_if,
}

if __name__ == "__main__":
    chosen = BENCHES.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if chosen is None:
        for name, module in BENCHES.items():
            print(f"python -m bench {name}: {(module.__doc__ or '').splitlines()[0]}")
        sys.exit(2)
    chosen.main(sys.argv[2:])

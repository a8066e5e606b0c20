"""A program that charges as fast as it can, to be killed at any moment.

It imports everything once and then, for each line `FIRST` that it reads, forks a writer that charges with the keys
`k-FIRST`, `k-FIRST+1`, … and notes each receipt in a file; the writer's process id is printed.
"""

import os
import sys

from billing_core import ledger
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.idempotency import Once
from billing_core.tokens import Tokens

MODELS = ("m", "n")


def write(url: str, file: str, first: int, last: int | None = None) -> None:
    """Charge `first`, `first` + 1, … and note what was acknowledged."""
    db = Database(url)
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    number = first
    while last is None or number <= last:
        key, tokens = f"k-{number}", Tokens(number % 7 + 1, number % 3)
        once = Once.of(SHELL, key, number)
        done = db.write(ledger.charge, "ann", MODELS[number % 2], tokens, actor=SHELL, once=once)
        os.write(out, f"{key} {done.entry_id} {done.cost}\n".encode())
        number += 1


def main(url: str, file: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                write(url, file, int(line))
            finally:
                os._exit(1)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

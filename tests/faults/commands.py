"""A program that runs shell commands, to be killed at any moment.

It imports everything once and then, for each line that it reads (JSON: the database's URL, a file, the command's words), forks
a process that runs the command and prints into the file. It prints the process id and, once that has ended, its exit code.
"""

import json
import os
import sys

from billing_core import archive, check, shell  # noqa: F401  (a command imports them when it needs them)


def run(url: str, file: str, words: list[str]) -> None:
    os.environ["BILLING_DATABASE_URL"] = url
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    sys.argv = ["billing", *words]
    shell.main()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                run(*json.loads(line))
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

"""`python -m bench.timed NOTES run app.py …`: as `streamlit run`, but each run of a page writes a line of JSON to the file NOTES:
its seconds, and of them those in the database's transactions."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from billing_core.database import Database
from pages.parts import frame

spent = threading.local()


def main() -> None:
    notes = Path(sys.argv.pop(1)).open("a", buffering=1)  # noqa: SIM115  as long as the server runs
    run, show = Database._run, frame.show

    def timed_run(*given: Any) -> Any:
        began = time.perf_counter()
        try:
            return run(*given)
        finally:
            spent.seconds = getattr(spent, "seconds", 0.0) + time.perf_counter() - began

    def timed_show() -> None:
        spent.seconds, began, cpu = 0.0, time.perf_counter(), time.thread_time()
        try:
            show()
        finally:
            taken = time.perf_counter() - began
            notes.write(
                json.dumps({"seconds": taken, "in_database": spent.seconds, "cpu": time.thread_time() - cpu}) + "\n"
            )

    Database._run, frame.show = timed_run, timed_show  # type: ignore[method-assign]
    from streamlit.web.cli import main as streamlit

    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()

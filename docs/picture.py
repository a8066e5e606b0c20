"""Makes the README's picture: the demo's year, as the real app shows it to an admin.

python docs/picture.py          (with requirements-dev.txt installed, and Chromium)

With a ledger that `python -m bench ledger` has made, the picture of docs/performance.md: python docs/picture.py ledger.db
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from e2e.conftest import ARGUMENTS, CHROMIUM, App  # noqa: E402

from api.auth import SESSION_COOKIE  # noqa: E402
from bench.app import sign_in  # noqa: E402
from billing_core import accounts, demo, signin  # noqa: E402
from billing_core.database import Database  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1:]:
            db, picture = Database(f"sqlite:///{Path(sys.argv[1]).resolve()}"), "stats-10m.png"
            session = sign_in(db)
        else:
            db, picture = Database(f"sqlite:///{folder}/demo.db"), "stats.png"
            demo.fill(db.url)
            session = db.write(lambda tx: signin.issue(tx, "session", accounts.find(tx, "boss")))
        app = App(db.url, Path(folder) / "console.log")
        try:
            app.wait()
            take(app, session, ROOT / "docs" / picture)
        finally:
            app.stop()
            db.close()


def take(app: App, session: str, file: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(
            viewport={"width": 1280, "height": 800}, locale="en-US", timezone_id="Asia/Shanghai"
        )
        context.add_cookies([{"name": SESSION_COOKIE, "value": session, "url": app.url}])
        page = context.new_page()
        page.goto(f"{app.url}/stats?range=12m")
        page.get_by_test_id("stDataFrame").wait_for()
        page.get_by_test_id("stVegaLiteChart").locator("svg .role-mark path").first.wait_for()
        page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
        page.wait_for_timeout(1500)  # until the bars have been drawn
        page.screenshot(path=file)
        browser.close()


if __name__ == "__main__":
    main()

"""From an empty database to the first bill, as a small team goes it: in a browser, with curl, in a shell."""

import csv
import io
import json
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from billing_core.i18n import translate
from e2e.conftest import App

PASSWORD = "correct horse battery"
BODY = {
    "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
              "prompt_tokens_details": {"cached_tokens": 600}},
}  # fmt: skip
"""What a provider answered, in the shape of OpenAI's chat."""
COST = 300
"""毫: (400 × 20 + 600 × 10 + 200 × 80) / 100 at the prices that are set on the way."""


class Person:
    """Somebody at a browser, who reads one language."""

    def __init__(self, page: Page, app: App, language: str):
        self.page = page
        self.app = app
        self._ = partial(self._translate, language)
        page.set_default_timeout(20_000)

    @staticmethod
    def _translate(language: str, message: str, **params: object) -> str:
        return translate(message, language, **params)

    def open(self, path: str) -> None:
        self.page.goto(path if path.startswith("http") else self.app.url + path)

    def sees(self, text: str, **params: object) -> None:
        expect(self.page.get_by_text(self._(text, **params)).first).to_be_visible(timeout=20_000)

    def sees_title(self, title: str) -> None:
        expect(self.page.get_by_role("heading", name=self._(title), exact=True).first).to_be_visible(timeout=20_000)

    def fills(self, label: str, value: str) -> None:
        field = self.page.get_by_label(self._(label), exact=True).first
        field.fill(value)
        field.press("Tab")

    def chooses(self, label: str, option: str) -> None:
        field = self.page.get_by_role("combobox", name=self._(label)).first
        field.click()
        field.fill(option)
        self.page.get_by_role("option", name=re.compile(re.escape(option))).first.click()
        expect(self.page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
        expect(self.page.get_by_role("dialog")).to_have_count(0)

    def presses(self, label: str, **params: object) -> None:
        self.page.get_by_role("button", name=self._(label, **params)).last.click()

    def signs_in(self, user_id: str) -> None:
        self.open("/")
        self.fills("Id", user_id)
        self.fills("Password", PASSWORD)
        self.presses("Sign in")
        self.sees_title("Balance")

    def goes_to(self, title: str) -> None:
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=self._(title), exact=True).click()
        self.sees_title(title)


def curl(app: App, key: str, route: str, body: object) -> tuple[int, dict]:
    """POST with curl: the status and the answer."""
    done = subprocess.run(
        ["curl", "-sS", "-w", "\n%{http_code}", f"{app.url}/api/v1/billing{route}", "-H", f"Authorization: Bearer {key}",
         "-H", "Content-Type: application/json", "-d", json.dumps(body)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(answer)


@pytest.mark.parametrize(("browser_language", "language"), [("en-US", "en"), ("zh-CN", "zh_CN")])
def test_from_an_empty_folder_to_the_first_bill(
    start: Callable[[], App], chromium: Browser, tmp_path: Path, browser_language: str, language: str
) -> None:
    app = start()

    def somebody() -> Person:
        context = chromium.new_context(
            locale=browser_language, timezone_id="Asia/Shanghai", accept_downloads=True,
            viewport={"width": 1400, "height": 1000},
        )  # fmt: skip
        return Person(context.new_page(), app, language)

    boss = somebody()
    makes_the_first_admin(boss)
    adds_two_members(boss)
    recharges_ann(boss)
    sets_a_price_in_place(boss)
    key = a_program_gets_its_key(app)
    a_program_charges_a_call(app, key)
    ann = somebody()
    ann.signs_in("ann")
    sees_where_the_money_went(ann)
    downloads_the_csv(ann)
    undoes_a_wrong_recharge(boss)
    freezes_and_unfreezes(boss, app, key)
    assert "Traceback" not in app.log.read_text()


def makes_the_first_admin(boss: Person) -> None:
    link = boss.app.setup_link()
    boss.open(link)
    boss.fills("Id, to sign in with", "boss")
    boss.fills("Name, as others see it", "Boss")
    boss.fills("Password", PASSWORD)
    boss.presses("Make me the first admin")
    boss.sees_title("Balance")
    boss.open(link)
    boss.sees_title("Balance")  # the link is spent, and Boss is signed in


def adds_two_members(boss: Person) -> None:
    for user_id, name in (("ann", "Ann 安"), ("bob", "Bob")):
        boss.goes_to("Accounts")
        boss.presses("Add an account")
        boss.fills("Id, to sign in with", user_id)
        boss.fills("Name, as others see it", name)
        boss.fills("First password (may stay empty)", PASSWORD)
        boss.presses("Add the account")
        boss.sees("{name} is added. A recharge comes next.", name=name)


def recharge(boss: Person, name: str, amount: str, shown: str, remark: str) -> None:
    boss.goes_to("Recharge")
    boss.chooses("Account", name)
    asking = boss.page.get_by_role("button", name=boss._("Recharge {name} by {amount} 元", name=name, amount=shown))
    for _again in range(3):  # on a busy machine what is typed while the page is drawn anew may be lost
        boss.fills("Amount, 元", amount)
        with suppress(AssertionError):
            expect(asking.last).to_be_enabled(timeout=10_000)
            break
    boss.fills("Remark", remark)
    boss.presses("Recharge {name} by {amount} 元", name=name, amount=shown)
    dialog = boss.page.get_by_role("dialog")
    expect(dialog).to_contain_text("→")
    dialog.get_by_role("button", name=boss._("Recharge {name} by {amount} 元", name=name, amount=shown)).click()


def recharges_ann(boss: Person) -> None:
    recharge(boss, "Ann 安", "100", "100.00", "首充")
    boss.sees(
        "{name} is recharged by {amount} 元 and has {balance} 元.", name="Ann 安", amount="100.00", balance="100.00"
    )


def sets_a_price_in_place(boss: Person) -> None:
    boss.goes_to("Prices")
    grid = boss.page.get_by_test_id("stDataFrame").first
    grid.click(position={"x": 60, "y": 52})  # the row under the heading that adds one, and opens its first cell
    cell = boss.page.locator(".gdg-input")
    for place, text in enumerate(("openai/gpt-4o", "20", "80", "10")):
        if place:
            boss.page.keyboard.press("Enter")  # opens the selected cell
        cell.fill(text)
        cell.press("Tab")
        expect(cell).to_be_hidden()
    boss.page.get_by_role("button", name=re.compile(re.escape(boss._("Apply {n} change", n=1)))).first.click()
    expect(grid.locator("td", has_text=boss._("Set here")).first).to_be_attached()


def a_program_gets_its_key(app: App) -> str:
    app.shell("account", "add", "meter", "--name", "Meter")
    key = app.shell("key", "add", "--account", "meter", "--can", "charge")
    assert key.startswith("bk_")
    return key


def a_program_charges_a_call(app: App, key: str) -> None:
    status, answer = curl(app, key, "/charge", {"user_id": "ann", "model_id": "openai/gpt-4o", "response": BODY})
    assert (status, answer["cost"], answer["balance"]) == (200, COST, 1_000_000 - COST)


def sees_where_the_money_went(ann: Person) -> None:
    expect(ann.page.get_by_text("99.97").first).to_be_visible()
    expect(ann.page.get_by_test_id("stVegaLiteChart").locator("svg .role-mark path").first).to_be_visible()
    grid = ann.page.get_by_test_id("stDataFrame").first
    grid.scroll_into_view_if_needed()
    grid.click(position={"x": 300, "y": 52})
    dialog = ann.page.get_by_role("dialog")
    for text in ("openai/gpt-4o", "400", "600", "200", "20.00", "10.00", "80.00", "0.0300"):
        expect(dialog).to_contain_text(text)
    expect(ann.page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    ann.goes_to("Stats")
    expect(ann.page.get_by_test_id("stVegaLiteChart").locator("svg .role-mark path").first).to_be_visible()


def downloads_the_csv(ann: Person) -> None:
    ann.goes_to("Logs")
    link = ann.page.get_by_role("link", name=ann._("Download CSV"))
    link.evaluate("link => link.removeAttribute('target')")  # in a tab of its own, the download is another page's
    with ann.page.expect_download() as download:
        link.click()
    content = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename.startswith("logs-ann")
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert [row["type"] for row in rows] == ["deduct", "recharge"]
    assert (rows[0]["cost_yuan"], rows[0]["cost_hao"], rows[0]["balance_after_yuan"]) == ("0.0300", "300", "99.9700")
    assert (rows[1]["remark"], rows[1]["name"]) == ("首充", "Ann 安")


def undoes_a_wrong_recharge(boss: Person) -> None:
    recharge(boss, "Bob", "500", "500.00", "for Ann, not for Bob")
    boss.sees("{name} is recharged by {amount} 元 and has {balance} 元.", name="Bob", amount="500.00", balance="500.00")
    boss.presses("Reverse it")
    dialog = boss.page.get_by_role("dialog")
    reason = dialog.get_by_label(boss._("Undo this entry: the reason"))
    # Enter reaches the form once its button is there; nobody types faster than that.
    expect(dialog.get_by_role("button", name=boss._("Reverse entry {id}", id=3))).to_be_visible()
    reason.fill("meant for Ann")
    reason.press("Enter")
    boss.sees("Entry {id} is undone; {name} has {balance} 元.", id=3, name="Bob", balance="0.00")


def freezes_and_unfreezes(boss: Person, app: App, key: str) -> None:
    call = {"user_id": "ann", "model_id": "openai/gpt-4o", "prompt_tokens": 10, "completion_tokens": 1}
    for label, message, expected in (
        ("Freeze {name}", "{name} is frozen.", 403),
        ("Unfreeze {name}", "{name} is unfrozen.", 200),
    ):
        boss.open("/account?account=ann")
        boss.sees_title("Ann 安")
        boss.presses(label, name="Ann 安")
        boss.page.get_by_role("dialog").get_by_role("button", name=boss._(label, name="Ann 安")).click()
        boss.sees(message, name="Ann 安")
        status, answer = curl(app, key, "/charge", call)
        assert status == expected, answer

"""The front door: one port for the pages and the API, and nothing behind it before somebody has signed in."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, expect

from e2e.conftest import ROOT, App

PASSWORD = "correct horse battery"


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


@pytest.mark.parametrize("path", ["/recharge", "/accounts?account=ann", "/logs?account=boss"])
def test_a_servers_first_visit_leads_to_the_sign_in_form_whatever_its_address(
    start: Callable[[], App], chromium: Browser, path: str
) -> None:
    app = start()
    app.shell("account", "add", "boss", "--name", "Boss", "--admin", "--password-file", "-", stdin=PASSWORD)
    page = chromium.new_context(locale="en-US").new_page()
    page.goto(app.url + path)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=30_000)
    expect(page.get_by_test_id("stSidebarNav")).to_have_count(0)
    page.get_by_label("Id", exact=True).fill("boss")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_test_id("stSidebarNav")).to_be_visible(timeout=30_000)
    assert page.url == app.url + path  # and on to where the visitor wanted to go
    (cookie,) = [one for one in page.context.cookies() if one["name"] == "billing_session"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    page.reload()
    expect(page.get_by_test_id("stSidebarNav")).to_be_visible(timeout=30_000)


def test_who_types_the_password_before_the_form_is_quite_there_goes_on_typing_it(
    start: Callable[[], App], chromium: Browser
) -> None:
    app = start()
    app.shell("account", "add", "boss", "--name", "Boss", "--admin", "--password-file", "-", stdin=PASSWORD)
    page = chromium.new_context(locale="en-US").new_page()
    page.goto(app.url)
    name, password = (page.get_by_label(label, exact=True) for label in ("Id", "Password"))
    expect(name).to_be_focused(timeout=30_000)
    password.focus()
    page.evaluate(  # the form's script, which may run late
        """() => new Function([...document.scripts].find(one => one.textContent.includes("focus()")).textContent)()"""
    )
    page.keyboard.type(PASSWORD)
    expect(password).to_have_value(PASSWORD)
    expect(name).to_have_value("")


def test_a_form_that_is_drawn_once_more_gets_the_focus_back(start: Callable[[], App], chromium: Browser) -> None:
    app = start()
    app.shell("account", "add", "boss", "--name", "Boss", "--admin", "--password-file", "-", stdin=PASSWORD)
    page = chromium.new_context(locale="en-US").new_page()
    page.goto(app.url)
    name = page.get_by_label("Id", exact=True)
    expect(name).to_be_focused(timeout=30_000)
    page.evaluate("document.activeElement.blur()")
    expect(name).to_be_focused()
    page.get_by_role("heading").first.click()
    expect(name).not_to_be_focused()


def test_the_api_answers_on_the_same_port(start: Callable[[], App]) -> None:
    app = start()
    status, body = get(f"{app.url}/api/v1/billing/balance")
    assert (status, list(json.loads(body))) == (401, ["detail"])
    status, body = get(f"{app.url}/api/v1/billing/pricing/openai/gpt-4o:free")
    assert (status, json.loads(body)["model_id"]) == (200, "openai/gpt-4o:free")
    assert "/charge" in json.loads(get(f"{app.url}/api/v1/billing/openapi.json")[1])["paths"]


def test_a_ticket_that_is_no_good_sets_no_cookie_and_leads_nowhere_else(
    start: Callable[[], App], chromium: Browser
) -> None:
    app = start()
    context = chromium.new_context()
    for to in ("//evil.example/x", "https://evil.example", "/\\evil.example", "javascript:1"):
        answer = context.request.get(f"{app.url}/session/start", params={"ticket": "x", "to": to}, max_redirects=0)
        assert (answer.status, answer.headers["location"]) == (303, "/")
    assert not context.cookies()


def test_a_port_that_is_taken_gets_a_sentence(start: Callable[[], App]) -> None:
    app = start()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(app.port)]
    second = subprocess.run(
        [*command, "--server.headless", "true"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode != 0
    assert f"Port {app.port} is not available" in second.stdout + second.stderr
    assert "Traceback" not in second.stdout + second.stderr


def test_every_address_of_the_api_is_answered_by_the_api(start: Callable[[], App]) -> None:
    app = start()
    for path in ("", "/", "/nowhere", "/pricing/a%2F..%2Fb", "/pricing/%00", "/balance/%00", "/pricing/a%0d%0aX:1"):
        status, body = get(f"{app.url}/api/v1/billing{path}")
        assert status == 200 or json.loads(body)["detail"], path
    assert json.loads(get(f"{app.url}/api/v1/billing/pricing/a%2F..%2Fb")[1])["model_id"] == "a/../b"

"""Statements on the pages: which month, as what, and whether the ledger still says the same."""

import pytest
from conftest import Visit
from streamlit.testing.v1 import AppTest
from test_seals import tamper

from billing_core import accounts, ledger, statement
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction
from billing_core.stats import from_ns
from billing_core.tokens import Tokens
from billing_core.zones import zone


@pytest.fixture
def db(visit_db: Database) -> Database:
    """Ann, Bob, and the admin Boss; Ann was charged once."""

    def write(tx: Transaction) -> None:
        accounts.add(tx, "boss", "Boss", actor=SHELL, role="admin")
        for user_id in ("ann", "bob"):
            accounts.add(tx, user_id, user_id.title(), actor=SHELL)
        ledger.recharge(tx, "ann", 1_000_000, actor=SHELL)
        ledger.charge(tx, "ann", "some/model", Tokens(1000, 0), actor=SHELL)

    visit_db.write(write)
    return visit_db


def month(db: Database) -> str:
    return from_ns(db.clock(), zone("UTC")).strftime("%Y-%m")


def file(db: Database, user_id: str = "ann") -> bytes:
    made = statement.make(db, user_id, month(db), zone("UTC"), actor=SHELL)
    return b"".join(statement.as_html(db, made))


def links(app: AppTest) -> list[str]:
    return [one.proto.url for one in app.get("link_button") if "/statements" in one.proto.url]


def given(app: AppTest, content: bytes) -> AppTest:
    """The page after the file was put in."""
    (uploader,) = app.get("file_uploader")
    return uploader.upload("statement.html", content, "text/html").run()


def test_a_member_finds_their_own_statement(visit: Visit, db: Database) -> None:
    app = visit("my-account", "ann")
    assert not app.exception
    start = f"/api/v1/billing/statements?month={month(db)}"
    assert links(app) == [f"{start}&format={kind}&timezone=UTC&lang=en" for kind in ("html", "csv")]


def test_an_admin_finds_a_members(visit: Visit, db: Database) -> None:
    app = visit("account", "boss", account="ann")
    assert not app.exception
    assert links(app)[0].startswith(f"/api/v1/billing/statements/ann?month={month(db)}&format=html")


def test_a_statement_that_is_put_in_is_verified(visit: Visit, db: Database) -> None:
    content = file(db)
    app = given(visit("my-account", "ann"), content)
    assert not app.exception
    assert "The ledger still says the same: 2 entries of ann" in app.success[0].value.replace("\\", "")
    tamper(db, "UPDATE entry SET balance_after = balance_after + 1 WHERE id = 2")
    app = given(visit("account", "boss", account="ann"), content)
    assert app.error[0].value.replace("\\", "").startswith("Entry 2 differs: the balance after it is 99.9820 元")


def test_what_cannot_be_verified_is_said_where_it_was_put_in(visit: Visit, db: Database) -> None:
    app = given(visit("my-account", "bob"), file(db))
    assert "somebody else's" in app.error[0].value
    app = given(visit("my-account", "ann"), b"hello")
    assert "not a statement of this app" in app.error[0].value
    assert not app.exception

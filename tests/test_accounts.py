"""Who there is, and what may be changed about them by whom."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from conftest import Clock

from billing_core import accounts, signin
from billing_core.actors import SHELL, Actor
from billing_core.database import Database
from billing_core.errors import Conflict, Forbidden, Invalid, NotSignedIn, UnknownAccount


def add(db: Database, user_id: str, name: str = "Somebody", **options: Any) -> Actor:
    return signin.actor_of(db.write(accounts.add, user_id, name, actor=SHELL, **options))


def change(db: Database, user_id: str, actor: Actor = SHELL, **options: Any) -> accounts.Account:
    return db.write(accounts.change, user_id, actor=actor, **options)


def test_a_new_account_is_an_active_member_with_nothing(db: Database, clock: Clock) -> None:
    add(db, " ann@example.com ", "  Ann   Lee ", email=" ann@example.com ")
    ann = db.read(accounts.find, "ann@example.com")
    assert (ann.name, ann.email, ann.role, ann.status) == ("Ann Lee", "ann@example.com", "member", "active")
    assert (ann.balance, ann.total_consumed, ann.password_hash, ann.created_at_ns) == (0, 0, None, clock.now_ns)


@pytest.mark.parametrize(
    "user_id", ["", " ", "a b", "a/b", "a?b", "a#b", "a%b", "a\0b", "x" * 65, "shell", "\ud800", "a\u200bb"], ids=repr
)
def test_an_id_that_no_address_could_hold_is_refused(db: Database, user_id: str) -> None:
    with pytest.raises(Invalid, match="can't be an id") as refused:
        add(db, user_id)
    assert refused.value.field == "user_id"


@pytest.mark.parametrize("user_id", ["李雷", "ann-1_2.3", "x" * 64, "Ünal"])
def test_an_id_may_be_of_any_script(db: Database, user_id: str) -> None:
    add(db, user_id)
    assert db.read(accounts.find, user_id).user_id == user_id


WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"name": " "}, "name", "1 to 100 characters"),
    ({"name": "x" * 101}, "name", "1 to 100 characters"),
    ({"name": "a\0b"}, "name", "1 to 100 characters"),
    ({"email": "nobody"}, "email", "not an email address"),
    ({"email": "a@b c"}, "email", "not an email address"),
    ({"email": "a\0@b"}, "email", "not an email address"),
    ({"email": "\ud800@b"}, "email", "not an email address"),
    ({"email": "x" * 250 + "@b.cn"}, "email", "not an email address"),
    ({"role": "owner"}, "role", "member or admin"),
    ({"role": ""}, "role", "member or admin"),
]


@pytest.mark.parametrize(("wrong", "field", "says"), WRONG, ids=[repr(wrong) for wrong, *_ in WRONG])
def test_what_an_account_cannot_be_is_refused_and_nothing_changes(
    db: Database, ann: str, wrong: dict[str, str], field: str, says: str
) -> None:
    for operation in (lambda: add(db, "bob", **{"name": "Bob", **wrong}), lambda: change(db, ann, **wrong)):
        with pytest.raises(Invalid, match=says) as refused:
            operation()
        assert refused.value.field == field
    assert [(one.user_id, one.name, one.email) for one in db.read(accounts.listed, actor=SHELL)] == [("ann", "Ann", "")]


def test_a_status_that_is_none_is_refused(db: Database, ann: str) -> None:
    with pytest.raises(Invalid, match="active or frozen"):
        change(db, ann, status="asleep")


def test_an_id_is_taken_once(db: Database, ann: str) -> None:
    with pytest.raises(Conflict, match="There is an account ann already"):
        add(db, ann)


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Run them at the same moment; what each gave or refused."""
    start = Barrier(len(functions))

    def run(function: Callable[[], Any]) -> Any:
        start.wait()
        try:
            return function()
        except (Conflict, Forbidden) as error:
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


def test_an_id_that_two_ask_for_at_once_is_given_once(db: Database) -> None:
    results = at_once(*[lambda: add(db, "ann")] * 4)
    assert sorted(type(result).__name__ for result in results) == ["Actor"] + ["Conflict"] * 3


def test_what_is_not_given_stays_as_it_is(db: Database, ann: str) -> None:
    change(db, ann, name="Anne", email="anne@example.com")
    change(db, ann, role="admin")
    changed = db.read(accounts.find, ann)
    assert (changed.name, changed.email, changed.role, changed.status) == (
        "Anne",
        "anne@example.com",
        "admin",
        "active",
    )
    with pytest.raises(UnknownAccount):
        change(db, "nobody", name="Nobody")


def test_the_search_finds_every_word_in_id_name_or_email_and_takes_signs_for_signs(db: Database) -> None:
    add(db, "ann", "Ann Lee", email="ann@example.com")
    add(db, "bob_1", "李雷")
    add(db, "bob-2", "100% Bob")

    def found(search: str) -> list[str]:
        return [one.user_id for one in db.read(accounts.listed, actor=SHELL, search=search)]

    assert found("") == ["bob-2", "ann", "bob_1"]  # by name
    assert found("LEE example") == ["ann"]
    add(db, "elo", "Élodie")
    assert found("éLODIE") == ["elo"]
    assert found("李") == ["bob_1"]
    assert found("bob_") == ["bob_1"]
    assert found("%") == ["bob-2"]
    assert found("ann nobody") == []
    assert found("a\0nn") == found("\ud800") == []


# Admins


def test_the_last_admin_stays(db: Database) -> None:
    add(db, "boss", role="admin")
    for loss in ({"role": "member"}, {"status": "frozen"}):
        with pytest.raises(Conflict, match="boss is the only admin left"):
            change(db, "boss", **loss)
    boss = db.read(accounts.find, "boss")
    assert (boss.role, boss.status) == ("admin", "active")
    add(db, "second", role="admin")
    change(db, "second", status="frozen")
    with pytest.raises(Conflict, match="only admin left"):  # a frozen one is no help
        change(db, "boss", role="member")
    change(db, "second", status="active")
    change(db, "boss", role="member")


def test_two_admins_who_demote_each_other_at_once_are_not_both_gone(db: Database) -> None:
    first, second = (add(db, name, role="admin") for name in ("first", "second"))
    for _ in range(5):
        results = at_once(
            lambda: change(db, "second", first, role="member"), lambda: change(db, "first", second, role="member")
        )
        assert len([result for result in results if isinstance(result, Conflict)]) == 1
        assert db.read(accounts.acting_admins) == 1
        for name in ("first", "second"):
            change(db, name, role="admin")


def test_who_is_no_longer_an_admin_loses_the_keys_of_one(db: Database) -> None:
    add(db, "boss", role="admin")
    add(db, "second", role="admin")
    admin_key, own_key = (db.write(signin.add_key, "second", actor=SHELL, can=can)[1] for can in ("admin", ""))
    change(db, "second", role="member")
    with pytest.raises(NotSignedIn, match="revoked"):
        db.read(signin.key_actor, admin_key)
    assert not db.read(signin.key_actor, own_key)[0].is_admin


def test_who_is_frozen_and_then_demoted_comes_back_without_the_keys_of_an_admin(db: Database) -> None:
    add(db, "boss", role="admin")
    add(db, "second", role="admin")
    _, secret = db.write(signin.add_key, "second", actor=SHELL, can="admin")
    for step in ({"status": "frozen"}, {"role": "member"}, {"status": "active"}):
        change(db, "second", **step)
    with pytest.raises(NotSignedIn, match="revoked"):
        db.read(signin.key_actor, secret)


# Frozen accounts


def test_freezing_ends_sessions_and_tickets_and_unfreezing_brings_none_back(db: Database, ann: str) -> None:
    account = db.read(accounts.find, ann)
    session, ticket = (db.write(signin.issue, purpose, account) for purpose in ("session", "ticket"))
    assert db.read(signin.session_actor, session)
    change(db, ann, status="frozen")
    assert db.read(signin.session_actor, session) is None
    assert db.write(signin.trade_ticket, ticket) is None
    change(db, ann, status="active")
    assert db.read(signin.session_actor, session) is None
    assert db.write(signin.trade_ticket, ticket) is None


# One's own choices


def test_everybody_chooses_their_own_language_and_zone(db: Database) -> None:
    ann = add(db, "ann")
    db.write(accounts.choose, actor=ann, language="zh_CN", timezone="Asia/Kathmandu")
    chosen = signin.actor_of(db.read(accounts.find, "ann"))
    assert (chosen.language, chosen.timezone) == ("zh_CN", "Asia/Kathmandu")
    db.write(accounts.choose, actor=ann, language=None, timezone=None)
    chosen = signin.actor_of(db.read(accounts.find, "ann"))
    assert (chosen.language, chosen.timezone) == (None, None)


@pytest.mark.parametrize("choice", [{"language": "tlh"}, {"timezone": "Nowhere/Land"}, {"timezone": "a\0b"}], ids=repr)
def test_a_language_or_zone_that_is_none_is_refused(db: Database, choice: dict[str, str]) -> None:
    ann = add(db, "ann")
    with pytest.raises(Invalid) as refused:
        db.write(accounts.choose, actor=ann, **{"language": None, "timezone": None, **choice})
    assert refused.value.field in choice

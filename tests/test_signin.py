"""Getting in, and being kept out."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import Clock

from billing_core import accounts, keeper, signin
from billing_core.actors import SHELL, Actor
from billing_core.database import Database
from billing_core.errors import Forbidden, FrozenActor, Invalid, NotFound, NotSignedIn, TooManyTries

PASSWORD = "correct horse battery"
HASH = signin.hash_password(PASSWORD)


@pytest.fixture
def ann(db: Database) -> Actor:
    """A member with a password."""
    return signin.actor_of(db.write(accounts.add, "ann", "Ann", actor=SHELL, password_hash=HASH))


def sign_in(db: Database, user_id: str = "ann", password: str = PASSWORD) -> str:
    """The whole way in, as a page and its route go it; the session's secret."""
    account = signin.check_password(db, user_id, password)
    session = db.write(signin.trade_ticket, db.write(signin.issue, "ticket", account))
    assert session
    return session


def wrong(db: Database, user_id: str = "ann", kind: type[Exception] = NotSignedIn) -> Any:
    with pytest.raises(kind) as refused:
        signin.check_password(db, user_id, "wrong password")
    return refused.value


# Passwords


@pytest.mark.parametrize("password", ["", "1234567", "x" * 201])
def test_a_password_that_is_too_short_or_too_long_is_refused(password: str) -> None:
    with pytest.raises(Invalid, match="at least 8 characters"):
        signin.hash_password(password)


def test_a_password_is_kept_as_argon2_and_never_as_it_is(db: Database, ann: Actor) -> None:
    assert HASH.startswith("$argon2id$")
    assert signin.hash_password(PASSWORD) != HASH
    assert signin.check_password(db, " ann ", PASSWORD).user_id == "ann"


@pytest.mark.parametrize("password", ["密码密码密码密码", "\ud800 and seven more", "nul\0nul\0nul"], ids=repr)
def test_any_text_can_be_a_password(db: Database, password: str) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL, password_hash=signin.hash_password(password))
    assert signin.check_password(db, "bob", password).user_id == "bob"
    with pytest.raises(NotSignedIn):
        signin.check_password(db, "bob", password[:-1])


@pytest.mark.parametrize("user_id", ["nobody", "", "shell", "a\0b", "\ud800", "x" * 1000, "' OR 1=1 --"], ids=repr)
def test_somebody_unknown_is_told_the_same_as_somebody_with_a_wrong_password(
    db: Database, ann: Actor, user_id: str
) -> None:
    told = wrong(db).sentence()
    assert wrong(db, user_id).sentence() == told == "The id or the password is wrong."


def test_an_account_without_a_password_lets_nobody_in(db: Database) -> None:
    db.write(accounts.add, "meter", "Meter", actor=SHELL)
    for password in ("", "None", PASSWORD):
        with pytest.raises(NotSignedIn):
            signin.check_password(db, "meter", password)


def test_a_frozen_account_is_told_so_only_with_the_right_password(db: Database, ann: Actor) -> None:
    db.write(accounts.change, "ann", actor=SHELL, status="frozen")
    wrong(db)
    with pytest.raises(Forbidden, match="This account is frozen"):
        signin.check_password(db, "ann", PASSWORD)


def test_wrong_tries_are_forgotten_after_a_day_without_one(db: Database, ann: Actor, clock: Clock) -> None:
    for user_id in ("ann", "nobody", "somebody"):
        wrong(db, user_id)
    tries = sa.text("SELECT user_id FROM sign_in_tries ORDER BY 1")
    clock.forward(seconds=86_000)
    wrong(db, "somebody")
    clock.forward(seconds=1000)
    keeper.tick(db)
    assert db.read(lambda tx: list(tx.connection().scalars(tries))) == ["somebody"]


def test_a_slip_while_the_clock_was_ahead_locks_nobody_out(db: Database, ann: Actor, clock: Clock) -> None:
    clock.forward(days=365)
    wrong(db)
    clock.forward(days=-365)
    assert sign_in(db)


def test_wrong_tries_make_a_name_wait_twice_as_long_each_time(db: Database, ann: Actor, clock: Clock) -> None:
    for _ in range(signin.FREE_TRIES):
        wrong(db)
    for wait in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900):
        assert f"again in {wait} s" in wrong(db, kind=TooManyTries).sentence()
        with pytest.raises(TooManyTries):  # the right one waits as well
            signin.check_password(db, "ann", PASSWORD)
        clock.forward(seconds=wait)
        wrong(db)
    clock.forward(seconds=900)
    assert sign_in(db)


def test_the_right_password_forgets_the_wrong_ones(db: Database, ann: Actor) -> None:
    for _ in range(2):
        for _ in range(signin.FREE_TRIES - 1):
            wrong(db)
        assert sign_in(db)


def test_tries_are_counted_by_name_and_in_the_database(db: Database, ann: Actor) -> None:
    for _ in range(signin.FREE_TRIES):
        wrong(db, "nobody")
    assert sign_in(db)  # another name does not wait
    another_server = Database(db.url, clock=db.clock)
    assert "Too many wrong tries" in wrong(another_server, "nobody", TooManyTries).sentence()
    another_server.close()


def test_wrong_tries_at_once_are_all_counted(db: Database, ann: Actor) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: wrong(db, kind=NotSignedIn), range(4)))
    wrong(db)
    wrong(db, kind=TooManyTries)


def test_a_new_password_ends_the_other_sessions(db: Database, ann: Actor) -> None:
    here, there = sign_in(db), sign_in(db)
    new = signin.hash_password("another long one")
    db.write(signin.change_password, "ann", new, actor=ann, keep_session=here)
    assert db.read(signin.session_actor, here)
    assert db.read(signin.session_actor, there) is None
    wrong(db)
    assert sign_in(db, password="another long one")
    db.write(signin.change_password, "ann", HASH, actor=SHELL)
    assert db.read(signin.session_actor, here) is None


def test_nobody_but_an_admin_changes_somebody_elses_password(db: Database, ann: Actor) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL, password_hash=HASH)
    with pytest.raises(Forbidden):
        db.write(signin.change_password, "bob", None, actor=ann)
    assert sign_in(db, "bob")


# Tickets, sessions, the first admin's link


def test_a_session_says_who_is_there_until_it_is_signed_out(db: Database, ann: Actor) -> None:
    session = sign_in(db)
    assert db.read(signin.session_actor, session) == ann
    db.write(signin.sign_out, session)
    assert db.read(signin.session_actor, session) is None


@pytest.mark.parametrize("secret", [None, "", "made up", "\ud800", "a\0b"], ids=repr)
def test_a_secret_that_was_never_given_opens_nothing(db: Database, ann: Actor, secret: Any) -> None:
    sign_in(db)
    assert db.read(signin.session_actor, secret) is None
    assert db.write(signin.trade_ticket, secret) is None
    assert not db.read(signin.may_set_up, secret)
    db.write(signin.sign_out, secret)
    with pytest.raises(NotFound):
        db.write(signin.set_up, secret or "", "boss", "Boss", HASH)
    with pytest.raises(NotSignedIn):
        db.read(signin.key_actor, secret or "")


def test_a_ticket_is_traded_once_even_by_many_at_once(db: Database, ann: Actor) -> None:
    ticket = db.write(signin.issue, "ticket", db.read(accounts.find, "ann"))
    with ThreadPoolExecutor(4) as pool:
        sessions = list(pool.map(lambda _: db.write(signin.trade_ticket, ticket), range(4)))
    assert len([session for session in sessions if session]) == 1


def test_a_secret_serves_its_own_purpose_only(db: Database, ann: Actor) -> None:
    account = db.read(accounts.find, "ann")
    ticket, session = db.write(signin.issue, "ticket", account), sign_in(db)
    setup = db.write(signin.setup_link)
    assert db.read(signin.session_actor, ticket) is None
    assert db.write(signin.trade_ticket, session) is None
    assert db.read(signin.session_actor, setup) is None
    assert not db.read(signin.may_set_up, session)


@pytest.mark.parametrize("purpose", signin.LIFE_SECONDS)
def test_a_secret_ends_at_its_time_and_is_then_cleared_away(
    db: Database, ann: Actor, clock: Clock, purpose: str
) -> None:
    secret = db.write(signin.issue, purpose, db.read(accounts.find, "ann"))
    works = {
        "session": lambda: db.read(signin.session_actor, secret) is not None,
        "ticket": lambda: db.write(signin.trade_ticket, secret) is not None,
        "setup": lambda: db.read(signin.may_set_up, secret),
    }[purpose]
    clock.now_ns += signin.LIFE_SECONDS[purpose] * signin.SECOND
    assert not works()
    clock.now_ns -= 1
    assert works()
    clock.forward(days=60)
    db.write(signin.issue, "session", db.read(accounts.find, "ann"))
    count = sa.text("SELECT count(*) FROM token")
    assert db.read(lambda tx: tx.connection().scalar(count)) == 1


def test_the_first_admin_is_made_once_by_the_newest_link(db: Database) -> None:
    old, new = db.write(signin.setup_link) or "", db.write(signin.setup_link) or ""
    assert [db.read(signin.may_set_up, link) for link in (old, new)] == [False, True]
    with pytest.raises(Invalid):  # a mistake in the form doesn't use the link up
        db.write(signin.set_up, new, "a b", "Boss", HASH)
    with pytest.raises(NotFound, match="used or is too old"):
        db.write(signin.set_up, old, "boss", "Boss", HASH)
    assert db.write(signin.set_up, new, "boss", "Boss", HASH).role == "admin"
    with pytest.raises(NotFound, match="used or is too old"):
        db.write(signin.set_up, new, "boss2", "Boss", HASH)
    assert db.write(signin.setup_link) is None
    assert sign_in(db, "boss")


def test_a_link_is_worth_nothing_once_there_is_an_admin(db: Database) -> None:
    link = db.write(signin.setup_link) or ""
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    with pytest.raises(NotFound):
        db.write(signin.set_up, link, "thief", "Thief", HASH)


# Keys


def test_a_key_is_shown_once_and_kept_as_a_hash(db: Database, ann: Actor) -> None:
    key, secret = db.write(signin.add_key, "ann", actor=ann, name="  my   laptop ")
    assert (key.name, secret.startswith(key.hint), len(key.hint)) == ("my laptop", True, 8)
    rows = db.read(lambda tx: str(tx.connection().execute(sa.text("SELECT * FROM api_key")).all()))
    assert secret not in rows
    assert secret[8:] not in rows


@pytest.mark.parametrize(
    ("can", "may_charge", "is_admin"), [("", False, False), ("charge", True, False), ("admin", False, True)]
)
def test_a_key_may_do_what_it_was_made_for(
    db: Database, ann: Actor, can: str, may_charge: bool, is_admin: bool
) -> None:
    _, secret = db.write(signin.add_key, "ann", actor=SHELL, can=can)
    actor, _ = db.read(signin.key_actor, secret)
    assert (actor.user_id, actor.may_charge, actor.is_admin) == ("ann", may_charge, is_admin)


def test_an_admins_own_key_reads_like_a_members(db: Database) -> None:
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    _, secret = db.write(signin.add_key, "boss", actor=SHELL)
    assert not db.read(signin.key_actor, secret)[0].is_admin


def test_a_member_makes_no_key_for_others_or_with_rights(db: Database, ann: Actor) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    for user_id, can in (("bob", ""), ("ann", "charge"), ("ann", "admin")):
        with pytest.raises(Forbidden):
            db.write(signin.add_key, user_id, actor=ann, can=can)
    with pytest.raises(Invalid, match="charge or admin"):
        db.write(signin.add_key, "ann", actor=SHELL, can="everything")
    with pytest.raises(Forbidden):
        db.read(signin.keys, None, actor=ann)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=repr)
def test_a_keys_name_holds_what_a_screen_can_show(db: Database, ann: Actor, name: str) -> None:
    key, _ = db.write(signin.add_key, "ann", actor=ann, name=name)
    assert key.name == name.replace("\0", "").replace("\ud800", "")


def test_a_revoked_key_is_worth_nothing_and_stays_listed_last(db: Database, ann: Actor, clock: Clock) -> None:
    first, secret = db.write(signin.add_key, "ann", actor=ann, name="first")
    db.write(signin.add_key, "ann", actor=ann, name="second")
    db.write(signin.revoke_key, first.id or 0, actor=ann)
    revoked_at = clock.now_ns
    clock.forward(seconds=1)
    db.write(signin.revoke_key, first.id or 0, actor=ann)  # again changes nothing
    with pytest.raises(NotSignedIn, match="revoked"):
        db.read(signin.key_actor, secret)
    listed = [(key.name, key.revoked_at_ns) for key, _ in db.read(signin.keys, "ann", actor=ann)]
    assert listed == [("second", None), ("first", revoked_at)]


@pytest.mark.parametrize("number", [0, -1, 999, 10**30])
def test_nobody_revokes_a_key_that_is_not_theirs_or_not_there(db: Database, ann: Actor, number: int) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    theirs, secret = db.write(signin.add_key, "bob", actor=SHELL)
    for wanted in (theirs.id or 0, number):
        with pytest.raises(NotFound, match=f"There is no key {wanted}"):
            db.write(signin.revoke_key, wanted, actor=ann)
    assert db.read(signin.key_actor, secret)


def test_a_frozen_accounts_keys_read_and_end_holds_and_charge_nothing_new(db: Database, ann: Actor) -> None:
    db.write(accounts.change, "ann", actor=SHELL, role="admin")
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    keys = [db.write(signin.add_key, "ann", actor=SHELL, can=can)[1] for can in ("", "charge", "admin")]
    db.write(accounts.change, "ann", actor=SHELL, status="frozen")
    reading, charging, administering = (db.read(signin.key_actor, key)[0] for key in keys)
    for actor in (reading, charging, administering):
        actor.must_see("ann")
    charging.must_end_holds()
    for refused in (charging.must_charge, administering.must_charge, administering.must_be_admin):
        with pytest.raises(FrozenActor):
            refused()


def test_a_key_says_when_it_was_last_used(db: Database, ann: Actor, clock: Clock) -> None:
    key, secret = db.write(signin.add_key, "ann", actor=ann)
    assert key.last_used_at_ns is None
    clock.forward(seconds=5)
    db.write(signin.touch_key, key.id or 0)
    assert db.read(signin.key_actor, secret)[1].last_used_at_ns == clock.now_ns


def test_many_tries_at_once_wait_as_if_they_came_one_by_one(db: Database, ann: Actor) -> None:
    def attempt(_n: int) -> type[Exception]:
        try:
            signin.check_password(db, ann.user_id, "wrong password")
        except (NotSignedIn, TooManyTries) as error:
            return type(error)
        raise AssertionError("signed in")

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(attempt, range(12)))
    assert told.count(NotSignedIn) == signin.FREE_TRIES

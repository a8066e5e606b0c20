"""reprice, as a shell runs it."""

import json
from pathlib import Path

import pytest
from conftest import Clock
from test_shell import Run, environment, invoke, refused, run  # noqa: F401

from billing_core import accounts, ledger, pricing, repricing
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction
from billing_core.tokens import Tokens


@pytest.fixture
def calls(run: Run, db: Database, ann: str, clock: Clock) -> list[int]:  # noqa: F811
    """Three calls of Ann's, 180 毫 each, at a price that has been corrected since."""

    def write(tx: Transaction) -> list[int]:
        ledger.recharge(tx, "ann", 1_000_000, actor=SHELL)
        found = [ledger.charge(tx, "ann", "some/model", Tokens(1000, 0), actor=SHELL).entry_id for _ in "123"]
        pricing.set_price(tx, "some/model", 10_000_000, 20_500_000, actor=SHELL)
        return found

    return db.write(write)


def balance(db: Database) -> int:
    return db.read(accounts.find, "ann").balance


def test_it_shows_what_it_will_do_and_asks(calls: list[int], db: Database) -> None:
    filters = ("--user", "ann", "--model", "some/model", "--from", "2025-06-15")
    answered = invoke("reprice", *filters, "--reason", "a wrong price", input="n\n", code=1)
    for line in (
        "To be repriced: 3 of 3 selected entries, 0.054 → 0.03 元, +0.024 元 in all.",
        "some/model: input 18.00 → 10.00, output 72.00 → 20.50 元 per million tokens; 0.054 → 0.03 元 (3 entries)",
        "ann: 99.946 → 99.97 元 (3 entries)",
    ):
        assert line in answered.stderr
    assert balance(db) == 999_460
    done = invoke("reprice", *filters, "--reason", "a wrong price", input="y\n")
    assert "Repriced 3 entries (job 1).\n" in done.stdout
    assert balance(db) == 999_700


def test_it_takes_the_numbers_from_a_file_and_leaves_what_costs_the_same(
    calls: list[int], db: Database, tmp_path: Path
) -> None:
    same = db.write(ledger.charge, "ann", "some/model", Tokens(1000, 0), actor=SHELL).entry_id
    ids = tmp_path / "ids"
    ids.write_text(f"{calls[0]}\n{calls[2]}, {same} 1")
    done = invoke("reprice", "--file", str(ids), "--reason", "x", "--yes", "--json")
    assert "Left as they are: 1 × cost the same at the price that counts now" in done.stderr
    assert "Left as they are: 1 × no charges of calls" in done.stderr
    job = json.loads(done.stdout)
    assert (job["entries"], job["reversed"], job["refused"], job["reprices"]) == (4, 2, 2, True)
    assert balance(db) == 999_460 + 160 - 100


def test_one_way_of_saying_which_is_needed_and_a_reason(calls: list[int]) -> None:
    for wrong in (
        ["--reason", "x"],
        ["--user", "ann", "--job", "1", "--reason", "x"],
        ["--resume", "1", "--model", "m"],
    ):
        assert "Say which entries" in invoke("reprice", *wrong, code=2).stderr
    assert "Say why" in invoke("reprice", "--user", "ann", code=2).stderr


@pytest.mark.parametrize("command", ["reprice", "reverse-many"])
def test_a_job_that_was_cut_short_goes_on(calls: list[int], db: Database, command: str) -> None:
    seen = db.read(repricing.preview, calls, actor=SHELL)
    job = db.write(repricing.start, calls, "x", actor=SHELL, seen=seen.seen)
    (listed,) = json.loads(invoke("reversals", "--json").stdout)
    assert (listed["id"], listed["left"], listed["reprices"]) == (job, 3, True)
    assert "Repriced 3 entries" in invoke(command, "--resume", str(job)).stdout
    assert "Reprices" in invoke("reversals").stdout
    assert "There is no job 7" in refused(command, "--resume", "7")


def test_a_job_is_taken_back_by_its_number(calls: list[int], db: Database) -> None:
    invoke("reprice", "--user", "ann", "--reason", "x", "--yes")
    assert "Repriced 3 entries (job 2)." in invoke("reprice", "--job", "1", "--reason", "right", "--yes").stdout
    assert balance(db) == 999_460
    assert "is a repricing" in refused("reverse-many", "--job", "1", "--reason", "x", "--yes")


def test_where_nothing_would_change_it_says_so(calls: list[int]) -> None:
    invoke("reprice", "--user", "ann", "--reason", "x", "--yes")
    assert "would cost anything else" in invoke("reprice", "--user", "ann", "--reason", "x", code=1).stderr

"""reverse-many and reversals, as a shell runs them."""

import json
from pathlib import Path

import pytest
from conftest import Clock
from test_shell import Run, environment, invoke, refused, run  # noqa: F401

from billing_core import accounts, ledger, undoing
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction
from billing_core.tokens import Tokens


@pytest.fixture
def calls(run: Run, db: Database, ann: str, clock: Clock) -> list[int]:  # noqa: F811
    """Three calls of Ann's, 180 毫 each."""

    def write(tx: Transaction) -> list[int]:
        ledger.recharge(tx, "ann", 1_000_000, actor=SHELL)
        return [ledger.charge(tx, "ann", "some/model", Tokens(1000, 0), actor=SHELL).entry_id for _ in "123"]

    return db.write(write)


def balance(db: Database) -> int:
    return db.read(accounts.find, "ann").balance


def test_it_shows_what_it_will_do_and_asks(calls: list[int], db: Database) -> None:
    filters = ("--account", "ann", "--type", "deduct", "--since", "2025-06-15", "--until", "2025-06-15")
    answered = invoke("reverse-many", *filters, "--reason", "a wrong price", input="n\n", code=1)
    assert "To be reversed: 3 of 3 selected entries (3 × Charge), +0.054 元 in all." in answered.stderr
    assert "ann: 99.946 → 100.00 元 (3 entries)" in answered.stderr
    assert balance(db) == 1_000_000 - 3 * 180
    done = invoke("reverse-many", *filters, "--reason", "a wrong price", input="y\n")
    assert "Reversed 3 entries (job 1).\n" in done.stdout
    assert balance(db) == 1_000_000


def test_it_takes_the_numbers_from_a_file(calls: list[int], db: Database, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text(f"{calls[0]}\n{calls[2]}, {calls[0]}\n")
    done = json.loads(invoke("reverse-many", "--file", str(ids), "--reason", "x", "--yes", "--json").stdout)
    assert (done["entries"], done["reversed"], done["left"]) == (2, 2, 0)
    assert balance(db) == 1_000_000 - 180


@pytest.mark.parametrize("text", ["12 x", "", "1.5", "-3", "9" * 30])
def test_a_file_that_holds_no_numbers_is_one_sentence(calls: list[int], tmp_path: Path, text: str) -> None:
    ids = tmp_path / "ids"
    ids.write_text(text)
    assert "is not the number of an entry" in refused("reverse-many", "--file", str(ids), "--reason", "x", "--yes")


def test_one_way_of_saying_which_is_needed_and_a_reason(calls: list[int]) -> None:
    for wrong in (
        ["--reason", "x"],
        ["--user", "ann", "--job", "1", "--reason", "x"],
        ["--search", " ", "--reason", "x"],
        ["--resume", "1", "--model", "m"],
    ):
        assert "Say which entries" in invoke("reverse-many", *wrong, code=2).stderr
    assert "Say why" in invoke("reverse-many", "--user", "ann", code=2).stderr


def test_a_job_that_was_cut_short_goes_on(calls: list[int], db: Database) -> None:
    seen = db.read(undoing.preview, calls, actor=SHELL)
    job = db.write(undoing.start, calls, "x", actor=SHELL, seen=seen.seen)
    (listed,) = json.loads(invoke("reversals", "--json").stdout)
    assert (listed["id"], listed["left"], listed["finished_at"]) == (job, 3, None)
    assert "Reversed 3 entries" in invoke("reverse-many", "--resume", str(job)).stdout
    assert "There is no job 7" in refused("reverse-many", "--resume", "7")


def test_a_job_is_undone_by_its_number(calls: list[int], db: Database) -> None:
    invoke("reverse-many", "--user", "ann", "--type", "deduct", "--reason", "x", "--yes")
    assert (
        "Reversed 3 entries (job 2)."
        in invoke("reverse-many", "--job", "1", "--reason", "it was right", "--yes").stdout
    )
    assert balance(db) == 1_000_000 - 3 * 180


def test_jobs_are_listed_with_what_they_left_alone(calls: list[int], db: Database) -> None:
    assert "Nothing was ever reversed" in invoke("reversals").stderr
    db.write(ledger.reverse, calls[0], "before", actor=SHELL)
    done = invoke("reverse-many", "--type", "deduct", "--reason", "a wrong price", "--yes")
    assert "Left as they are: 1 × reversed already" in done.stderr
    assert "Left as they are: 1. See why with: reversals 1" in done.stderr
    assert "a wrong price" in invoke("reversals").stdout
    assert f"Entry {calls[0]} has been reversed already." in invoke("reversals", "1").stdout
    refusal = json.loads(invoke("reversals", "1", "--json").stdout)["refusals"][0]
    assert refusal == {"entry_id": calls[0], "message": f"Entry {calls[0]} has been reversed already."}


def test_who_would_be_in_debt_is_named_first(calls: list[int]) -> None:
    said = invoke("reverse-many", "--type", "recharge", "--reason", "x", input="n\n", code=1).stderr
    assert "Into debt: ann." in said

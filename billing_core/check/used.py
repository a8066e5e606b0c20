"""The sums of use, against what the entries used."""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from .. import sums
from ..database import Transaction
from ..errors import BillingError
from ..i18n import N_
from ..models import ACCOUNT, BOTH, MODEL, OTHER, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USAGE_SUMS, USED
from ..sums import QUARTER_NS
from ..tokens import PRICED_IN_SQL
from .findings import Findings
from .reading import blocks, each_row, yuan

Busy = frozenset[tuple[int, int]]
"""Accounts that were busy, each with the period of sums.LONG."""

OFS = (MODEL, ACCOUNT, BOTH)


def busy_accounts(tx: Transaction) -> Busy:
    """As the sums themselves say; they are wrong where that is."""
    long = f"of = {ACCOUNT} AND length = {sums.LONG} AND kind = {USED} AND calls >= {sums.BUSY_CALLS}"
    rows = tx.connection().execute(sa.text(f"SELECT account_id, period FROM usage_sum WHERE {long}"))
    return frozenset((row[0], row[1]) for row in rows)


def lengths(of: int, kind: int) -> list[int]:
    """All that are kept, the finest first."""
    if kind == OTHER:
        return sorted(sums.KEPT[of]) if of == ACCOUNT else []
    return sorted({*sums.KEPT[of], *(sums.BUSY if of == BOTH else ())} if kind == USED else sums.UNDONE[of])


def weigh(*numbers: int) -> int:
    """Cost, calls and so on, in the order of usage_sum, as one number: they stand side by side in it, 64 bits each, so that
    weights add up as the numbers do. Raises TypeError for what is no whole number (SQLite keeps text where numbers go)."""
    try:
        return int.from_bytes(_pack(*numbers), "little")
    except struct.error:  # one is below 0
        return sum(number << 64 * place for place, number in enumerate(numbers))


class _Dice(dict[int, int]):
    """A throw of 60 bits for each number: the same again for the same `salt` and `of`. Raises TypeError for what is no whole
    number."""

    def __init__(self, salt: int, of: object) -> None:
        self._thrown = blake2b(f"{salt} {of}".encode(), digest_size=8)

    def __missing__(self, number: int) -> int:
        thrown = self._thrown.copy()
        thrown.update((number | 0).to_bytes(16, "little", signed=True))
        found = self[number] = int.from_bytes(thrown.digest(), "little") >> 4
        return found


class Sketch:
    """Fingerprints that add up like the sums of use do: each weight times the throw of its place, which is the product of those
    of its period, account and model. Two sides with the same total have the same numbers in the same places, but for a chance of
    three in 2⁶⁰ (Schwartz and Zippel: what differs is a polynomial of degree 3 in the throws); it takes no sorting. A call is
    added where the finest sums that hold it are; each sum takes its own place and adds itself in that of the next coarser
    one."""

    def __init__(self, salt: int, busy: Busy) -> None:
        self.salt, self.busy = salt, busy
        self.accounts, self.models = _Dice(salt, "account"), _Dice(salt, "model")
        self.accounts[0] = self.models[0] = 1  # nobody's, and nothing's
        self._periods: dict[tuple[int, ...], _Dice] = {}

    def place(self, of: int, length: int, kind: int, slot: int = 0) -> tuple[_Dice, _Dice | None, int]:
        """The throws for the periods of a sum; the same of the next coarser sum, None where there is none; and how many times
        as long that one is."""
        known = lengths(of, kind) if of in OFS else []
        coarser = next((longer for shorter, longer in pairwise(known) if shorter == length), 0)
        part = 0 if of == MODEL else slot  # a sum of a model may have several
        longer = self._periods_of(of, coarser, kind, 0) if coarser else None
        return self._periods_of(of, length, kind, part), longer, coarser // length if coarser else 1

    def _periods_of(self, *what: int) -> _Dice:
        what = tuple(number | 0 for number in what)
        if what not in self._periods:
            self._periods[what] = _Dice(self.salt, what)
        return self._periods[what]

    def of_calls(self) -> Callable[[int, int, int], int]:
        """What gives the throws of the places where a call (account, model, at_ns) counts first. It is asked for each of
        millions, so that it looks up nothing of this object."""
        busy, accounts, models = self.busy, self.accounts, self.models
        model_length, account_length, busy_length = (lengths(of, USED)[0] for of in OFS)
        of_model, of_account, of_busy, of_idle = (
            self.place(of, length, USED)[0]
            for of, length in ((MODEL, model_length), (ACCOUNT, account_length), (BOTH, busy_length), (BOTH, sums.LONG))
        )
        model_ns, account_ns, busy_ns, long_ns = (
            length * QUARTER_NS for length in (model_length, account_length, busy_length, sums.LONG)
        )

        def used(account: int, model: int, at_ns: int) -> int:
            long, who, what = at_ns // long_ns, accounts[account], models[model]
            both = of_busy[at_ns // busy_ns] if (account, long) in busy else of_idle[long]
            return of_model[at_ns // model_ns] * what + (of_account[at_ns // account_ns] + both * what) * who

        return used

    def other(self, account: int, at_ns: int) -> int:
        """The throw of the place where an entry counts first that is no call."""
        return self._finest(ACCOUNT, OTHER, at_ns, account, 0)

    def undone(self, account: int, model: int, at_ns: int, kind: int) -> int:
        """The throws of the places where what was undone counts first."""
        places = ((MODEL, 0, model), (ACCOUNT, account, 0), (BOTH, account, model))
        return sum(self._finest(of, kind, at_ns, who, what) for of, who, what in places)

    def _finest(self, of: int, kind: int, at_ns: int, account: int, model: int) -> int:
        length = lengths(of, kind)[0]
        period = self.place(of, length, kind)[0][at_ns // QUARTER_NS // length]
        return period * self.accounts[account] * self.models[model]


def kept_fingerprint(tx: Transaction, salt: int, busy: Busy) -> int | None:
    """The fingerprint of the sums of use and what is open, less what reversals undid: that of the calls and other entries,
    where the sums are right. None where they hold something else than whole numbers."""
    sketch, kept = Sketch(salt, busy), 0
    accounts, models = sketch.accounts, sketch.models
    of_what: tuple[Any, ...] = ()
    columns = f"of, length, kind, slot, period, account_id, model_id, {', '.join(_KINDS)}"
    try:
        for rows in blocks(tx, f"SELECT {columns} FROM usage_sum"):
            for row in rows:
                if row[:4] != of_what:  # most rows are of what the one before was
                    of_what = row[:4]
                    own, coarser, times = sketch.place(*of_what)
                period, account, model = row[4:7]
                where = own[period] if coarser is None else own[period] - coarser[period // times]
                kept += weigh(*row[7:]) * (where * accounts[account] * models[model])
        calls = sketch.of_calls()
        columns = ", ".join(("quarter", "account_id", "model_id", *_KINDS))
        for rows in blocks(tx, f"SELECT {columns} FROM usage_open"):
            for quarter, account, model, *numbers in rows:
                at_ns = (quarter | 0) * QUARTER_NS
                kept += weigh(*numbers) * (calls(account, model, at_ns) if model | 0 else sketch.other(account, at_ns))
        for rows in blocks(tx, f"{_CHAIN} {_UNDONE}"):
            for account, at_ns, model, kind, *numbers in rows:
                kept += weigh(*numbers) * sketch.undone(account, model, at_ns, kind)
    except TypeError:
        return None
    return kept


_KINDS = [column.name for column in USAGE_SUMS.columns if not column.primary_key]
_pack = struct.Struct(f"<{len(_KINDS)}Q").pack
_TOKENS = [kind for kind in _KINDS if kind.endswith("_tokens")]
# A reversal counts where the call did that its chain of reversals ends in; numbers fall along a chain, so it ends.
_CHAIN = """
WITH RECURSIVE chain(id, account_id, cost, at_ns, root, sign) AS (
    SELECT id, account_id, cost, created_at_ns, reverses_id, -1 FROM entry WHERE reverses_id IS NOT NULL
    UNION ALL
    SELECT chain.id, chain.account_id, chain.cost, chain.at_ns, up.reverses_id, -chain.sign
    FROM chain JOIN entry up ON up.id = chain.root WHERE up.reverses_id < up.id
)
"""
_PRICED = f"CASE WHEN {PRICED_IN_SQL.format(extras='e.extras')} THEN 1 ELSE 0 END"
"""Whether the five counts don't say all that a call costs."""
_CALLED = f"""
SELECT account_id, created_at_ns, model_id, {USED}, -cost, -1, {", ".join(f"-{kind}" for kind in _TOKENS)},
    -({_PRICED}), -coalesce(upstream_yuan, 0), CASE WHEN upstream_yuan IS NULL THEN 0 ELSE -cost END
FROM entry e WHERE {sums.IS_CALL}
"""
_OTHER = f"""
SELECT account_id, created_at_ns, 0, {OTHER}, -({sums.RECHARGED}), -1, {", ".join("0" * (len(_KINDS) - 2))}
FROM entry e WHERE NOT {sums.IS_CALL}
"""
# Each row as if it were a call at the start of its quarter, so that _BUSY fits.
_OPEN = f"(SELECT o.*, quarter * {QUARTER_NS} AS created_at_ns FROM usage_open o) AS e"
_UNDONE = f"""
SELECT chain.account_id, CASE undone.kind WHEN {UNDONE_AT_CALL} THEN e.created_at_ns ELSE chain.at_ns END,
    e.model_id, undone.kind, -chain.cost, -chain.sign, {", ".join(f"-chain.sign * e.{kind}" for kind in _TOKENS)},
    -chain.sign * {_PRICED}, -chain.sign * coalesce(e.upstream_yuan, 0),
    CASE WHEN e.upstream_yuan IS NULL THEN 0 ELSE -chain.cost END
FROM chain JOIN entry e ON e.id = chain.root
CROSS JOIN (SELECT {UNDONE_AT_CALL} AS kind UNION ALL SELECT {UNDONE_AT_REVERSAL}) AS undone
WHERE e.reverses_id IS NULL AND e.type IN ('deduct', 'settle')
"""
# By the moment of reversals, what a repricing charges anew doesn't count in the period of the call, but when it was written.
_REPRICED = f"""
SELECT account_id, CASE moved.sign WHEN 1 THEN created_at_ns ELSE recorded_at_ns END, model_id,
    {UNDONE_AT_REVERSAL}, moved.sign * cost, moved.sign, {", ".join(f"moved.sign * {kind}" for kind in _TOKENS)},
    moved.sign * {_PRICED}, moved.sign * coalesce(upstream_yuan, 0),
    CASE WHEN upstream_yuan IS NULL THEN 0 ELSE moved.sign * cost END
FROM entry e CROSS JOIN (SELECT 1 AS sign UNION ALL SELECT -1) AS moved
WHERE reprices_id IS NOT NULL AND recorded_at_ns IS NOT NULL
"""
_BUSY = f"""
AND (account_id, created_at_ns / {{ns}}) IN (
    SELECT account_id, at_ns / {{ns}} FROM (
        SELECT account_id, created_at_ns AS at_ns, 1 AS calls FROM entry WHERE type IN ('deduct', 'settle')
        UNION ALL SELECT account_id, quarter * {QUARTER_NS}, -calls FROM usage_open WHERE model_id <> 0
    ) AS closed GROUP BY 1, 2 HAVING sum(calls) >= {{calls}}
)
"""


def usage_sums(tx: Transaction, found: Findings) -> None:
    """Name the sums of use that are not what the entries say."""
    there = {tuple(row) for row in tx.connection().execute(sa.text("SELECT DISTINCT of, length FROM usage_sum"))}
    known = {(of, length) for of in OFS for kind in (USED, UNDONE_AT_CALL) for length in lengths(of, kind)}
    for of, length in sorted(known | there, key=repr):
        try:
            with tx.savepoint():  # Postgres goes on after an error from there
                _compare(tx, found, of, length, (of, length) in known)
        except DBAPIError as error:
            if not any(words in str(error.orig) for words in ("integer overflow", "out of range")):
                raise
            found.note("usage_sum", None, N_("The sums of usage hold a number that is larger than any can be."))


_CALLS_DIFFER = N_(
    "The sum of {what} for {length} from {time} (UTC) is kept as {kept} 元, but what its entries say differs by "
    "{difference} 元 and {calls} calls."
)
_OTHERS_DIFFER = N_(
    "The sum of the recharges of {what} for {length} from {time} (UTC) is kept as {kept} 元, but what its entries say differs by "
    "{difference} 元 and {calls} entries that are no calls."
)


def _compare(tx: Transaction, found: Findings, of: int, length: int, known: bool) -> None:
    for row in each_row(tx, _differing(of, length, known), of=of, length=length):
        found.note(
            "usage_sum", "/".join(map(str, (of, length, row.period, row.account_id, row.model_id, row.kind))),
            _OTHERS_DIFFER if row.kind == OTHER else _CALLS_DIFFER,
            what=_what(of, row.account_id, row.model_id), length=_said(length), time=_began(length, row.period),
            kept=yuan(_whole(row.kept)), difference=yuan(-_whole(row.cost)), calls=-_whole(row.calls),
        )  # fmt: skip


def _differing(of: int, length: int, known: bool) -> str:
    """SQL for the sums of a length, less what the entries say they are, where that leaves something."""
    entries, still_open = [], list[str]()
    account, model, slot = (
        ("0", "model_id", "0") if of == MODEL else ("account_id", "0" if of == ACCOUNT else "model_id", "slot")
    )
    kinds, key = ", ".join(_KINDS), "period, account_id, model_id, kind, slot"
    if known and length in lengths(of, USED):
        busy = of == BOTH and length not in sums.KEPT[BOTH]
        some = _BUSY.format(ns=sums.LONG * QUARTER_NS, calls=sums.BUSY_CALLS) if busy else ""
        entries.append(f"{_CALLED}{some}")
        still_open.append(
            f"SELECT quarter / {length}, {account}, {model}, {USED}, 0, {kinds}, cost FROM {_OPEN} WHERE model_id <> 0 {some}"
        )
    if known and length in lengths(of, OTHER):
        entries.append(_OTHER)
        still_open.append(
            f"SELECT quarter / {length}, account_id, 0, {OTHER}, 0, {kinds}, cost FROM {_OPEN} WHERE model_id = 0"
        )
    if known and length in lengths(of, UNDONE_AT_CALL):
        entries += [_REPRICED, _UNDONE]
    said = f"said(account_id, at_ns, model_id, kind, {kinds}) AS ({' UNION ALL '.join(entries)})"
    return f"""
    {f"{_CHAIN}, {said}" if entries else ""}
    SELECT {key}, {", ".join(f"sum({kind}) AS {kind}" for kind in _KINDS)}, sum(kept) AS kept FROM (
        SELECT period, account_id, model_id, kind, {slot} AS slot, {kinds}, cost AS kept FROM usage_sum
        WHERE of = :of AND length = :length
        {" ".join(f"UNION ALL {some}" for some in still_open)}
        {f"UNION ALL SELECT at_ns / {length * QUARTER_NS}, {account}, {model}, kind, 0, {kinds}, 0 FROM said" if entries else ""}
    ) AS both_sides
    GROUP BY {key} HAVING {" OR ".join(f"sum({kind}) <> 0" for kind in _KINDS)} ORDER BY {key}
    """


def _what(of: int, account: object, model: object) -> BillingError:
    if of == MODEL:
        return BillingError(N_("model number {model}"), model=model)
    if of == ACCOUNT:
        return BillingError(N_("account number {account}"), account=account)
    return BillingError(N_("account number {account} and model number {model}"), account=account, model=model)


_LENGTHS = {
    1: N_("15 minutes"),
    4: N_("1 hour"),
    8: N_("2 hours"),
    16: N_("4 hours"),
    32: N_("8 hours"),
    96: N_("1 day"),
    768: N_("8 days"),
    6144: N_("64 days"),
}


def _said(length: int) -> BillingError:
    return BillingError(_LENGTHS.get(length, N_("{length} quarters of an hour")), length=length)


def _began(length: Any, period: Any) -> str:
    """When a period began, in UTC; what is none (SQLite keeps text in a column of numbers) as it stands there."""
    try:
        return f"{datetime.fromtimestamp(length * period * 900, UTC):%Y-%m-%d %H:%M}"
    except (TypeError, ValueError, OverflowError, OSError):
        return repr(period)


def _whole(sum: Any) -> Any:
    """Postgres adds whole numbers up to a Decimal."""
    return int(sum) if sum == sum // 1 and abs(sum) < 2**64 else sum

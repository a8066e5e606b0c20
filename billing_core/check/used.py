"""The sums of use, against what the entries used."""

from operator import mul
from typing import Any

from sqlalchemy.exc import OperationalError

from ..database import Transaction
from ..i18n import N_
from ..ledger import PERIOD_NS
from ..models import UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USAGE_SUMS, USED
from ..tokens import PRICED_IN_SQL
from .findings import Findings
from .reading import blocks, each_row, yuan


class Sketch:
    """Fingerprints that add up like the sums of use do: each number times a hash of its place, by dice thrown for this check.
    Two sides with the same total have the same numbers in the same places, but for a chance of one in 10¹⁸; it takes neither
    sorting nor memory."""

    def __init__(self, salt: int) -> None:
        self.salt = salt
        self.factors = [hash((salt, place)) for place in range(len(_KINDS))]

    def of(self, key: tuple[int, int, int, int], *numbers: int) -> int:
        """`key` is account, period, model and kind; `numbers` cost, calls and tokens, in the order of usage_sum."""
        return hash((self.salt, *key)) * sum(map(mul, self.factors, numbers))


def kept_fingerprint(tx: Transaction, salt: int) -> int | None:
    """The fingerprint of the sums of use, less what reversals undid: that of the calls, where the sums are right. None where
    they hold something else than numbers."""
    fingerprint, kept = Sketch(salt).of, 0
    try:
        for rows in blocks(tx, f"SELECT account_id, period, model_id, kind, {', '.join(_KINDS)} FROM usage_sum"):
            for row in rows:
                kept += fingerprint(row[:4], *row[4:])
        for rows in blocks(tx, f"{_CHAIN} {_UNDONE}"):
            for row in rows:
                kept += fingerprint(row[:4], *row[4 : 4 + len(_KINDS)])
    except TypeError:
        return None
    return kept


_KINDS = [column.name for column in USAGE_SUMS.columns if not column.primary_key]
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
_UNDONE = f"""
SELECT chain.account_id, CASE undone.kind WHEN {UNDONE_AT_CALL} THEN e.created_at_ns ELSE chain.at_ns END / {PERIOD_NS},
    e.model_id, undone.kind, -chain.cost, -chain.sign, {", ".join(f"-chain.sign * e.{kind}" for kind in _TOKENS)},
    -chain.sign * {_PRICED}, -chain.sign * coalesce(e.upstream_yuan, 0),
    CASE WHEN e.upstream_yuan IS NULL THEN 0 ELSE -chain.cost END, 0
FROM chain JOIN entry e ON e.id = chain.root
CROSS JOIN (SELECT {UNDONE_AT_CALL} AS kind UNION ALL SELECT {UNDONE_AT_REVERSAL}) AS undone
WHERE e.reverses_id IS NULL AND chain.cost <> 0
"""
# By the moment of reversals, what a repricing charges anew doesn't count in the period of the call, but when it was written.
_REPRICED = f"""
SELECT account_id, CASE moved.sign WHEN 1 THEN created_at_ns ELSE recorded_at_ns END / {PERIOD_NS}, model_id,
    {UNDONE_AT_REVERSAL}, moved.sign * cost, moved.sign, {", ".join(f"moved.sign * {kind}" for kind in _TOKENS)},
    moved.sign * {_PRICED}, moved.sign * coalesce(upstream_yuan, 0),
    CASE WHEN upstream_yuan IS NULL THEN 0 ELSE moved.sign * cost END, 0
FROM entry e CROSS JOIN (SELECT 1 AS sign UNION ALL SELECT -1) AS moved
WHERE reprices_id IS NOT NULL AND recorded_at_ns IS NOT NULL
"""
_USAGE = f"""
{_CHAIN}
SELECT account_id, period, model_id, kind, {", ".join(f"sum({kind}) AS {kind}" for kind in _KINDS)}, sum(kept) AS kept
FROM (
    SELECT account_id, period, model_id, kind, {", ".join(_KINDS)}, cost AS kept FROM usage_sum
    UNION ALL
    SELECT account_id, created_at_ns / {PERIOD_NS}, model_id, {USED}, -cost, -1, {", ".join(f"-{kind}" for kind in _TOKENS)},
        -({_PRICED}), -coalesce(upstream_yuan, 0), CASE WHEN upstream_yuan IS NULL THEN 0 ELSE -cost END, 0
    FROM entry e WHERE type IN ('deduct', 'settle')
    UNION ALL
    {_REPRICED}
    UNION ALL
    {_UNDONE}
) AS both_sides
GROUP BY account_id, period, model_id, kind
HAVING {" OR ".join(f"sum({kind}) <> 0" for kind in _KINDS)}
ORDER BY account_id, period, model_id, kind
"""


def usage_sums(tx: Transaction, found: Findings) -> None:
    try:
        _compare_usage_sums(tx, found)
    except OperationalError as error:
        if "integer overflow" not in str(error.orig):
            raise
        found.note("usage_sum", None, N_("The sums of usage hold a number that is larger than any can be."))


def _whole(sum: Any) -> Any:
    """Postgres adds whole numbers up to a Decimal."""
    return int(sum) if sum == sum // 1 and abs(sum) < 2**64 else sum


def _compare_usage_sums(tx: Transaction, found: Findings) -> None:
    for row in each_row(tx, _USAGE):
        found.note(
            "usage_sum", f"{row.account_id}/{row.period}/{row.model_id}/{row.kind}",
            N_(
                "The sum for account number {account}, quarter of an hour {period} and model number {model} is kept "
                "as {kept} 元, but what its entries say differs by {difference} 元 and {calls} calls."
            ),
            account=row.account_id, period=row.period, model=row.model_id, kept=yuan(_whole(row.kept)),
            difference=yuan(-_whole(row.cost)), calls=-_whole(row.calls),
        )  # fmt: skip

"""CSV of what the pages show, all of it, a block at a time.

UTF-8 with a byte order mark, so that spreadsheets read Chinese; times in ISO 8601 with their offset, all of a column written
alike; amounts as exact decimals in 元 with the integer 毫 beside them; text that a spreadsheet would take for a formula begins
with '.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import tzinfo
from operator import attrgetter
from typing import Any
from zoneinfo import ZoneInfo

from .accounts import listed
from .actors import SHELL_ID, Actor
from .audit import Noted, sentence
from .balances import balances_of
from .database import Database, Transaction
from .logs import Filters, Names, Row, raw
from .models import Account
from .money import price_yuan, to_yuan
from .pricing import Current, SetPrice
from .rates import MORE_PARTS
from .stats import SUMS, Period, Used, each_account, from_ns, iso, last_periods, totals, usage
from .text import safe
from .what_if import Cell

BLOCK = 64 * 1024


def blocks(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """The file, in blocks of about 64 KB."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    buffer.write("\ufeff")
    writer.writerow(header)
    for row in rows:
        writer.writerow([safe(cell) if isinstance(cell, str) else cell for cell in row])
        if buffer.tell() > BLOCK:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def moment(ns: int, tz: tzinfo) -> str:
    """In ISO 8601 with its offset, always to the microsecond: what reads a column finds each of it written alike."""
    return from_ns(ns, tz).isoformat(timespec="microseconds")


PARTS = ("input", "output", "cache_read", "cache_write")


def _price(attribute: str) -> Callable[[Any], str]:
    get = attrgetter(attribute)

    def written(row: Any) -> str:
        micro = get(row)
        return "" if micro is None else f"{price_yuan(micro):f}"

    return written


def _further(part: str) -> Callable[[Current], str]:
    """A component beyond the four; empty where it falls under another."""

    def written(row: Current) -> str:
        micro = getattr(row.prices.more, part, None)
        return "" if micro is None else f"{price_yuan(micro):f}"

    return written


_Columns = dict[str, Callable[[Any], Any]]
"""A column's heading, and what stands in it."""


def _csv(columns: _Columns, rows: Iterable[Any]) -> Iterator[bytes]:
    return blocks(list(columns), ([get(row) for get in columns.values()] for row in rows))


def _money(name: str, get: Callable[[Any], int]) -> _Columns:
    return {f"{name}_yuan": lambda row: to_yuan(get(row)), f"{name}_hao": get}


LOGS = (
    "id,created_at,user_id,name,type,model_id,prompt_tokens,cached_tokens,cache_creation_tokens,completion_tokens,"
    "reasoning_tokens,cost_yuan,cost_hao,amount_yuan,amount_hao,balance_after_yuan,balance_after_hao,input_price,"
    "output_price,cache_read_price,cache_write_price,price_source,precharge_id,reverses_id,reversed_by,operator_id,"
    "remark,reprices_id,extras,further,recorded_at"
)
LINES = 1000
"""Lines of the logs in a block, about 200 KB: a block takes its time to be sent, however short."""


def logs(db: Database, filters: Filters, tz: tzinfo, *, actor: Actor) -> Iterator[bytes]:
    """Entries, newest first; `cost` is what each adds to what was spent, `further` what its price says beside the four
    (see More.as_json), `recorded_at` when it was written into the ledger. Raises as logs.page does, before the first block.

    A file of millions: lines are put together from text that is made once for each account, model, price and quarter of an
    hour, which is several times as fast as a cell at a time.
    """
    head, texts = f"\ufeff{LOGS}\r\n", None
    for rows in raw(db, filters, actor=actor):
        if texts is None:
            texts = _Texts(db.read(Names.read), tz)
        try:
            lines = texts.lines(rows)
        except KeyError:  # what came after the first rows were read
            texts = _Texts(db.read(Names.read), tz)
            lines = texts.lines(rows)
        for first in range(0, len(lines), LINES):
            yield (head + "".join(lines[first : first + LINES])).encode()
            head = ""
    if head:
        yield head.encode()


_TO_QUOTE = re.compile(r'[",\r\n]')


def _cell(text: str | None) -> str:
    """Text as the csv module writes it, and as no spreadsheet runs it."""
    if not text:
        return ""
    text = safe(text)
    return '"' + text.replace('"', '""') + '"' if _TO_QUOTE.search(text) else text


def _both(hao: int) -> str:
    """Two cells: as str(to_yuan(hao)), and as it is."""
    text = str(hao)
    if hao >= 10_000:
        return f"{text[:-4]}.{text[-4:]},{text}"
    if hao >= 0:
        return f"0.{text.zfill(4)},{text}"
    digits = text[1:].zfill(5)
    return f"-{digits[:-4]}.{digits[-4:]},{text}"


class _Texts:
    """Lines of the logs, with what many of them have in common kept as it is written."""

    def __init__(self, names: Names, tz: tzinfo):
        self.tz = tz
        self.accounts = {id: f"{_cell(user_id)},{_cell(name)}" for id, (user_id, name) in names.accounts.items()}
        self.operators = {None: "", 0: SHELL_ID} | {id: _cell(one[0]) for id, one in names.accounts.items()}
        self.models = {None: ""} | {id: _cell(name) for id, name in names.models.items()}
        self.prices = {None: ",,,,"} | {
            id: ",".join("" if micro is None else f"{price_yuan(micro):f}" for micro in prices) + f",{source}"
            for id, (*prices, source, _more) in names.prices.items()
        }
        self.further = {None: ""} | {id: _cell(price[-1]) for id, price in names.prices.items()}
        self.quarters: dict[int, tuple[str, int, str]] = {}

    def moment(self, ns: int) -> str:
        """As moment(ns, tz)."""
        quarter, rest = divmod(ns, _QUARTER_NS)
        known = self.quarters.get(quarter)
        if known is None:
            begins = from_ns(quarter * _QUARTER_NS, self.tz)
            ends = from_ns((quarter + 1) * _QUARTER_NS - 1, self.tz)
            if begins.second or begins.minute % 15 or ends.utcoffset() != begins.utcoffset():
                return moment(ns, self.tz)  # long ago zones changed at any second, and by any number of them
            if len(self.quarters) > 1000:  # entries are about in order: those of long ago are done with
                self.quarters.clear()
            text = begins.isoformat()
            known = self.quarters[quarter] = text[:14], begins.minute * 60, text[19:]
        hour, begun, offset = known
        second, ns = divmod(rest, 1_000_000_000)
        return f"{hour}{_CLOCK[begun + second]}.{str(1_000_000 + ns // 1000)[1:]}{offset}"

    def lines(self, rows: list[tuple[Any, ...]]) -> list[str]:
        """A line for each of logs.raw's rows. Raises KeyError for a number that has no name yet."""
        accounts, operators, models, moment = self.accounts, self.operators, self.models, self.moment
        prices, further = self.prices, self.further
        lines = []
        for (
            id, at, account, type, model, prompt, cached, creation, completion, reasoning, cost, amount, after, price,
            precharge, reverses, reversed_by, operator, remark, reprices, extras, recorded,
        ) in rows:  # fmt: skip
            called = moment(at)
            spent = _both(cost)
            if cost == -amount and cost > 0:
                yuan, hao = spent.split(",")
                moved = f"-{yuan},-{hao}"
            else:
                moved = _both(amount)
            hold = id if type == "precharge" else precharge
            tokens = (
                ",,,," if prompt is None is completion else f"{prompt},{cached},{creation},{completion},{reasoning}"
            )
            if hold is reverses is reversed_by is operator is remark is reprices is extras is None:
                rest = ",,,,,,"
            else:
                rest = (
                    f"{hold or ''},{reverses or ''},{reversed_by or ''},{operators[operator]},{_cell(remark)},"
                    f"{reprices or ''},{_cell(extras)}"
                )
            lines.append(
                f"{id},{called},{accounts[account]},{type},{models[model]},{tokens},{spent},{moved},"
                f"{_both(after)},{prices[price]},{rest},{further[price]},{called if recorded is None else moment(recorded)}\r\n"
            )
        return lines


_QUARTER_NS = 900 * 10**9
_CLOCK = [f"{second // 60:02d}:{second % 60:02d}" for second in range(3600)]
"""Minute and second of each second of an hour."""


def recharges(rows: Iterable[Row], tz: tzinfo) -> Iterator[bytes]:
    """The recharge log."""
    columns: _Columns = {
        "id": lambda row: row.id,
        "created_at": lambda row: moment(row.created_at_ns, tz),
        "user_id": lambda row: row.user_id,
        "name": lambda row: row.name,
        **_money("amount", lambda row: row.amount),
        **_money("balance_after", lambda row: row.balance_after),
        "operator_id": lambda row: row.operator_id or "",
        "operator_name": lambda row: row.operator_name or "",
        "remark": lambda row: row.remark,
        "reversed_by": lambda row: row.reversed_by,
    }
    return _csv(columns, rows)


PERIODS_AT_ONCE = 16
"""Of all accounts: of two thousand, a fraction of a second's work."""


def stats(db: Database, periods: Sequence[Period], by: str, *, actor: Actor, user_id: str | None) -> Iterator[bytes]:
    """What an account (all: None) used, a row a period and `model`, or `account`, or `both`: then an account after the other,
    each read by itself. All accounts' periods are read PERIODS_AT_ONCE. Raises Forbidden, UnknownAccount, before the first
    block."""
    at_once = PERIODS_AT_ONCE if by == "account" and user_id is None else len(periods)

    def read(tx: Transaction, start: int) -> tuple[dict[str, str], list[Used]]:
        names = dict(tx.rows("SELECT user_id, name FROM account"))
        if by == "both" and user_id is None:
            return names, each_account(tx, periods, actor=actor)
        some = periods[start : start + at_once]
        return names, usage(tx, some, actor=actor, user_id=user_id, by="model" if by == "model" else "account")

    names, found = db.read(read, 0)

    def of_each() -> Iterator[tuple[str, Used]]:
        for whose in sorted({one.name for one in found}):
            yield from ((whose, one) for one in db.read(usage, periods, actor=actor, user_id=whose))

    def of_all() -> Iterator[tuple[str, Used]]:
        yield from ((one.name, one) for one in found)
        for start in range(at_once, len(periods), at_once):
            new_names, more = db.read(read, start)
            names.update(new_names)
            yield from ((one.name, one._replace(period=start + one.period)) for one in more)

    account: _Columns = {"user_id": lambda row: row[0], "name": lambda row: names[row[0]]}
    model: _Columns = {"model_id": lambda row: row[1].name}
    columns: _Columns = {
        "start": lambda row: periods[row[1].period].start.isoformat(),
        **{"model": model, "account": account, "both": account | model}[by],
        **_money("cost", lambda row: row[1].cost),
        **{name: _of_use(name) for name in SUMS[1:]},
    }
    return _csv(columns, of_each() if by == "both" else of_all())


def _of_use(name: str) -> Callable[[tuple[str, Used]], Any]:
    return lambda row: getattr(row[1], name)


def prices(rows: Iterable[Current], tz: tzinfo) -> Iterator[bytes]:
    """What counts for each model now, as pricing.current gives it; prices in 元 per million tokens."""
    columns: _Columns = {
        "model_id": lambda row: row.model,
        **{f"{part}_price": _price(f"rates.{part}") for part in PARTS},
        "source": lambda row: row.rates.source,
        "valid_from": lambda row: "" if row.rates.price_id is None else moment(row.rates.valid_from_ns, tz),
        "rule": lambda row: row.rates.rule or "",
        "priced_as": lambda row: row.rates.priced_as or "",
        **{f"{part}_price": _further(part) for part in MORE_PARTS},
        "further": lambda row: (row.prices.more and row.prices.more.as_json()) or "",
    }
    return _csv(columns, rows)


def price_history(rows: Iterable[SetPrice], tz: tzinfo, *, actor: Actor) -> Iterator[bytes]:
    """Prices as they were set, as pricing.history gives them, in 元 per million tokens; `state` is `set`, `retired` (from then
    on the built-in price counts), or `withdrawn` (it never counted). What a price was made of (`origin`) is for admins."""
    columns: _Columns = {
        "price_id": lambda row: row.price_id,
        "model_id": lambda row: row.model,
        "valid_from": lambda row: moment(row.valid_from_ns, tz),
        "state": lambda row: "withdrawn" if row.withdrawn else "retired" if row.prices is None else "set",
        **{f"{part}_price": _price(part) for part in PARTS},
        "further": lambda row: (row.more and row.more.as_json()) or "",
        "origin": lambda row: (actor.is_admin and row.origin) or "",
    }
    return _csv(columns, rows)


def what_if(cells: Iterable[Cell], periods: Sequence[Period]) -> Iterator[bytes]:
    """What calls cost and would have cost, as what_if.what_if gives it; `at_most_more` is what rounding can add."""
    columns: _Columns = {
        "start": lambda cell: periods[cell.period].start.isoformat(),
        "model_id": lambda cell: cell.model,
        "user_id": lambda cell: cell.user_id,
        "calls": lambda cell: cell.calls,
        **_money("cost", lambda cell: cell.old),
        **_money("new_cost", lambda cell: cell.new),
        **_money("at_most_more", lambda cell: cell.slack),
        "source": lambda cell: cell.source,
    }
    return _csv(columns, cells)


def accounts_and_spending(
    tx: Transaction, *, actor: Actor, tz: ZoneInfo, search: str = ""
) -> list[tuple[Account, int, int]]:
    """The rows of `accounts`. Raises Forbidden."""
    month = last_periods(tx.now_ns, "day", tz, 30)
    spent = {one.name: one.cost for one in totals(usage(tx, month, actor=actor, user_id=None, by="account"))}
    found = listed(tx, actor=actor, search=search)
    return [
        (account, balance.left, spent.get(account.user_id, 0))
        for account, balance in zip(found, balances_of(tx, found), strict=True)
    ]


def accounts(rows: Iterable[tuple[Account, int, int]], tz: tzinfo) -> Iterator[bytes]:
    """Accounts, each with its balance and what it spent in the last 30 days, in 毫."""
    columns: _Columns = {
        "user_id": lambda row: row[0].user_id,
        "name": lambda row: row[0].name,
        "email": lambda row: row[0].email,
        "role": lambda row: row[0].role,
        "status": lambda row: row[0].status,
        **_money("balance", lambda row: row[1]),
        **_money("total_consumed", lambda row: row[0].total_consumed),
        **_money("spent_30_days", lambda row: row[2]),
        "created_at": lambda row: moment(row[0].created_at_ns, tz),
    }
    return _csv(columns, rows)


def audit(rows: Iterable[Noted], tz: tzinfo, language: str) -> Iterator[bytes]:
    """The audit log, as audit.every gives it; `text` says in `language` what was done, `detail` is JSON, prices in it are
    10⁻⁶ 元 per million tokens."""
    columns: _Columns = {
        "id": lambda row: row.id,
        "at": lambda row: moment(row.at_ns, tz),
        "user_id": lambda row: row.user_id or "",
        "name": lambda row: row.name or "",
        "origin": lambda row: row.origin,
        "action": lambda row: row.action,
        "subject": lambda row: row.subject,
        "text": lambda row: sentence(row, language, when=lambda ns: iso(ns, tz)),
        "detail": lambda row: json.dumps(row.detail, ensure_ascii=False),
    }
    return _csv(columns, rows)

"""A statement as a file: CSV for spreadsheets, HTML for people and printers. Both can be verified.

The HTML needs nothing from elsewhere, and carries the same data as JSON in a `<script type="application/json">`, the
entries: an array each, in the order of `fields` (see content.SHOWN).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from html import escape
from itertools import chain
from typing import Any

from ..database import Database
from ..export import BLOCK, blocks
from ..glossary import TYPES
from ..i18n import N_, translate
from ..money import format_yuan, price_yuan, to_yuan
from ..seals import PRICE_FIELDS
from ..stats import iso
from .content import SHOWN, Statement, entries, local

VERSION = 1
"""Of what a file holds, and of how what can be verified in it is written."""
MARK = '<meta name="statement" content="1">'
"""What a statement in HTML has at its top."""


def head(statement: Statement) -> dict[str, Any]:
    """All but the entries, as both kinds of file hold it."""
    return {
        "statement": VERSION,
        "user_id": statement.user_id,
        "name": statement.name,
        "month": statement.month,
        "timezone": statement.timezone,
        "opening_balance_hao": statement.opening,
        "closing_balance_hao": statement.closing,
        "entries": statement.entries,
        "seal_number": statement.seal_number,
        "seal_hash": statement.seal_hash,
        "sealed_at_ns": statement.sealed_at_ns,
    }


# CSV

TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens")
AT = {name: place for place, name in enumerate(SHOWN)}
"""Where a field stands in what is shown of an entry."""


def _written(entry: list[Any]) -> int:
    return int(entry[AT["recorded_at_ns"]] or entry[AT["created_at_ns"]])


def _price(entry: list[Any], part: str) -> str:
    """元 per million tokens; a cache's price that isn't set is the input's."""
    price = dict(zip(PRICE_FIELDS, entry[AT["price"]] or (), strict=False))
    micro = price.get(part) if price.get(part) is not None else price.get("input")
    return "" if micro is None else f"{price_yuan(micro):f}"


def _columns(statement: Statement) -> dict[str, Callable[[list[Any]], Any]]:
    def field(name: str) -> Callable[[list[Any]], Any]:
        return lambda entry: entry[AT[name]]

    def yuan(name: str) -> Callable[[list[Any]], Any]:
        return lambda entry: to_yuan(entry[AT[name]])

    def price(part: str) -> Callable[[list[Any]], str]:
        return lambda entry: _price(entry, part)

    return {
        "id": field("id"),
        "recorded_at": lambda entry: iso(_written(entry), statement.tz),
        "created_at": lambda entry: iso(entry[AT["created_at_ns"]], statement.tz),
        "type": field("type"),
        "model_id": field("model"),
        **{name: field(name) for name in TOKENS},
        "cost_yuan": yuan("cost"),
        "cost_hao": field("cost"),
        "amount_yuan": yuan("amount"),
        "amount_hao": field("amount"),
        "balance_after_yuan": yuan("balance_after"),
        "balance_after_hao": field("balance_after"),
        **{f"{part}_price": price(part) for part in PRICE_FIELDS[1:]},
        "price_source": lambda entry: (entry[AT["price"]] or [""])[0],
        "precharge_id": field("precharge_id"),
        "reverses_id": field("reverses_id"),
        "operator_id": field("operator"),
        "remark": field("remark"),
        "created_at_ns": field("created_at_ns"),
        "recorded_at_ns": _written,
    }


def csv_top(statement: Statement) -> Iterator[list[Any]]:
    """The first rows: a name and a value in each."""
    for name, value in head(statement).items():
        yield [name, value]
        if name.endswith("_hao"):
            yield [name.replace("_hao", "_yuan"), to_yuan(value)]


def csv_table(statement: Statement, found: Iterable[list[Any]]) -> Iterator[tuple[list[Any] | None, list[Any]]]:
    """The rows below an empty one, the heading and the entries, each row with the entry that it is about."""
    columns = _columns(statement)
    yield None, list(columns)
    for entry in found:
        yield entry, [get(entry) for get in columns.values()]


def as_csv(db: Database, statement: Statement) -> Iterator[bytes]:
    """The file, in blocks."""
    first, *top = csv_top(statement)
    table = (row for _entry, row in csv_table(statement, entries(db, statement)))
    return blocks(first, chain(top, [[]], table))


# HTML

_NOTE = N_(
    "An entry stands in the month in which it was written into the ledger, as the balances follow that order. The seal "
    "vouches for every entry up to it. Whether the ledger still says the same is told by the app, when this file is given "
    "to it to be verified."
)


def facts(statement: Statement, language: str) -> list[tuple[str, str]]:
    """What stands above the entries: a label and a text each."""
    tz = statement.tz
    seal = f"{statement.seal_number} · {statement.seal_hash}" if statement.seal_number else "–"
    return [
        (translate(N_("Account"), language), f"{statement.name} ({statement.user_id})"),
        (translate(N_("Month"), language), statement.month),
        (translate(N_("From – to"), language), f"{local(statement.start_ns, tz)} – {local(statement.end_ns, tz)}"),
        (translate(N_("Time zone"), language), statement.timezone),
        (translate(N_("Opening balance, 元"), language), _yuan(statement.opening)),
        (translate(N_("Closing balance, 元"), language), _yuan(statement.closing)),
        (translate(N_("Entries"), language), f"{statement.entries:,}"),
        (translate(N_("Newest seal"), language), seal),
        (translate(N_("Sealed"), language), local(statement.sealed_at_ns, tz) if statement.seal_number else "–"),
    ]


FACTS = 9
"""How many facts there are."""


def _yuan(hao: int, *, sign: bool = False) -> str:
    return format_yuan(hao, sign=sign, decimals=4)


def cells(statement: Statement, entry: list[Any], language: str) -> list[str]:
    """What a row shows of an entry."""
    get = dict(zip(SHOWN, entry, strict=True))
    other = get["precharge_id"] or get["reverses_id"]
    kind = translate(TYPES.get(get["type"], str(get["type"])), language)
    about = [get["model"], get["remark"]]
    if get["recorded_at_ns"] is not None:
        about.append(translate(N_("of {when}"), language, when=local(get["created_at_ns"], statement.tz)))
    tokens = "" if get["prompt_tokens"] is None else f"{get['prompt_tokens']:,} → {get['completion_tokens'] or 0:,}"
    return [
        str(get["id"]),
        local(_written(entry), statement.tz),
        f"{kind} ← {other}" if other else kind,
        " · ".join(part for part in about if part),
        tokens,
        _yuan(get["amount"], sign=True),
        _yuan(get["balance_after"]),
    ]


def html_rows(
    statement: Statement, found: Iterable[list[Any]], language: str
) -> Iterator[tuple[list[Any] | None, list[str]]]:
    """What the table of entries shows, row by row, each with the entry that it is about."""
    yield None, [_yuan(statement.opening)]
    for entry in found:
        yield entry, cells(statement, entry, language)
    yield None, [_yuan(statement.closing)]


_HEADINGS = (
    N_("Entry"), N_("Written"), N_("Type"), N_("Model or remark"), N_("Tokens in → out"), N_("Amount, 元"), N_("Balance, 元"),
)  # fmt: skip

STYLE = """
@page { size: A4; margin: 16mm 14mm 18mm; @bottom-right { content: counter(page) " / " counter(pages); font: 9pt sans-serif } }
body { font: 10pt/1.45 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #1a1a1a;
       background: #fff; max-width: 60em; margin: 2em auto; padding: 0 1em }
h1 { font-size: 18pt; margin: 0 0 .6em }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25em .6em .25em 0; overflow-wrap: anywhere }
.facts { width: auto; margin-bottom: 1.5em }
.facts th { font-weight: normal; color: #595959; padding-right: 1.5em; white-space: nowrap }
.facts td { font-variant-numeric: tabular-nums }
.entries { font-size: 9pt; font-variant-numeric: tabular-nums }
.entries thead th { border-bottom: 1.5pt solid #1a1a1a; vertical-align: bottom }
.entries tbody tr { border-bottom: .5pt solid #ccc; break-inside: avoid }
.entries tbody .sum { font-weight: 600; border-bottom: 1.5pt solid #1a1a1a }
.n { text-align: right; white-space: nowrap }
.entries td:nth-child(2), .entries td:nth-child(3) { white-space: nowrap }
.debt { color: #b00020 }
@media screen and (max-width: 50em) { .entries { display: block; overflow-x: auto }
  .entries td, .entries th { overflow-wrap: normal; min-width: 4em } }
thead { display: table-header-group }
footer { margin-top: 1.5em; color: #595959; font-size: 8.5pt; break-inside: avoid }
@media print { body { margin: 0; padding: 0; max-width: none } .entries { font-size: 8pt } }
"""
EARLIER_STYLES = (
    "85993d6b8048505b2fc6c98a5ba1e12b087fb21ce5f64063762a457cf879a8a0",
    "d19a38f2ac8aed06ced1a7e9e3c3b03ccdbd5ad2acd7151ce4c70d8e9b077d81",
)
"""SHA-256 of those in files that people may have kept. The rest of the page has always been the same; where it changes, what it
was has to be known here as well."""
_RIGHT = (0, 4, 5, 6)
"""The columns that hold numbers."""


def as_html(db: Database, statement: Statement, language: str = "en") -> Iterator[bytes]:
    """The file, in blocks."""
    return _in_blocks(_html(db, statement, language))


def _in_blocks(parts: Iterable[str]) -> Iterator[bytes]:
    block: list[str] = []
    size = 0
    for part in parts:
        block.append(part)
        size += len(part)
        if size > BLOCK:
            yield "".join(block).encode()
            block, size = [], 0
    yield "".join(block).encode()


def _html(db: Database, statement: Statement, language: str) -> Iterator[str]:
    yield from html_page(statement, entries(db, statement), language)
    yield from _json(db, statement)
    yield HTML_END


def html_page(statement: Statement, found: Iterable[list[Any]], language: str) -> Iterator[str]:
    """All that comes before the JSON."""

    def said(message: str) -> str:
        return escape(translate(message, language))

    title = said(N_("Statement"))
    yield f'<!DOCTYPE html>\n<html lang="{language.replace("_", "-")}">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{title} {escape(statement.user_id)} {statement.month}</title>\n<style>{STYLE}</style>\n</head>\n"
    yield f'<body>\n<h1>{title}</h1>\n<table class="facts">\n'
    for label, text in facts(statement, language):
        yield f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>\n"
    yield '</table>\n<table class="entries">\n<thead><tr>'
    for place, heading in enumerate(_HEADINGS):
        yield f"<th{_class(place)}>{said(heading)}</th>"
    yield "</tr></thead>\n<tbody>\n"
    yield _sum(said(N_("Opening balance")), statement.opening)
    for entry in found:
        row = "".join(
            f"<td{_class(place, entry[AT['balance_after']])}>{escape(text)}</td>"
            for place, text in enumerate(cells(statement, entry, language))
        )
        yield f"<tr>{row}</tr>\n"
    yield _sum(said(N_("Closing balance")), statement.closing)
    yield f"</tbody>\n</table>\n<footer><p>{said(_NOTE)}</p></footer>\n{JSON_MARK}"


JSON_MARK = '<script type="application/json">'
HTML_END = "</script>\n</body>\n</html>\n"


def _class(place: int, balance: int = 0) -> str:
    names = ["n"] * (place in _RIGHT) + ["debt"] * (place == len(_HEADINGS) - 1 and balance < 0)
    return f' class="{" ".join(names)}"' if names else ""


def _sum(label: str, balance: int) -> str:
    last = len(_HEADINGS) - 1
    return f'<tr class="sum"><th colspan="{last}">{label}</th><td{_class(last, balance)}>{_yuan(balance)}</td></tr>\n'


def _json(db: Database, statement: Statement) -> Iterator[str]:
    """{…, "fields": […], "rows": [[…], …]}, with nothing in it that ends a script."""
    first = json.dumps({**head(statement), "fields": SHOWN}, separators=(",", ":"))
    yield first[:-1].replace("<", "\\u003c") + ',"rows":['
    comma = ""
    for entry in entries(db, statement):
        yield comma + "\n" + json.dumps(entry, separators=(",", ":")).replace("<", "\\u003c")
        comma = ","
    yield "]}"


FORMATS: dict[str, Callable[[Database, Statement, str], Iterator[bytes]]] = {
    "html": as_html,
    "csv": lambda db, statement, _language: as_csv(db, statement),
}

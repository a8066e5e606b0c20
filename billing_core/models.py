"""The tables. Amounts are 毫 (`*_hao` or documented so), prices 10⁻⁶ 元 per million tokens, times ns since the epoch, UTC.

`entry`, `price`, `seal` and `audit` only ever grow: the database itself refuses to change or delete their rows (see migrations).
`account.balance`, `account.total_consumed`, and `usage_sum` and `usage_open` together, are sums of entries, kept in the transaction
that writes the entry; `check` recomputes them.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, text
from sqlmodel import Field, SQLModel

from .money import Hao, Micro

Id = BigInteger().with_variant(Integer(), "sqlite")


def _id() -> Column[Any]:
    return Column(Id, primary_key=True, autoincrement=True)


def _int(**options: Any) -> Column[Any]:
    return Column(BigInteger, **{"nullable": False, **options})


def _ref(target: str, **options: Any) -> Column[Any]:
    return Column(Id, ForeignKey(target), **{"nullable": False, **options})


def _text(**options: Any) -> Column[Any]:
    return Column(Text, **{"nullable": False, **options})


class Account(SQLModel, table=True):
    """Someone with a balance."""

    __table_args__ = (
        CheckConstraint("role IN ('member', 'admin')", name="account_role"),
        CheckConstraint("status IN ('active', 'frozen')", name="account_status"),
        Index(
            "account_hold_due",
            "hold_expires_at_ns",
            sqlite_where=text("hold_expires_at_ns IS NOT NULL"),
            postgresql_where=text("hold_expires_at_ns IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, sa_column=_id())
    user_id: str = Field(sa_column=_text(unique=True))
    name: str = Field(sa_column=_text())
    email: str = Field(default="", sa_column=_text())
    role: str = Field(default="member", sa_column=_text())
    status: str = Field(default="active", sa_column=_text())
    balance: Hao = Field(default=0, sa_column=_int())
    """毫: the sum of the account's entries."""
    total_consumed: Hao = Field(default=0, sa_column=_int())
    """毫: the cost of `deduct` and `settle` entries less their reversals."""
    hold_expires_at_ns: int | None = Field(default=None, sa_column=_int(nullable=True))
    """The earliest deadline among the open holds: whoever has none pays nothing for expiry."""
    password_hash: str | None = Field(default=None, sa_column=_text(nullable=True))
    language: str | None = Field(default=None, sa_column=_text(nullable=True))
    timezone: str | None = Field(default=None, sa_column=_text(nullable=True))
    created_at_ns: int = Field(sa_column=_int())


class Model(SQLModel, table=True):
    """A model's name, once: entries and prices refer to it by number, and its number gives it its colour for good."""

    id: int | None = Field(default=None, sa_column=_id())
    name: str = Field(sa_column=_text(unique=True))


class Price(SQLModel, table=True):
    """A price from a moment on, in 10⁻⁶ 元 per million tokens. Never changed: a new row takes over from its start."""

    __table_args__ = (
        CheckConstraint("source IN ('database', 'catalogue', 'default')", name="price_source"),
        Index("price_in_force", "model_id", "valid_from_ns"),
    )

    id: int | None = Field(default=None, sa_column=_id())
    model_id: int = Field(sa_column=_ref("model.id"))
    source: str = Field(sa_column=_text())
    """`database`: set by an admin; `catalogue`, `default`: built in, copied here when it is first charged."""
    input: Micro | None = Field(sa_column=_int(nullable=True))
    """None: retired, the built-in price counts again."""
    output: Micro | None = Field(sa_column=_int(nullable=True))
    cache_read: Micro | None = Field(default=None, sa_column=_int(nullable=True))
    """None: the same as `input`."""
    cache_write: Micro | None = Field(default=None, sa_column=_int(nullable=True))
    """None: the same as `input`."""
    valid_from_ns: int = Field(sa_column=_int())
    operator_id: int | None = Field(default=None, sa_column=_ref("account.id", nullable=True))
    created_at_ns: int = Field(sa_column=_int())
    more: str | None = Field(default=None, sa_column=_text(nullable=True))
    """The components beyond the four, as rates.More writes them."""
    origin: str | None = Field(default=None, sa_column=_text(nullable=True))
    """Where the numbers come from, as JSON: the catalogue with its US dollars, rate and markup, or the rule that decided."""
    change_id: int | None = Field(default=None, sa_column=_ref("price_change.id", nullable=True))
    """The change that it was a part of, where that set many prices at once."""


class PriceChange(SQLModel, table=True):
    """Many prices that were set at once, and can be undone at once. Never changed."""

    __tablename__ = "price_change"

    id: int | None = Field(default=None, sa_column=_id())
    what: str = Field(sa_column=_text())
    """The catalogue that the prices came from."""
    undoes: int | None = Field(default=None, sa_column=_ref("price_change.id", nullable=True, unique=True))
    operator_id: int | None = Field(default=None, sa_column=_ref("account.id", nullable=True))
    created_at_ns: int = Field(sa_column=_int())


class PriceWithdrawal(SQLModel, table=True):
    """A planned price that was withdrawn before it started: it never counts. Never changed."""

    __tablename__ = "price_withdrawal"

    price_id: int = Field(sa_column=_ref("price.id", primary_key=True, autoincrement=False))
    operator_id: int | None = Field(default=None, sa_column=_ref("account.id", nullable=True))
    created_at_ns: int = Field(sa_column=_int())


class PriceRule(SQLModel, table=True):
    """From a moment on, models whose name fits a pattern cost what another model costs. Never changed: a new row takes over
    from its start."""

    __tablename__ = "price_rule"

    id: int | None = Field(default=None, sa_column=_id())
    pattern: str = Field(sa_column=_text())
    """A model's name in which each * stands for any text."""
    target: str | None = Field(sa_column=_text(nullable=True))
    """The model whose price counts; each * in it is what the pattern's was, in order. None: the rule ends."""
    operator_id: int | None = Field(default=None, sa_column=_ref("account.id", nullable=True))
    created_at_ns: int = Field(sa_column=_int())
    """From then on it counts."""


TYPES = ("deduct", "precharge", "settle", "refund", "expire", "recharge", "reversal")
"""Of an entry, in the order in which people see them."""
RARE = ("refund", "expire", "reversal")
"""The types of the index entry_rare_of_account: whatever is looked for in it says IS_RARE, or SQLite doesn't see that it fits."""


def _is_one_of(types: Iterable[str]) -> str:
    """SQL. Of a list of more than two, SQLite would make a table whenever a row is written."""
    return "(" + " OR ".join(f"type = '{type}'" for type in types) + ")"


IS_RARE = _is_one_of(RARE)


class Entry(SQLModel, table=True):
    """One line of the ledger. It never changes."""

    __table_args__ = (
        CheckConstraint(_is_one_of(TYPES), name="entry_type"),
        Index("entry_of_account", "account_id", "id"),
        Index("entry_at", "account_id", "created_at_ns"),
        Index(
            "entry_recharge",
            "account_id",
            "id",
            sqlite_where=text("type = 'recharge'"),
            postgresql_where=text("type = 'recharge'"),
        ),
        Index(
            "entry_rare_of_account",
            "account_id",
            "id",
            sqlite_where=text(IS_RARE),
            postgresql_where=text(IS_RARE),
        ),
        Index(
            "entry_repricing_of_account",
            "account_id",
            "id",
            sqlite_where=text("reprices_id IS NOT NULL"),
            postgresql_where=text("reprices_id IS NOT NULL"),
        ),
        Index(
            "entry_remarked_of_account",
            "account_id",
            "id",
            sqlite_where=text("remark IS NOT NULL"),
            postgresql_where=text("remark IS NOT NULL"),
        ),
        Index(
            "entry_reversed_once",
            "reverses_id",
            unique=True,
            sqlite_where=text("reverses_id IS NOT NULL"),
            postgresql_where=text("reverses_id IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, sa_column=_id())
    account_id: int = Field(sa_column=_ref("account.id"))
    type: str = Field(sa_column=_text())
    amount: Hao = Field(sa_column=_int())
    """毫, what the entry adds to the balance; below 0 it takes."""
    balance_after: Hao = Field(sa_column=_int())
    """毫, the running sum of the account's amounts."""
    cost: Hao = Field(default=0, sa_column=_int())
    """毫: of a `deduct` or `settle` what the call cost, of a `precharge` what is held, of a `reversal` the consumption
    that it undoes, below 0; else 0."""
    model_id: int | None = Field(default=None, sa_column=_ref("model.id", nullable=True))
    price_id: int | None = Field(default=None, sa_column=_ref("price.id", nullable=True))
    prompt_tokens: int | None = Field(default=None, sa_column=_int(nullable=True))
    cached_tokens: int | None = Field(default=None, sa_column=_int(nullable=True))
    cache_creation_tokens: int | None = Field(default=None, sa_column=_int(nullable=True))
    completion_tokens: int | None = Field(default=None, sa_column=_int(nullable=True))
    reasoning_tokens: int | None = Field(default=None, sa_column=_int(nullable=True))
    precharge_id: int | None = Field(default=None, sa_column=_ref("entry.id", nullable=True))
    """Of a `settle`, `refund`, `expire`: the precharge that it ends."""
    reverses_id: int | None = Field(default=None, sa_column=_ref("entry.id", nullable=True))
    operator_id: int | None = Field(default=None, sa_column=_ref("account.id", nullable=True))
    """Who did it; None for an account's own calls, for the shell, and for what expired by itself."""
    remark: str | None = Field(default=None, sa_column=_text(nullable=True))
    created_at_ns: int = Field(sa_column=_int())
    """When it happened; a program may say so for a call of the past."""
    recorded_at_ns: int | None = Field(default=None, sa_column=_int(nullable=True))
    """When it was written, where that is another moment than `created_at_ns`."""
    extras: str | None = Field(default=None, sa_column=_text(nullable=True))
    """What else the call used, as tokens.Extras writes it."""
    upstream_usd: int | None = Field(default=None, sa_column=_int(nullable=True))
    """10⁻¹² US dollars: what the provider asks for the call, as it says itself or as the catalogue knows."""
    upstream_yuan: int | None = Field(default=None, sa_column=_int(nullable=True))
    """The same in 10⁻⁹ 元, at the rate of the time."""
    reprices_id: int | None = Field(default=None, sa_column=_ref("entry.id", nullable=True))
    """Of a `deduct` that stands for another entry at another price: that entry, which has been reversed."""


class Hold(SQLModel, table=True):
    """What a precharge holds, until it ends once."""

    __table_args__ = (
        Index(
            "hold_open",
            "account_id",
            "expires_at_ns",
            sqlite_where=text("ended_by IS NULL"),
            postgresql_where=text("ended_by IS NULL"),
        ),
    )

    precharge_id: int = Field(sa_column=_ref("entry.id", primary_key=True, autoincrement=False))
    account_id: int = Field(sa_column=_ref("account.id"))
    held: Hao = Field(sa_column=_int())
    """毫"""
    expires_at_ns: int = Field(sa_column=_int())
    ended_by: int | None = Field(default=None, sa_column=_ref("entry.id", nullable=True))
    """The `settle`, `refund`, `expire` or `reversal` that ended it."""


class UsageSum(SQLModel, table=True):
    """What was used in a period, but for what is open: of every model, by every account, and by every account of every model;
    and by account how many entries were no calls (OTHER).
    Periods are `length` quarters of an hour long and counted from the epoch; every time zone's days since 1972 are whole
    quarters. Which lengths are kept of what, sums.py says. What reversals undo is kept twice, below 0, under a kind of its own:
    in the period of the call and in the period of the reversal. A setting says which of the two counts."""

    __tablename__ = "usage_sum"
    __table_args__ = ({"sqlite_with_rowid": False},)

    of: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """MODEL (whoever used it: `account_id` is 0), ACCOUNT (whatever it used: `model_id` is 0) or BOTH."""
    length: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """Of the period, in quarters of an hour."""
    period: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    account_id: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    model_id: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    kind: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """USED, UNDONE_AT_CALL, UNDONE_AT_REVERSAL or OTHER."""
    slot: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """Of MODEL on Postgres each open connection adds to a part of its own, so that accounts don't wait for each other; else
    0."""
    cost: Hao = Field(sa_column=_int())
    """毫"""
    calls: int = Field(sa_column=_int())
    prompt_tokens: int = Field(sa_column=_int())
    cached_tokens: int = Field(sa_column=_int())
    cache_creation_tokens: int = Field(sa_column=_int())
    completion_tokens: int = Field(sa_column=_int())
    reasoning_tokens: int = Field(sa_column=_int())
    priced_extras: int = Field(default=0, sa_column=_int(server_default="0"))
    """Calls of which the five counts don't say all that they cost."""
    upstream_yuan: int = Field(default=0, sa_column=_int(server_default="0"))
    """10⁻⁹ 元: what the providers ask for the calls of which that is known."""
    upstream_cost: Hao = Field(default=0, sa_column=_int(server_default="0"))
    """毫: what those calls cost here."""


class UsageOpen(SQLModel, table=True):
    """What an account used of a model in a quarter of an hour, as far as it isn't in usage_sum yet: a call of the quarter under
    way is added here alone, and moved there after its end; see sums.py. Under the model 0: entries that are no calls (OTHER)."""

    __tablename__ = "usage_open"
    __table_args__ = (
        # On Postgres a row that changes stays in its page while there is room.
        {"sqlite_with_rowid": False, "postgresql_with": {"fillfactor": 50}},
    )

    quarter: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """Counted from the epoch."""
    account_id: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    model_id: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    cost: Hao = Field(sa_column=_int())
    """毫; this and the rest as in usage_sum."""
    calls: int = Field(sa_column=_int())
    prompt_tokens: int = Field(sa_column=_int())
    cached_tokens: int = Field(sa_column=_int())
    cache_creation_tokens: int = Field(sa_column=_int())
    completion_tokens: int = Field(sa_column=_int())
    reasoning_tokens: int = Field(sa_column=_int())
    priced_extras: int = Field(sa_column=_int())
    upstream_yuan: int = Field(sa_column=_int())
    upstream_cost: Hao = Field(sa_column=_int())


MODEL, ACCOUNT, BOTH = range(3)
"""What a sum is of."""
USED, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, OTHER = range(4)
"""The kinds of usage_sum: calls; what reversals undid of them by the time of the call or of the reversal; and of ACCOUNT alone
the entries that are no calls, where `calls` counts them and `cost` is what they recharged, less what reversals took off it."""


class Idempotency(SQLModel, table=True):
    """A caller's key, what was asked with it, and what was answered: asked twice, it happens once."""

    __table_args__ = {"sqlite_with_rowid": False}

    scope: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """The caller's account, 0 for the shell."""
    key: str = Field(sa_column=_text(primary_key=True))
    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    entry_id: int | None = Field(default=None, sa_column=_ref("entry.id", nullable=True))
    answer: str | None = Field(default=None, sa_column=_text(nullable=True))
    """What cannot be read off the entry, as JSON."""


class ApiKey(SQLModel, table=True):
    """A program's key, kept as SHA-256 (it has 256 random bits)."""

    __tablename__ = "api_key"
    __table_args__ = (CheckConstraint("can IN ('', 'charge', 'admin')", name="api_key_can"),)

    id: int | None = Field(default=None, sa_column=_id())
    account_id: int = Field(sa_column=_ref("account.id", index=True))
    name: str = Field(sa_column=_text())
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    hint: str = Field(sa_column=_text())
    """Its first characters, to tell keys apart."""
    can: str = Field(default="", sa_column=_text())
    created_at_ns: int = Field(sa_column=_int())
    last_used_at_ns: int | None = Field(default=None, sa_column=_int(nullable=True))
    """To the minute."""
    revoked_at_ns: int | None = Field(default=None, sa_column=_int(nullable=True))


class Token(SQLModel, table=True):
    """A secret that a browser carries, kept as SHA-256: a session's cookie, the ticket that is traded for one, and the
    link that makes the first admin."""

    __table_args__ = (CheckConstraint("purpose IN ('session', 'ticket', 'setup')", name="token_purpose"),)

    hash: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    purpose: str = Field(sa_column=_text())
    account_id: int | None = Field(default=None, sa_column=_ref("account.id", nullable=True, index=True))
    created_at_ns: int = Field(sa_column=_int())
    expires_at_ns: int = Field(sa_column=_int())


class SignInTries(SQLModel, table=True):
    """Wrong passwords for a name, in the database so that every server counts the same ones."""

    __tablename__ = "sign_in_tries"

    user_id: str = Field(sa_column=_text(primary_key=True))
    failures: int = Field(sa_column=_int())
    retry_at_ns: int = Field(sa_column=_int())


class Setting(SQLModel, table=True):
    """What an admin has set for everybody; settings.py lists them."""

    name: str = Field(sa_column=_text(primary_key=True))
    value: str = Field(sa_column=_text())


class PriceVersion(SQLModel, table=True):
    """One row, whose number is another one after every change of a model, a price, a rule or a setting: the database itself
    throws the dice. What has been read of those counts for as long as it is the same."""

    __tablename__ = "price_version"
    __table_args__ = (CheckConstraint("id = 1", name="price_version_only"),)

    id: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    version: int = Field(sa_column=_int())


class Seal(SQLModel, table=True):
    """Closes a stretch of the ledger: the entries after the seal before it, up to and including `last_entry_id`."""

    number: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """From 1, without gaps."""
    last_entry_id: int = Field(sa_column=_int())
    entries: int = Field(sa_column=_int())
    """How many entries the stretch has."""
    hash: str = Field(sa_column=_text())
    """SHA-256, in hex, over the seal before it and the stretch's entries; see seals.py."""
    created_at_ns: int = Field(sa_column=_int())


class Stretch(SQLModel, table=True):
    """Of a sealed stretch of the ledger: which entries, and from when to when they happened; see stretches.py."""

    __table_args__ = (
        Index("stretch_last_id", "last_id"),
        Index("stretch_upto", "upto"),
        Index("stretch_latest", "latest_ns", "number"),
        Index("stretch_from", "from_ns", "number"),
        {"sqlite_with_rowid": False},
    )

    number: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """That of the seal."""
    first_id: int = Field(sa_column=_int())
    last_id: int = Field(sa_column=_int())
    upto: int = Field(sa_column=_int())
    """How many entries there are up to its last one."""
    from_ns: int = Field(sa_column=_int())
    """The earliest moment at which one of them happened."""
    to_ns: int = Field(sa_column=_int())
    """The latest."""
    latest_ns: int = Field(sa_column=_int())
    """The latest of this stretch and all before it."""


class StretchHolds(SQLModel, table=True):
    """How many entries of a kind a stretch holds, what they come to, and which they are, where they are few. No row: none."""

    __tablename__ = "stretch_holds"
    __table_args__ = {"sqlite_with_rowid": False}

    what: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """Above 0 a model's number; 0: with a remark; below 0 a type, see stretches.TYPES."""
    number: int = Field(sa_column=_int(primary_key=True, autoincrement=False))
    """The stretch's."""
    entries: int = Field(sa_column=_int())
    ids: str | None = Field(default=None, sa_column=_text(nullable=True))
    """How far each is from the stretch's first entry, in order, with commas; None where they are many."""
    consumed: Hao = Field(default=0, sa_column=_int(server_default="0"))
    """毫: the cost of calls among them, less what reversals among them undid."""
    recharged: Hao = Field(default=0, sa_column=_int(server_default="0"))
    """毫: what recharges among them added, less what reversals among them took off again."""


class Audit(SQLModel, table=True):
    """What somebody did that is no entry of the ledger; see audit.py."""

    __table_args__ = (
        Index("audit_at", "at_ns"),
        Index(
            "audit_of_settings",
            "at_ns",
            sqlite_where=text("action = 'setting.change'"),
            postgresql_where=text("action = 'setting.change'"),
        ),
    )

    id: int | None = Field(default=None, sa_column=_id())
    at_ns: int = Field(sa_column=_int())
    actor_id: int | None = Field(default=None, sa_column=_ref("account.id", nullable=True))
    """None: the shell, or nobody yet."""
    origin: str = Field(sa_column=_text())
    """From where: `page`, `shell`, or a key's first characters."""
    action: str = Field(sa_column=_text())
    subject: str = Field(sa_column=_text())
    """Whom or what it was done to."""
    detail: str = Field(sa_column=_text())
    """What changed, as JSON: {field: [from, to]} or {field: value}. Never a secret."""


class ReversalJob(SQLModel, table=True):
    """Many entries to be reversed for one reason, each once, or to be charged at another price; undoing.py works through
    its items."""

    __tablename__ = "reversal_job"

    id: int | None = Field(default=None, sa_column=_id())
    operator_id: int | None = Field(default=None, sa_column=_ref("account.id", nullable=True))
    reason: str = Field(sa_column=_text())
    created_at_ns: int = Field(sa_column=_int())
    finished_at_ns: int | None = Field(default=None, sa_column=_int(nullable=True))


class ReversalItem(SQLModel, table=True):
    """An entry that a job reverses. Not done yet: neither `reversal_id` nor `refusal`."""

    __tablename__ = "reversal_item"
    __table_args__ = (
        Index(
            "reversal_item_left",
            "job_id",
            "entry_id",
            sqlite_where=text("reversal_id IS NULL AND refusal IS NULL"),
            postgresql_where=text("reversal_id IS NULL AND refusal IS NULL"),
        ),
        {"sqlite_with_rowid": False},
    )

    job_id: int = Field(sa_column=_ref("reversal_job.id", primary_key=True))
    entry_id: int = Field(sa_column=_ref("entry.id", primary_key=True))
    reversal_id: int | None = Field(default=None, sa_column=_ref("entry.id", nullable=True))
    refusal: str | None = Field(default=None, sa_column=_text(nullable=True))
    """Why it could not be reversed, as JSON: the message and its parameters."""
    price_id: int | None = Field(default=None, sa_column=_ref("price.id", nullable=True))
    """The price at which the call is charged again; None where it is only reversed."""


ACCOUNTS: Table = SQLModel.metadata.tables["account"]
MODELS: Table = SQLModel.metadata.tables["model"]
PRICES: Table = SQLModel.metadata.tables["price"]
PRICE_CHANGES: Table = SQLModel.metadata.tables["price_change"]
ENTRIES: Table = SQLModel.metadata.tables["entry"]
HOLDS: Table = SQLModel.metadata.tables["hold"]
USAGE_SUMS: Table = SQLModel.metadata.tables["usage_sum"]
JOBS: Table = SQLModel.metadata.tables["reversal_job"]
ITEMS: Table = SQLModel.metadata.tables["reversal_item"]
"""The tables themselves, for statements that move many columns or rows."""

"""A believable team's ledger, made up from a seed: for trying the app out, for screenshots and for measuring.

Every entry is made by the ledger's own functions, at a moment of the story instead of the present: `fill` moves the
transaction's clock. The same seed, size and end give the same rows, ids included.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any

import sqlalchemy as sa

from . import accounts, ledger, pricing
from .actors import SHELL, Actor
from .database import Database, Transaction, prepare
from .errors import Conflict, InsufficientBalance, Invalid
from .i18n import N_
from .ledger import EARLIEST_NS, SECOND, Receipt
from .models import ACCOUNTS
from .money import HAO_PER_YUAN, Hao, parse_price
from .signin import actor_of
from .sums import QUARTER_NS
from .tokens import Tokens

DAY = 86_400 * SECOND
ZONE_SECONDS = 8 * 3600
"""The team's office is in Shanghai, whose clocks never change."""
ENTRIES_A_MEMBER_AND_DAY = 2.5
EVENTS_A_TRANSACTION = 150_000
"""More than an ordinary demo has: it is there as a whole or not at all. Larger ones are committed piece by piece."""
TYPICAL_COST = 1_000
"""毫: about what a call costs; the first recharges are sized by it."""


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    popularity: tuple[tuple[float, float], ...]
    """(place in the year from 0 to 1, weight), joined by straight lines."""
    prompt: int
    """The usual size of a conversation's first prompt, in tokens."""
    completion: int
    prices: tuple[str, ...] = ()
    """元 per million tokens: input, output, cache read, cache write; empty: the built-in price is good enough."""
    reasons: bool = False
    writes_cache: bool = False

    def weight(self, place: float) -> float:
        before = self.popularity[0]
        for point in self.popularity:
            if point[0] >= place:
                span = point[0] - before[0]
                return before[1] + (point[1] - before[1]) * ((place - before[0]) / span if span else 1)
            before = point
        return before[1]

    @property
    def appears(self) -> float:
        """When it is first there."""
        return next((at for (at, weight), (_, then) in self._steps() if weight or then), 0.0)

    def _steps(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        return list(zip(self.popularity, self.popularity[1:] + self.popularity[-1:], strict=True))


_MODELS = (
    _Model("openai/gpt-4o", ((0, 26), (0.4, 20), (0.6, 7), (1, 3)), 1800, 420, ("18", "72", "9")),
    _Model("openai/gpt-4o-mini", ((0, 18), (0.5, 14), (1, 7)), 1200, 300),
    _Model("openai/gpt-5", ((0.42, 0), (0.47, 12), (1, 17)), 3500, 1100, ("9", "72", "0.9"), reasons=True),
    _Model("openai/o3-mini", ((0, 7), (0.42, 5), (0.58, 0)), 1500, 1800, ("7.92", "31.68", "3.96"), reasons=True),
    _Model("anthropic/claude-3.7-sonnet", ((0, 16), (0.6, 14), (0.7, 4), (0.8, 0)), 6000, 700,
           ("21.6", "108", "2.16", "27"), writes_cache=True),
    _Model("anthropic/claude-sonnet-4-5", ((0.6, 0), (0.66, 12), (1, 21)), 9000, 900,
           ("21.6", "108", "2.16", "27"), writes_cache=True),
    _Model("google/gemini-2.5-pro", ((0, 3), (0.5, 8), (1, 9)), 5000, 1200, ("9", "72", "0.9"), reasons=True),
    _Model("google/gemini-2.5-flash", ((0, 5), (1, 10)), 2500, 500),
    _Model("deepseek/deepseek-chat", ((0, 9), (0.3, 14), (1, 16)), 1500, 500, ("2", "8", "0.5")),
    _Model("deepseek/deepseek-reasoner", ((0, 6), (0.3, 9), (1, 6)), 1500, 1600, ("4", "16", "1"), reasons=True),
    _Model("qwen/qwen-max", ((0, 8), (1, 5)), 1600, 450, ("11.52", "46.08")),
    _Model("moonshotai/kimi-k2", ((0, 1), (0.5, 3), (1, 7)), 3000, 500),
)  # fmt: skip
_PRICE_CHANGES = (
    (0.36, "openai/gpt-4o", ("16.2", "64.8", "8.1")),
    (0.71, "deepseek/deepseek-chat", ("2.8", "11.2", "0.7")),
)

_PEOPLE = (
    ("boss", "周建国"), ("grace.liu", "Grace Liu"), ("tom.becker", "Tom Becker"), ("sunqiang", "孙强"),
    ("ann.walker", "Ann Walker"), ("wanglei", "王磊"), ("chenxi", "陈曦"), ("lina", "李娜"),
    ("marco.rossi", "Marco Rossi"), ("zhangwei", "张伟"), ("liuyang", "刘洋"), ("emma.clark", "Emma Clark"),
    ("zhaomin", "赵敏"), ("huangjing", "黄静"), ("david.kim", "David Kim"), ("xuhao", "徐浩"),
    ("ouyangxue", "欧阳雪"), ("priya.nair", "Priya Nair"), ("linfeng", "林峰"), ("gaoyuan", "高远"),
    ("sofia.garcia", "Sofía García"), ("heping", "何平"), ("yuki.tanaka", "田中ゆき"), ("maxiaotian", "马晓天"),
    ("oliver.smith", "Oliver Smith"),
)  # fmt: skip
_FAMILY = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚"
_ADMINS = ("boss", "grace.liu")
_LEAVES, _OWES = "sunqiang", "tom.becker"
METER = "meter"

_REMARKS = (
    "月度额度", "Monthly budget", "补充额度", "Top-up", "", "项目经费：客服机器人", "Q3 project", "加急：投标文档",
    "部门预算", "Conference demo", "余额不足，续充", "数据清洗任务",
)  # fmt: skip
_SIZES = [size * HAO_PER_YUAN for size in (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)]

_HOURS = (6, 3, 1.5, 1, 1, 1, 2, 6, 20, 70, 100, 90, 40, 60, 100, 105, 100, 80, 45, 35, 40, 40, 25, 12)
_WEEKDAYS = (1.0, 1.05, 1.05, 1.0, 0.9, 0.2, 0.15)
_NEW_YEARS = {2023: (1, 22), 2024: (2, 10), 2025: (1, 29), 2026: (2, 17), 2027: (2, 6), 2028: (1, 26), 2029: (2, 13)}


def _is_holiday(day: date) -> bool:
    if (day.month, day.day) in {
        (1, 1),
        (4, 4),
        (4, 5),
        *((5, n) for n in range(1, 6)),
        *((10, n) for n in range(1, 8)),
    }:
        return True
    festival = _NEW_YEARS.get(day.year)
    return festival is not None and -1 <= (day - date(day.year, *festival)).days <= 6


def _busyness(day: date, place: float) -> float:
    factor = 0.07 if _is_holiday(day) else _WEEKDAYS[day.weekday()]
    return factor * (0.65 + 0.7 * place)


@dataclass(slots=True)
class _Member:
    user_id: str
    name: str
    weight: float
    joins_ns: int
    holds: float
    """The share of the calls that are held first."""
    taste: tuple[float, ...]
    """A liking for each model."""
    size: int
    """毫: the usual recharge."""
    recharged_ns: int = 0
    waits: bool = False
    """A recharge has been asked for."""
    stops_ns: int | None = None
    """From then on nobody recharges the account."""
    is_active: bool = False


def fill(
    db: Database | str,
    *,
    seed: int = 1,
    members: int = 25,
    days: int = 365,
    end_ns: int | None = None,
    entries: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill an empty database with the last `days` days up to `end_ns` (now, to the quarter of an hour) of a team of
    `members`, in about `entries` entries. `progress(days so far, days)` is called as it goes.

    Raises Conflict where there are accounts already, Invalid for a size that is no count, DatabaseUnavailable.
    """
    for name, count in (("members", members), ("days", days), ("entries", 1 if entries is None else entries)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise Invalid(N_("{name} is a whole number, 1 or more."), field=name, name=name)
    database = Database(db) if isinstance(db, str) else db
    try:
        if database is not db:
            prepare(database)
        end = database.clock() // QUARTER_NS * QUARTER_NS if end_ns is None else end_ns
        if days > (most := (end - EARLIEST_NS) // DAY - 1):
            raise Invalid(N_("days is at most {most}: nothing is older than the year 2000."), field="days", most=most)
        wanted = entries or round(members * days * ENTRIES_A_MEMBER_AND_DAY)
        story = _Story(random.Random(seed), members, days, end, wanted, progress or (lambda _done, _all: None))
        while not story.is_over:
            database.write(story.tell)
    finally:
        if database is not db:
            database.close()


@dataclass(slots=True)
class _Story:
    rng: random.Random
    count: int
    days: int
    end_ns: int
    entries: int
    progress: Callable[[int, int], None]
    people: list[_Member] = field(default_factory=list)
    boss: Actor = SHELL
    meter: Actor = SHELL
    is_over: bool = False
    told: int = 0
    """How many events have been committed."""
    _started: int = 0
    _queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    _number: int = 0
    _day: int = 0
    _dates: list[date] = field(default_factory=list)
    _calls: list[float] = field(default_factory=list)
    """The calls of each date."""

    def tell(self, tx: Transaction) -> None:
        """The next part of the story, in one transaction."""
        if self._started != self.told:
            raise Conflict(
                N_("Somebody else wrote to the database meanwhile, so the demo was given up. Use an empty one.")
            )
        if not self._started:
            self._begin(tx)
        events = 0
        while events < EVENTS_A_TRANSACTION:
            while self._queue and self._queue[0][0] < self._until and self._queue[0][0] < self.end_ns:
                at, _, act, details = heappop(self._queue)
                tx.now_ns = at
                act(tx, *details)
                events += 1
            if self._day == len(self._dates):
                self.is_over = True
                break
            self.progress(min(self._day, self.days), self.days)
            self._plan_day()
        self._started += events
        self.told = self._started
        if self.is_over:
            self.progress(self.days, self.days)

    @property
    def start_ns(self) -> int:
        return self.end_ns - self.days * DAY

    @property
    def _until(self) -> int:
        """Up to where the calls have been planned."""
        return self._midnight(self._dates[0] + timedelta(days=self._day))

    def _midnight(self, day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() - ZONE_SECONDS) * SECOND

    def _place(self, at_ns: int) -> float:
        return (at_ns - self.start_ns) / (self.days * DAY)

    def _at(self, place: float) -> int:
        """The moment at a place in the story, to the minute; in a long one at ten in the morning or later."""
        at = self.start_ns + int(place * self.days * DAY)
        if self.days >= 30:
            at += (10 * 3600 * SECOND - (at + ZONE_SECONDS * SECOND)) % DAY
        return at // (60 * SECOND) * 60 * SECOND

    def _later(self, at_ns: int, act: Callable[..., None], *details: Any) -> None:
        self._number += 1
        heappush(self._queue, (at_ns, self._number, act, details))

    # The plan

    def _begin(self, tx: Transaction) -> None:
        if tx.connection().scalar(sa.select(ACCOUNTS.c.id).limit(1)) is not None:
            raise Conflict(
                N_("The database holds accounts already. Name an empty one in BILLING_DATABASE_URL for the demo.")
            )
        self._invent_people()
        first, last = (
            datetime.fromtimestamp(ns // SECOND + ZONE_SECONDS, UTC).date() for ns in (self.start_ns, self.end_ns - 1)
        )
        self._dates = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        busy = [
            _busyness(day, self._place(self._midnight(day))) * self.rng.lognormvariate(0, 0.13) for day in self._dates
        ]
        for place, part in ((0, self._part_of_day(first)), (-1, self._part_of_day(last))):
            busy[place] *= part
        calls = self.entries / (1 + sum(one.holds * one.weight for one in self.people))
        self._calls = [calls * each / sum(busy) for each in busy]
        tx.now_ns = self.start_ns
        for one in self.people:
            if one.user_id in _ADMINS:
                self._join(tx, one)
        accounts.add(tx, METER, "Gateway 网关", actor=SHELL)
        self.meter = actor_of(accounts.find(tx, METER), may_charge=True)
        for one in self.people:
            if one.user_id not in _ADMINS:
                self._later(one.joins_ns, self._join, one)
        for model in _MODELS:
            if model.prices:
                at = self._at(model.appears) if model.appears else self.start_ns
                self._later(at, self._set_price, model.name, model.prices)
        for when, name, prices in _PRICE_CHANGES:
            self._later(self._at(when), self._set_price, name, prices)
        self._plan_incidents()

    def _part_of_day(self, day: date) -> float:
        """Which part of a day's calls lies inside the story."""
        midnight = self._midnight(day)
        inside = [
            hours for hour, hours in enumerate(_HOURS) if self.start_ns <= midnight + hour * 3600 * SECOND < self.end_ns
        ]
        return max(sum(inside) / sum(_HOURS), 0.01)

    def _invent_people(self) -> None:
        rng = self.rng
        named = list(_PEOPLE[: self.count])
        for number in range(len(named) + 1, self.count + 1):
            given = "".join(rng.choice(_GIVEN) for _ in range(rng.choice((1, 2))))
            named.append((f"member{number:04d}", rng.choice(_FAMILY) + given))
        ranks = list(range(len(named)))
        rng.shuffle(ranks)
        weights = [1 / (rank + 1.5) ** 0.9 for rank in ranks]
        if _OWES in dict(named):
            weights[2] = sum(weights) / len(weights)
        a_month = self.entries / 1.4 / self.days * min(self.days, 30) * TYPICAL_COST
        for place, (user_id, name) in enumerate(named):
            joins = 0.0 if place < 3 or rng.random() < 0.6 else rng.uniform(0.02, 0.6)
            share = weights[place] / sum(weights)
            self.people.append(
                _Member(
                    user_id=user_id,
                    name=name,
                    weight=share,
                    joins_ns=self._at(joins) + place * 60 * SECOND if joins else self.start_ns + place * 97 * SECOND,
                    holds=rng.uniform(0.06, 0.34),
                    taste=tuple(rng.lognormvariate(0, 0.7) for _ in _MODELS),
                    size=min(_SIZES, key=lambda size: abs(size - a_month * share * rng.uniform(0.8, 1.6))),
                )
            )

    def _plan_incidents(self) -> None:
        by_id = {one.user_id: one for one in self.people}
        heavy = sorted(self.people, key=lambda one: -one.weight)
        early = [one for one in heavy if one.joins_ns < self._at(0.1) and one.user_id not in (_LEAVES, _OWES)]
        for number, place in enumerate((0.3, 0.77)):
            self._later(
                self._at(place) + 1860 * SECOND, self._recharge_wrongly, early[(number + 1) % len(early)], number
            )
        for number, place in enumerate((0.45, 0.6, 0.9)):
            self._later(self._at(place) + 4620 * SECOND, self._reverse_call, early[number % len(early)], number)
        self._later(self._at(0.55) + 2220 * SECOND, self._take_back, early[0])
        if leaver := by_id.get(_LEAVES):
            self._later(self._at(0.84) + 8 * 3600 * SECOND * (self.days >= 30), self._freeze, leaver)
        if ower := by_id.get(_OWES):
            ower.stops_ns = self.end_ns - min(20 * DAY, self.days * DAY // 10)
            self._later(max(self.end_ns - 10_620 * SECOND, self.start_ns + DAY // 2), self._overdraw, ower, 0)
        for number, one in enumerate(early[1:3]):
            at = self.end_ns - (1500 - 420 * number) * SECOND
            self._later(
                at, self._hold, one, _MODELS[2], Tokens(60_000, 2_000), 16_000, (6 * 3600, 3 * 86_400)[number], ""
            )

    def _plan_day(self) -> None:
        """Put the next date's calls into the queue, conversation by conversation."""
        rng, day, wanted = self.rng, self._dates[self._day], self._calls[self._day]
        midnight = self._midnight(day)
        self._day += 1
        present = [one for one in self.people if one.is_active or one.joins_ns < midnight + DAY]
        if not present:
            return
        people = list(accumulate(one.weight for one in present))
        hours = list(accumulate(_HOURS))
        place = self._place(midnight)
        popularity = [model.weight(place) for model in _MODELS]
        models: dict[str, list[float]] = {}
        left = int(wanted) + (rng.random() < wanted % 1)
        while left > 0:
            one = rng.choices(present, cum_weights=people)[0]
            if one.user_id not in models:
                models[one.user_id] = list(accumulate(a * b for a, b in zip(popularity, one.taste, strict=True)))
            model = rng.choices(_MODELS, cum_weights=models[one.user_id])[0]
            hour = rng.choices(range(24), cum_weights=hours)[0]
            at = midnight + hour * 3600 * SECOND + rng.randrange(3600 * 1000) * 1_000_000
            if not self.start_ns <= at < self.end_ns:
                continue
            turns = min(1 + int(rng.expovariate(0.45)), left, 40)
            left -= turns
            self._plan_conversation(one, model, at, turns)

    def _plan_conversation(self, one: _Member, model: _Model, at: int, turns: int) -> None:
        rng = self.rng
        prompt = int(rng.lognormvariate(0, 0.8) * model.prompt) + 20
        known = 0  # tokens that the provider has in its cache
        held = rng.random() < one.holds
        for _ in range(turns):
            completion = min(int(rng.lognormvariate(0, 0.7) * model.completion) + 1, 16_000)
            cached = min(known, prompt) // 128 * 128
            creation = 0
            if model.writes_cache and prompt > 1024:
                creation = prompt - cached - min(prompt - cached, rng.randrange(10, 200))
                known = cached + creation
            elif rng.random() < 0.8:
                known = int(prompt * rng.uniform(0.6, 0.95)) if prompt > 1024 else 0
            reasoning = int(completion * rng.uniform(0.3, 0.8)) if model.reasons else 0
            tokens = Tokens(prompt, completion, cached, creation, reasoning)
            if held:
                most = next((n for n in (512, 1024, 2048, 4096, 8192) if n >= completion * 0.95), 16_000)
                self._later(at, self._hold, one, model, tokens, most, ledger.DEFAULT_TTL_SECONDS, self._fate())
            else:
                self._later(at, self._charge, one, model, tokens)
            prompt = min(prompt + completion - reasoning + int(rng.lognormvariate(4.5, 1)), 190_000)
            at += int(rng.expovariate(1 / 55) * 1000 + 4000) * 1_000_000

    def _fate(self) -> str:
        return self.rng.choices(("settle", "refund", "expire"), (97.3, 2.4, 0.3))[0]

    # What happens

    def _join(self, tx: Transaction, one: _Member) -> None:
        role = "admin" if one.user_id in _ADMINS else "member"
        email = f"{one.user_id}@example.com"
        account = accounts.add(tx, one.user_id, one.name, actor=self.boss, email=email, role=role)
        one.is_active = True
        if self.boss is SHELL:
            self.boss = actor_of(account)
        self._later(tx.now_ns + 40 * SECOND, self._recharge, one, "首充" if one.name[0] > "z" else "Welcome")

    def _set_price(self, tx: Transaction, name: str, prices: Sequence[str]) -> None:
        input_price, output_price, *cache = (parse_price(price) for price in prices)
        read, write = (*cache, None, None)[:2]
        pricing.set_price(tx, name, input_price, output_price, actor=self.boss, cache_read=read, cache_write=write)

    def _recharge(self, tx: Transaction, one: _Member, remark: str | None = None) -> None:
        one.waits = False
        if not one.is_active or (one.stops_ns is not None and tx.now_ns >= one.stops_ns):
            return
        if remark is None:
            days = (tx.now_ns - one.recharged_ns) / DAY
            place = _SIZES.index(one.size) + (days < 9) - (days > 75)
            one.size = _SIZES[max(0, min(place, len(_SIZES) - 1))]
            remark = self.rng.choice(_REMARKS)
        one.recharged_ns = tx.now_ns
        ledger.recharge(tx, one.user_id, one.size, actor=self.boss, remark=remark)

    def _watch(self, one: _Member, at_ns: int, balance: Hao) -> None:
        """Ask for a recharge when the balance runs low."""
        if balance < one.size // 6 and not one.waits:
            one.waits = True
            delay = int(self.rng.expovariate(1 / 5400)) + 300
            at = at_ns + delay * SECOND
            hour = (at // SECOND + ZONE_SECONDS) // 3600 % 24
            if not 9 <= hour < 20:
                at += ((33 - hour) % 24) * 3600 * SECOND
            self._later(at, self._recharge, one)

    def _charge(self, tx: Transaction, one: _Member, model: _Model, tokens: Tokens) -> None:
        if not one.is_active:
            return
        try:
            receipt = ledger.charge(tx, one.user_id, model.name, tokens, actor=self.meter)
        except InsufficientBalance:
            self._watch(one, tx.now_ns, 0)
        else:
            self._watch(one, tx.now_ns, receipt.balance)

    def _hold(
        self, tx: Transaction, one: _Member, model: _Model, tokens: Tokens, most: int, ttl_seconds: int, fate: str
    ) -> None:
        if not one.is_active:
            return
        rng = self.rng
        # What a call will bring along (tools, retrieved pages) is sometimes guessed too low.
        guess = int(tokens.prompt * (rng.uniform(0.25, 0.6) if rng.random() < 0.06 else rng.uniform(1.0, 1.08)))
        try:
            receipt = ledger.precharge(
                tx, one.user_id, model.name, guess, most, actor=self.meter, ttl_seconds=ttl_seconds
            )
        except InsufficientBalance:
            return self._watch(one, tx.now_ns, 0)
        if fate == "expire":
            self._later(receipt.expires_at_ns or 0, self._expire)
        elif fate == "refund":
            self._later(tx.now_ns + rng.randrange(800, 30_000) * 1_000_000, self._refund, receipt)
        elif fate:
            milliseconds = 600 + tokens.completion * rng.randrange(9, 22)
            self._later(tx.now_ns + milliseconds * 1_000_000, self._settle, one, receipt, tokens)

    def _settle(self, tx: Transaction, one: _Member, hold: Receipt, tokens: Tokens) -> None:
        self._watch(one, tx.now_ns, ledger.settle(tx, hold.entry_id, tokens, actor=self.meter).balance)

    def _refund(self, tx: Transaction, hold: Receipt) -> None:
        ledger.refund(tx, hold.entry_id, actor=self.meter)

    def _expire(self, tx: Transaction) -> None:
        ledger.expire_holds(tx)

    def _recharge_wrongly(self, tx: Transaction, one: _Member, number: int) -> None:
        wrong = ledger.recharge(
            tx, one.user_id, 10 * one.size, actor=self.boss, remark=("月度额度", "Monthly budget")[number]
        )
        self._later(tx.now_ns + 420 * SECOND, self._correct, one, wrong.entry_id, number)

    def _correct(self, tx: Transaction, one: _Member, entry_id: int, number: int) -> None:
        ledger.reverse(tx, entry_id, ("多打了一个零", "One zero too many")[number], actor=self.boss)
        self._later(
            tx.now_ns + 25 * SECOND, self._recharge, one, ("更正：月度额度", "Corrected monthly budget")[number]
        )

    def _reverse_call(self, tx: Transaction, one: _Member, number: int) -> None:
        """Undo somebody's dearest call of late; the second time it was the wrong one, and the reversal is undone."""
        entry = (
            tx.connection()
            .execute(
                sa.text(
                    "SELECT id FROM (SELECT id, cost FROM entry WHERE account_id = "
                    "(SELECT id FROM account WHERE user_id = :user_id) AND type IN ('deduct', 'settle') AND id NOT IN "
                    "(SELECT reverses_id FROM entry WHERE reverses_id IS NOT NULL) ORDER BY id DESC LIMIT 20) AS late "
                    "ORDER BY cost DESC, id LIMIT 1"
                ),
                {"user_id": one.user_id},
            )
            .scalar()
        )
        if entry is None:
            return
        reason = ("模型输出乱码，退还费用", "Charged to the wrong person", "供应商故障，重复调用")[number]
        done = ledger.reverse(tx, int(entry), reason, actor=self.boss)
        if number == 1:
            self._later(tx.now_ns + 900 * SECOND, self._undo_reversal, done.entry_id)

    def _undo_reversal(self, tx: Transaction, entry_id: int) -> None:
        ledger.reverse(tx, entry_id, "It was the right person after all", actor=self.boss)

    def _take_back(self, tx: Transaction, one: _Member) -> None:
        balance = _balance(tx, one.user_id)
        if balance > one.size // 4:
            amount = -(one.size // 8)
            ledger.recharge(tx, one.user_id, amount, actor=self.boss, remark="预算调整：转给其他项目")

    def _freeze(self, tx: Transaction, one: _Member) -> None:
        accounts.change(tx, one.user_id, actor=self.boss, status="frozen")
        one.is_active = False

    def _overdraw(self, tx: Transaction, one: _Member, times: int) -> None:
        """Long agents' runs, booked in full after they were made."""
        if one.is_active:
            tokens = Tokens(180_000 + 9_000 * times, 6_000, 90_000, 0, 2_000)
            receipt = ledger.charge(tx, one.user_id, "openai/gpt-5", tokens, actor=self.meter, allow_debt=True)
            if receipt.balance > -3 * HAO_PER_YUAN and times < 2_000:
                pause = min(260 * SECOND, (self.end_ns - tx.now_ns) // 40)
                self._later(tx.now_ns + pause, self._overdraw, one, times + 1)


def _balance(tx: Transaction, user_id: str) -> int:
    return int(tx.connection().scalar(sa.select(ACCOUNTS.c.balance).where(ACCOUNTS.c.user_id == user_id)) or 0)

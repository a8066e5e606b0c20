"""What a check found, and what the last one did."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..database import Transaction
from ..errors import BillingError, Conflict
from ..i18n import N_
from ..models import Setting

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Finding:
    """A row that breaks a rule. `id` is its number, or what else names it."""

    table: str
    id: int | str | None
    message: str
    params: dict[str, object]
    more: int = 0
    """How many other rows break the same rule."""

    def told(self) -> BillingError:
        one = BillingError(self.message, **self.params)
        if not self.more:
            return one
        return BillingError("{one} {more}", one=one, more=BillingError(N_("({more} more like it.)"), more=self.more))

    def sentence(self, language: str = "en") -> str:
        return self.told().sentence(language)


class Findings(list[Finding]):
    """What is broken, the first row of each rule."""

    entries = 0
    """How many entries were looked at."""
    seals = 0
    """How many seals."""
    newest_seal: str | None = None
    """The hash of the last one."""

    def note(self, table: str, id: int | str | None, message: str, **params: object) -> None:
        self.add(Finding(table, id, message, {"id": id, **params}))

    def add(self, finding: Finding) -> None:
        for known in self:
            if known.message == finding.message:
                known.more += 1 + finding.more
                return
        self.append(finding)

    def must_be_none(self, message: str) -> None:
        """Raises Conflict with `message`, whose {sentence} tells the first."""
        if self:
            raise Conflict(message, sentence=self[0].told())


@dataclass(frozen=True, slots=True)
class Last:
    """What the last check said; `broken` is empty where everything added up."""

    at_ns: int
    entries: int
    seals: int
    newest_seal: str | None
    broken: tuple[BillingError, ...]


_LAST = "_last_check"


def remember(tx: Transaction, findings: Findings) -> None:
    """Keep when the ledger was checked, and what came of it."""
    told = Last(tx.now_ns, findings.entries, findings.seals, findings.newest_seal, ())
    broken = [finding.told().kept() for finding in findings]
    tx.session.merge(Setting(name=_LAST, value=json.dumps(asdict(told) | {"broken": broken}, default=str)))


def last(tx: Transaction) -> Last | None:
    """What the last check said; None where there was none yet."""
    row = tx.session.get(Setting, _LAST)
    if row is None:
        return None
    kept = json.loads(row.value)
    broken = kept["broken"] or []
    some = broken if isinstance(broken, list) else [broken]  # before, only the first was kept
    return Last(**kept | {"broken": tuple(map(BillingError.of_kept, some))})

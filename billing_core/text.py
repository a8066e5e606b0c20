"""Text that people write: one line, without what no screen can show, and nothing that a spreadsheet would run."""

import unicodedata

from .errors import Invalid
from .i18n import N_

MAX_SEARCH = 500
"""The longest text that is looked for; a remark has no more characters."""


def one_line(text: str, longest: int, *, field: str) -> str:
    """`text` with white space folded and control characters left out. Raises Invalid where it is too long."""
    unseen = ("Cc", "Cs", "Co", "Cn")
    shown = "".join(letter for letter in text if letter.isspace() or unicodedata.category(letter) not in unseen)
    shown = " ".join(shown.split())
    if len(shown) > longest:
        raise Invalid(N_("The text is too long: at most {longest} characters."), field=field, longest=longest)
    return shown


def words_of(search: str) -> list[str]:
    """The words to look for. Raises Invalid where the text is too long."""
    one_line(search, MAX_SEARCH, field="search")
    return search.split()


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a formula begins; the wide signs are those of East Asian keyboards, which some spreadsheets take for the others."""


def safe(text: str) -> str:
    """Text that no spreadsheet runs as a formula. What begins as this would make of one gets one more, so that it can be told."""
    return "'" + text if text.lstrip("'").startswith(_FORMULA) else text


def unsafe(cell: str) -> str:
    """Text as it was before `safe`."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell

"""Text that people write: one line, without what no screen can show."""

import unicodedata

from .errors import Invalid
from .i18n import N_


def one_line(text: str, longest: int, *, field: str) -> str:
    """`text` with white space folded and control characters left out. Raises Invalid where it is too long."""
    shown = "".join(
        letter for letter in " ".join(text.split()) if unicodedata.category(letter) not in ("Cc", "Cs", "Co", "Cn")
    )
    if len(shown) > longest:
        raise Invalid(N_("The text is too long: at most {longest} characters."), field=field, longest=longest)
    return shown

"""Sentences in the reader's language: gettext, with the catalogues in `locale/`.

English stands in the code. `N_("…")` marks a sentence that is translated later (an error's, say); `translate(…)` gives
it in a language. The catalogue is the `.po` file itself, turned into gettext's own form in memory, so that nothing has
to be compiled after a change.
"""

from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path

LANGUAGES = {"en": "English", "zh_CN": "简体中文"}
LOCALE = Path(__file__).parent / "locale"


def N_(message: str) -> str:
    """Mark a message for the catalogue; it is translated where it is shown."""
    return message


@cache
def translations(language: str) -> NullTranslations:
    """gettext's translations for a language of LANGUAGES; English needs none."""
    source = LOCALE / language / "LC_MESSAGES" / "billing.po"
    if language not in LANGUAGES or not source.exists():
        return NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with source.open("rb") as file:
        catalogue = read_po(file, locale=language)
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return GNUTranslations(compiled)


def translate(message: str, language: str = "en", /, **params: object) -> str:
    """`message` in `language`, with its `{names}` filled in."""
    text = translations(language).gettext(message) if message else ""
    return text.format(**params) if params else text


def ntranslate(singular: str, plural: str, number: int, language: str = "en", /, **params: object) -> str:
    """The message for a number of things, in `language`, with its `{names}` filled in."""
    text = translations(language).ngettext(singular, plural, number)
    return text.format(**params) if params else text


def choose_language(*wishes: str | None) -> str:
    """The first language that we have among BCP 47 tags or Accept-Language headers, in the order of the wishes."""
    for wish in wishes:
        for tag in (wish or "").split(","):
            name = tag.split(";")[0].strip().replace("-", "_")
            if name in LANGUAGES:
                return name
            if name.split("_")[0].lower() == "zh":
                return "zh_CN"
            if name.split("_")[0].lower() == "en":
                return "en"
    return "en"

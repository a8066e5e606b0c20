"""Sentences in the reader's language: gettext, with the catalogues in `locale/`.

English stands in the code. `N_("…")` marks a sentence that is translated later (an error's, say); `translate(…)` gives
it in a language. The catalogue is the `.po` file itself, read when it is first needed, so that nothing has to be
compiled after a change; `locale/update.py` keeps it in step with the code.
"""

import json
import os
import re
from functools import cache
from gettext import NullTranslations
from pathlib import Path

LANGUAGES = {"en": "English", "zh_CN": "简体中文"}
LOCALE = Path(__file__).parent / "locale"


def N_(message: str) -> str:
    """Mark a message for the catalogue; it is translated where it is shown."""
    return message


class Catalogue(NullTranslations):
    """A `.po` file. Babel reads one too, in the time that a whole shell command may take."""

    def __init__(self, source: str):
        super().__init__()
        self.texts = {}
        for entry in source.split("\n\n"):
            parts = {
                name: "".join(map(json.loads, re.findall(r'".*"', strings)))
                for name, strings in re.findall(r'^(msg\w+(?:\[0\])?)((?:\s+".*")+)', entry, re.MULTILINE)
            }
            if text := parts.get("msgstr") or parts.get("msgstr[0]"):
                self.texts[parts["msgid"]] = text

    def gettext(self, message: str) -> str:
        return self.texts.get(message, message)

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        """Chinese has one form for all numbers; a language with more needs a rule here."""
        return self.texts.get(singular) or super().ngettext(singular, plural, number)


@cache
def translations(language: str) -> NullTranslations:
    """gettext's translations for a language of LANGUAGES; English needs none."""
    source = LOCALE / language / "LC_MESSAGES" / "billing.po"
    if language not in LANGUAGES or not source.exists():
        return NullTranslations()
    return Catalogue(source.read_text("utf-8"))


def translate(message: str, language: str = "en", /, **params: object) -> str:
    """`message` in `language`, with its `{names}` filled in."""
    text = translations(language).gettext(message) if message else ""
    return text.format(**params) if params else text


def ntranslate(singular: str, plural: str, number: int, language: str = "en", /, **params: object) -> str:
    """The message for a number of things, in `language`, with its `{names}` filled in."""
    text = translations(language).ngettext(singular, plural, number)
    return text.format(**params) if params else text


def _by_weight(header: str) -> list[str]:
    """A header's tags, the ones with the greatest `q` first, without those of 0 (RFC 9110, 12.5.4)."""
    weighted = []
    for part in header.split(","):
        tag, *parameters = (each.strip() for each in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        weighted.append((tag, float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0))
    return [tag for tag, weight in sorted(weighted, key=lambda pair: -pair[1]) if weight]


def choose_language(*wishes: str | None) -> str:
    """The first language that we have among BCP 47 tags or Accept-Language headers, in the order of the wishes."""
    for wish in wishes:
        for tag in _by_weight(wish or ""):
            name = tag.replace("-", "_")
            if name in LANGUAGES:
                return name
            if name.split("_")[0].lower() == "zh":
                return "zh_CN"
            if name.split("_")[0].lower() == "en":
                return "en"
    return "en"


def environment_language() -> str:
    """The language of whoever reads the console, as gettext finds it."""
    wishes = [os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG")]
    if (wish := next(filter(None, wishes), None)) not in (None, "C", "POSIX"):
        wishes = [*os.environ.get("LANGUAGE", "").split(":"), wish]
    return choose_language(*wishes)

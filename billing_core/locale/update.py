"""Brings the catalogues up to date with the code: `python billing_core/locale/update.py`.

What is marked in the code and what the shell's help says goes into every language's `billing.po`; translations stay,
and messages that are gone go. Prints what still lacks a translation, and exits with 1 then.
"""

import sys
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from billing_core.i18n import LANGUAGES, LOCALE  # noqa: E402

KEYWORDS = {"N_": None, "translate": None, "_": None, "ngettext": (1, 2), "ntranslate": (1, 2)}
HEADER = """\
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Language: {language}\\n"
"Plural-Forms: {plural_forms}\\n"

"""
"""babel's own header holds dates and its version, which would differ at every run."""


def sources() -> list[Path]:
    """The files that hold messages."""
    folders = (ROOT / name for name in ("api", "billing_core", "pages"))
    return [*sorted(file for folder in folders for file in folder.rglob("*.py")), ROOT / "app.py"]


def extracted() -> Catalog:
    """Every message there is in the code, in English."""
    from billing_core.shell.help import messages

    found = Catalog()
    for file in filter(Path.exists, sources()):
        name = file.relative_to(ROOT).as_posix()
        for _, message, _, _ in extract_from_file("python", file, KEYWORDS):
            found.add(message, locations=[(name, 1)])
    for message in messages():
        found.add(message, locations=[("billing_core/shell", 1)])
    return found


def catalogue(language: str) -> Catalog:
    """A language's catalogue with the messages of today."""
    file = path(language)
    old = read_po(BytesIO(file.read_bytes() if file.exists() else b""), locale=language)
    old.update(extracted(), no_fuzzy_matching=True)
    return old


def written(catalogue: Catalog) -> bytes:
    """A catalogue as its file is: sorted, and the same at every run."""
    out = BytesIO()
    out.write(HEADER.format(language=catalogue.locale_identifier, plural_forms=catalogue.plural_forms).encode())
    write_po(out, catalogue, 120, omit_header=True, sort_output=True, ignore_obsolete=True, include_lineno=False)
    return out.getvalue()


def path(language: str) -> Path:
    return LOCALE / language / "LC_MESSAGES" / "billing.po"


def lacking(catalogue: Catalog) -> list[str]:
    """The messages without a translation."""
    return [str(each.id) for each in catalogue if each.id and (each.fuzzy or not translated(each))]


def translated(message: Message) -> bool:
    """Whether there is a translation, in every number."""
    strings = message.string if isinstance(message.string, (list, tuple)) else [message.string]
    return all(strings)


def main() -> int:
    left = 0
    for language in sorted(set(LANGUAGES) - {"en"}):
        now = catalogue(language)
        path(language).parent.mkdir(parents=True, exist_ok=True)
        path(language).write_bytes(written(now))
        for message in lacking(now):
            left += 1
            print(f"{language}: {message}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())

"""Brings the catalogues up to date with the code: `python billing_core/locale/update.py`.

What is marked in the code and what the shell's help says goes into every language's `billing.po`; translations stay,
and messages that are gone go. Prints what still lacks a translation, and exits with 1 then.
"""

import ast
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from billing_core.i18n import LANGUAGES, LOCALE  # noqa: E402

MARKERS = {"N_": 1, "translate": 1, "_": 1, "ngettext": 2, "ntranslate": 2, "say_number": 2}
"""The functions whose first arguments are messages, and how many are (2: for one and for many)."""
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


def marked(source: str) -> Iterator[str | tuple[str, ...]]:
    """The messages marked in a file: written out, or one of two by a condition.

    Babel's own extractor goes by tokens, and takes the key in `_(HEADINGS["input"])` for a message.
    """

    def literals(node: ast.AST) -> list[str]:
        if isinstance(node, ast.IfExp):
            return literals(node.body) + literals(node.orelse)
        return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value else []

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            number = MARKERS.get(getattr(node.func, "id", "") or getattr(node.func, "attr", ""), 0)
            found = [literals(argument) for argument in node.args[:number]]
            if number == 1 and found:
                yield from found[0]
            elif number == 2 and all(found):
                yield tuple(each[0] for each in found)


def extracted() -> Catalog:
    """Every message there is in the code, in English."""
    from billing_core.shell.help import messages

    found = Catalog()
    for file in filter(Path.exists, sources()):
        name = file.relative_to(ROOT).as_posix()
        for message in marked(file.read_text("utf-8")):
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


def written(catalogue: Catalog, language: str) -> bytes:
    """A catalogue as its file is: sorted, and the same at every run."""
    out = BytesIO()
    out.write(HEADER.format(language=language, plural_forms=catalogue.plural_forms).encode())
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
        path(language).write_bytes(written(now, language))
        for message in lacking(now):
            left += 1
            print(f"{language}: {message}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())

"""The catalogue is in step with the code, and what is said in one language is said in the other."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog, Message

from billing_core import i18n
from billing_core.errors import BillingError, Conflict, Frozen, Invalid, UnknownAccount
from billing_core.i18n import LANGUAGES, choose_language, ntranslate, translate
from billing_core.locale import update

OTHERS = sorted(set(LANGUAGES) - {"en"})
CHINESE = re.compile(r"[\u3400-\u9fff]")


@pytest.fixture(scope="module", params=OTHERS)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def catalogue(language: str) -> Catalog:
    return update.catalogue(language)


def texts(message: Message) -> tuple[list[str], list[str]]:
    """A message's English and its translations, in every number."""
    both = [list(each) if isinstance(each, (list, tuple)) else [each] for each in (message.id, message.string)]
    return both[0], both[1]


def names(text: str) -> set[str]:
    return set(re.findall(r"\{(\w*)\}", text))


def entries(catalogue: Catalog) -> Iterator[Message]:
    return (message for message in catalogue if message.id and all(texts(message)[1]))


def test_the_catalogue_is_what_update_makes_of_the_code(catalogue: Catalog, language: str) -> None:
    now = update.written(catalogue, language)
    assert now == update.path(language).read_bytes(), "Run: python billing_core/locale/update.py"


def test_every_message_is_translated(catalogue: Catalog) -> None:
    assert update.lacking(catalogue) == []


def test_a_translation_has_the_placeholders_of_its_message(catalogue: Catalog) -> None:
    for message in entries(catalogue):
        english, translated = texts(message)
        wanted = set[str]().union(*map(names, english))
        for text in translated:
            assert names(text) == wanted, text


def test_a_chinese_sentence_has_chinese_punctuation(catalogue: Catalog) -> None:
    for message in entries(catalogue):
        for text in texts(message)[1]:
            assert not re.search(r"[\u3400-\u9fff][,;?!]|[\u3400-\u9fff][.:](\s|$)", text), text


def test_a_message_is_never_put_together() -> None:
    """Neither `_(f"…")` nor `_("a" + b)` can be found in a catalogue."""
    for file in filter(Path.exists, update.sources()):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in update.MARKERS:
                for argument in node.args[:1]:
                    assert not isinstance(argument, (ast.JoinedStr, ast.BinOp)), f"{file}:{node.lineno}"


def test_what_is_marked_is_found() -> None:
    source = """
_("one")
words._("two", n=1)
N_("three" if x else
   "thr" "ee and a half")
ngettext("{n} day", "{n} days", n)
_(HEADINGS["no"]), translate(no), other("no"), _(""), N_()
def N_(message="no"): "no"
"""
    assert list(update.marked(source)) == ["one", "two", "three", "three and a half", ("{n} day", "{n} days")]


def test_update_is_the_same_at_every_run_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(update, "LOCALE", tmp_path)
    assert update.main() == 1
    assert "zh_CN: There is no account {user_id}." in capsys.readouterr().out
    file = update.path("zh_CN")
    first = file.read_bytes()
    update.main()
    assert file.read_bytes() == first
    gone = b'\nmsgid "Nobody says this"\nmsgstr "x"\n'
    file.write_bytes(
        first.replace(b'msgid "Wrote {file}."\nmsgstr ""', b'msgid "Wrote {file}."\nmsgstr "W {file}"') + gone
    )
    update.main()
    assert b'msgstr "W {file}"' in file.read_bytes()
    assert b"Nobody says this" not in file.read_bytes()
    assert b"POT-Creation-Date" not in file.read_bytes()
    assert str(tmp_path).encode() not in file.read_bytes()


def test_a_catalogue_is_read_as_babel_reads_it(catalogue: Catalog, language: str) -> None:
    ours = i18n.translations(language)
    for message in entries(catalogue):
        (singular, *plural), (first, *_) = texts(message)
        assert ours.gettext(singular) == first
        if plural:
            assert ours.ngettext(singular, plural[0], 1) == ours.ngettext(singular, plural[0], 5) == first


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_can_be_said(language: str) -> None:
    for message in filter(lambda each: each.id, update.extracted()):
        for text in texts(message)[0]:
            params = dict.fromkeys(names(text) - {""}, "x")
            assert BillingError(text, **params).sentence(language)


@pytest.mark.parametrize(
    ("error", "english", "chinese"),
    [
        (UnknownAccount("ann"), "There is no account ann. Check the id", "没有账户 ann。请检查 ID"),
        (Frozen("ann"), "The account ann is frozen:", "账户 ann 已冻结："),
        (Invalid("{name} must be true or false.", name="{x}"), "{x} must be true", "{x} 必须是 true 或 false。"),
        (
            Invalid("The file {file} can't be read: {reason}.", file="f", reason="Permission denied"),
            "The file f can't be read: Permission denied.",
            "文件 f 无法读取：没有权限。",
        ),
        (
            Conflict("The copy doesn't add up, so no backup was made. {sentence}", sentence=UnknownAccount("ann")),
            "The copy doesn't add up, so no backup was made. There is no account ann.",
            "副本中的账目对不上，未生成备份。没有账户 ann。",
        ),
    ],
)
def test_an_error_says_its_sentence_in_both_languages(error: BillingError, english: str, chinese: str) -> None:
    assert str(error) == error.sentence() == error.sentence("en")
    assert error.sentence("en").startswith(english)
    assert error.sentence("zh_CN").startswith(chinese)


def test_what_is_not_in_the_catalogue_stays_as_it_is() -> None:
    assert translate("", "zh_CN") == ""
    assert translate("Nobody says this", "zh_CN") == "Nobody says this"
    assert translate("Nobody says this", "../../etc") == "Nobody says this"
    assert [ntranslate("{n} x", "{n} xs", n, "zh_CN", n=n) for n in (1, 2)] == ["1 x", "2 xs"]
    assert [ntranslate("{n} day", "{n} days", n, "en", n=n) for n in (0, 1, 2)] == ["0 days", "1 day", "2 days"]
    assert [ntranslate("{n} day", "{n} days", n, "zh_CN", n=n) for n in (1, 2)] == ["1 天", "2 天"]


@pytest.mark.parametrize(
    ("wishes", "language"),
    [
        ([], "en"),
        ([None, ""], "en"),
        (["zh-CN"], "zh_CN"),
        (["zh_CN.UTF-8"], "zh_CN"),
        (["zh"], "zh_CN"),
        (["ZH-Hans-SG"], "zh_CN"),
        (["en-GB,en;q=0.9,zh;q=0.8"], "en"),
        (["fr-FR, zh;q=0.5, en;q=0.4"], "zh_CN"),
        (["de", "zh-CN"], "zh_CN"),
        (["en", "zh-CN"], "en"),
        (["*"], "en"),
        (["xx;;;,,,"], "en"),
    ],
)
def test_the_first_language_that_there_is_counts(wishes: list[Any], language: str) -> None:
    assert choose_language(*wishes) == language


def test_chinese_stands_in_the_catalogue_alone() -> None:
    """What a person reads is English in the code: 元 and 毫 are units, and a language is called by its own name.

    The demo's people and remarks are data, and docstrings may give examples.
    """
    for file in filter(Path.exists, update.sources()):
        tree = ast.parse(file.read_text("utf-8"))
        docstrings = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                text = re.sub("[元毫]", "", node.value)
                allowed = file.name == "demo.py" or text in LANGUAGES.values()
                assert allowed or not CHINESE.search(text), f"{file}:{node.lineno}: {node.value}"


def test_reading_a_catalogue_needs_no_babel() -> None:
    """The shell answers at once in Chinese too."""
    import subprocess

    code = (
        "import sys; from billing_core.i18n import translate as t; print(t('Balance', 'zh_CN'), 'babel' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=update.ROOT, capture_output=True, check=True)
    assert done.stdout.decode("utf-8").split() == ["余额", "False"]


@pytest.mark.parametrize(
    ("header", "language"),
    [("zh;q=0.1,en;q=0.9", "en"), ("zh;q=0,en;q=0.2", "en"), ("de,zh-TW;q=0.8,en;q=0.3", "zh_CN"), ("zh;q=x", "en")],
)
def test_a_header_names_languages_by_their_weight(header: str, language: str) -> None:
    assert choose_language(header) == language

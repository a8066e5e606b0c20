"""毫 and prices are exact: text that is money is read to the last digit, everything else is refused with a sentence."""

import ast
from decimal import Decimal
from fractions import Fraction
from itertools import count
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import billing_core
from billing_core import money
from billing_core.errors import Invalid
from billing_core.money import MAX_HAO, MAX_PRICE_MICRO
from billing_core.pricing import Rates
from billing_core.tokens import MOST, Tokens

HAO = st.integers(-MAX_HAO, MAX_HAO)
MICRO = st.integers(0, MAX_PRICE_MICRO)


@pytest.mark.parametrize(
    ("text", "hao"),
    [
        ("100", 1_000_000),
        ("12.5", 125_000),
        ("0.0001", 1),
        ("-0.0001", -1),
        ("−5", -50_000),
        ("+5", 50_000),
        ("0", 0),
        ("-0", 0),
        ("1,234.5", 12_345_000),
        ("1,234,567", 12_345_670_000),
        (" 7\n", 70_000),
        ("1.50000000", 15_000),
        ("007", 70_000),
        (3, 30_000),
        (Decimal("1.2345"), 12_345),
        (Decimal("1E+2"), 1_000_000),
        ("100,000,000,000", MAX_HAO),
        ("-100000000000", -MAX_HAO),
    ],
)
def test_an_amount_is_read_exactly(text: str | int | Decimal, hao: int) -> None:
    assert money.parse_yuan(text) == hao


NOT_MONEY = [
    *(
        "",
        " ",
        "1e3",
        "1E3",
        "一百",
        "１００",
        "٣",
        "NaN",
        "nan",
        "Infinity",
        "-inf",
        "1,00",
        "1,2345",
        ",100",
        "1,,000",
        "0,500",  # half of one, where a comma is the point
        "-0,001",
        "012,345",
    ),
    *("1.", ".5", "1.2.3", "1 000", "1_000", "--1", "+-1", "0x10", "¥5", "5元", "$5", "5%", "1/2", "1'000", "1\x00"),
    *("9" * 50, True, False, None, 1.5, float("nan"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), b"1", []),
    Decimal("1E+99999"),
]


@pytest.mark.parametrize("value", NOT_MONEY, ids=count())
def test_what_is_not_money_is_refused_with_the_field_and_a_sentence(value: object) -> None:
    for parse in (money.parse_yuan, money.parse_price):
        with pytest.raises(Invalid, match="元") as refused:
            parse(value, field="here")  # type: ignore[arg-type]
        assert refused.value.field == "here"


@pytest.mark.parametrize("text", ["1.23456", "0.00001", "-0.00005", Decimal("1E-30")])
def test_an_amount_finer_than_a_hao_is_refused_and_not_rounded(text: str | Decimal) -> None:
    with pytest.raises(Invalid, match=r"finer than 0\.0001 元"):
        money.parse_yuan(text)


@pytest.mark.parametrize(
    "text", ["100000000000.0001", "-100000000000.0001", pytest.param(10**5000, id="huge"), "9" * 38]
)
def test_an_amount_larger_than_an_entry_can_move_is_refused(text: str | int) -> None:
    with pytest.raises(Invalid, match="too large"):
        money.parse_yuan(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-1", "below 0"),
        ("-0.000001", "below 0"),
        ("0.0000001", "at most six decimal places"),
        ("1000000.000001", "too high"),
        pytest.param(10**5000, "too high", id="huge"),
    ],
)
def test_a_price_that_cannot_be_is_refused_with_its_reason(text: str | int, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        money.parse_price(text)


@pytest.mark.parametrize(
    ("text", "micro"),
    [("18", 18_000_000), ("0.5", 500_000), ("0.000001", 1), ("0", 0), ("-0", 0), ("1,000,000", MAX_PRICE_MICRO)],
)
def test_a_price_is_read_exactly(text: str, micro: int) -> None:
    assert money.parse_price(text) == micro


@pytest.mark.parametrize(
    ("hao", "text"),
    [
        (0, "0.00"),
        (1, "0.0001"),
        (-1, "-0.0001"),
        (100, "0.01"),
        (12_345_000, "1,234.50"),
        (10_010, "1.001"),
        (-50_000, "-5.00"),
        (MAX_HAO, "100,000,000,000.00"),
    ],
)
def test_an_amount_is_written_with_two_to_four_decimals(hao: int, text: str) -> None:
    assert money.format_yuan(hao) == text


def test_a_sign_is_shown_where_it_is_asked_for_and_there_is_something_to_sign() -> None:
    assert [money.format_yuan(hao, sign=True) for hao in (5, 0, -5)] == ["+0.0005", "0.00", "-0.0005"]


def test_a_column_of_amounts_takes_as_many_decimals_as_its_finest() -> None:
    assert money.decimals_needed([]) == 2
    assert money.decimals_needed([10_000, 500]) == 2
    assert money.decimals_needed([10_000, -510]) == 3
    assert money.decimals_needed([1, 510]) == 4
    assert money.format_yuan(500, decimals=4) == "0.0500"


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "0.00"), (1, "0.000001"), (500_000, "0.50"), (18_000_000, "18.00"), (10**12, "1,000,000.00")],
)
def test_a_price_is_written_with_two_to_six_decimals(micro: int, text: str) -> None:
    assert money.format_price(micro) == text


@given(HAO)
def test_whatever_amount_is_written_is_read_back_as_it_was(hao: int) -> None:
    assert money.parse_yuan(money.format_yuan(hao)) == hao
    assert money.parse_yuan(money.format_yuan(hao, sign=True, decimals=4)) == hao
    assert money.parse_yuan(money.to_yuan(hao)) == hao
    assert money.parse_yuan(str(money.to_yuan(hao))) == hao
    assert "E" not in str(money.to_yuan(hao))


@given(MICRO)
def test_whatever_price_is_written_is_read_back_as_it_was(micro: int) -> None:
    assert money.parse_price(money.format_price(micro)) == micro
    assert money.parse_price(money.price_yuan(micro)) == micro
    assert money.parse_price(f"{money.price_yuan(micro):f}") == micro


@given(st.text() | st.text(alphabet="0123456789.,+- eE", max_size=12))
def test_any_text_is_an_amount_that_a_fraction_agrees_with_or_is_refused(text: str) -> None:
    try:
        hao = money.parse_yuan(text)
    except Invalid:
        return
    assert Fraction(hao, 10_000) == Fraction(text.strip().replace(",", "").replace("−", "-"))


# What a call costs


def rates(input: str, output: str = "0", cache_read: str | None = None, cache_write: str | None = None) -> Rates:
    prices = (input, output, cache_read or input, cache_write or input)
    return Rates(*(money.parse_price(price) for price in prices), "database")


def test_a_thousand_tokens_at_18_yuan_cost_180_hao() -> None:
    assert rates("18").cost(Tokens(1000, 0)) == 180
    assert rates("0", "18").cost(Tokens(0, 1000)) == 180


def test_one_token_at_half_a_yuan_costs_one_hao() -> None:
    assert rates("0.5").cost(Tokens(1, 0)) == 1


def test_what_costs_anything_costs_at_least_one_hao_and_nothing_costs_nothing() -> None:
    assert rates("0.000001").cost(Tokens(1, 0)) == 1
    assert rates("0.000001").cost(Tokens(0, 0)) == 0
    assert rates("0").cost(Tokens(MOST, MOST)) == 0


def test_a_cost_is_rounded_up_once_and_not_once_a_kind() -> None:
    # Four kinds at a quarter of a 毫 each: rounded one by one they would be 4 毫.
    assert rates("25", "25", "25", "25").cost(Tokens(3, 1, 1, 1)) == 1
    assert rates("25", "25", "25", "25").cost(Tokens(4, 1, 1, 1)) == 2


def test_each_token_is_charged_once_at_its_own_rate() -> None:
    # 100 uncached at 10, 200 read at 1, 300 written at 12.5, 50 out at 30 of which 40 are reasoning.
    assert rates("10", "30", "1", "12.5").cost(Tokens(600, 50, 200, 300, 40)) == 65  # 10 + 2 + 37.5 + 15
    assert rates("10", "30").cost(Tokens(600, 50, 200, 300, 40)) == rates("10", "30").cost(Tokens(600, 50))


TOKENS = st.tuples(*[st.integers(0, MOST // 3)] * 5).map(
    lambda n: Tokens(n[0] + n[1] + n[2], n[3], n[1], n[2], min(n[3], n[4]))
)


@given(MICRO, MICRO, MICRO, MICRO, TOKENS)
def test_the_cost_is_that_of_exact_fractions_rounded_up(a: int, b: int, c: int, d: int, tokens: Tokens) -> None:
    def yuan(micro: int) -> Fraction:
        return Fraction(micro, 10**6)

    uncached = tokens.prompt - tokens.cached - tokens.cache_creation
    exact = uncached * yuan(a) + tokens.cached * yuan(c) + tokens.cache_creation * yuan(d) + tokens.completion * yuan(b)
    cost = Rates(a, b, c, d, "database").cost(tokens)
    assert cost == ceil(exact / 100)
    assert type(cost) is int


@given(MICRO, MICRO, MICRO, MICRO, TOKENS)
def test_no_call_costs_more_than_the_most_that_was_held_for_it(a: int, b: int, c: int, d: int, tokens: Tokens) -> None:
    price = Rates(a, b, c, d, "database")
    assert price.cost(tokens) <= price.most(tokens)


@pytest.mark.parametrize("module", ["money", "pricing", "ledger", "logs", "stats", "export", "models", "settings"])
def test_no_module_that_money_goes_through_knows_floats(module: str) -> None:
    """No float type, no literal with a point, no division but a whole one, and no `round`."""
    tree = ast.parse((Path(billing_core.__path__[0]) / f"{module}.py").read_text())
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), ast.unparse(node)
        assert not (isinstance(node, ast.Name) and node.id in ("float", "round")), ast.unparse(node)
        assert not (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)), ast.unparse(node)


def test_the_smallest_amount_has_its_sign_and_a_column_has_two_decimals_at_least() -> None:
    assert money.format_yuan(1, sign=True) == "+0.0001"
    assert [money.decimals_needed(amounts) for amounts in ([], [10_000], [100], [101], [110], [10_000, 110])] == [
        2,
        2,
        2,
        4,
        3,
        3,
    ]


def test_a_whole_price_is_written_without_an_exponent() -> None:
    assert [str(money.price_yuan(micro)) for micro in (18_000_000, 100_000_000, 500_000)] == ["18", "100", "0.5"]

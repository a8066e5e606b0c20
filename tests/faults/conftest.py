"""`--rounds N` makes each fault happen N times; the table at the end says what was acknowledged, lost and doubled."""

from collections.abc import Iterator

import pytest

from .acknowledged import TOLD


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often, where more than a test's usual number is asked for."""
    return int(request.config.getoption("--rounds"))


@pytest.fixture(autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[None]:
    before = len(TOLD)
    yield
    for fault, rounds, acknowledged, lost, doubled in TOLD[before:]:
        said = f"{fault}: {rounds} rounds, {acknowledged} acknowledged, {lost} lost, {doubled} doubled"
        request.node.user_properties.append(("fault", said))

"""Time zones, by their IANA names."""

from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from .errors import Invalid
from .i18n import N_


@cache
def names() -> frozenset[str]:
    """All there are. Looking for them on disk takes 10 ms, so it is done once."""
    return frozenset(available_timezones()) - {"localtime", "posixrules", "Factory"}  # a server's own, no place's


def zone(name: str | None) -> ZoneInfo:
    """The zone called `name`; UTC without one. Raises Invalid."""
    if not name:
        return ZoneInfo("UTC")
    if name not in names():
        raise Invalid(
            N_("“{name}” is not a time zone. Name one of the IANA database, like Asia/Shanghai or UTC."),
            field="timezone",
            name=name,
        )
    return ZoneInfo(name)

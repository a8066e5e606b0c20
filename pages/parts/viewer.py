"""Who is there, and what they have chosen."""

from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from api.auth import SESSION_COOKIE
from billing_core import signin
from billing_core.actors import Actor
from billing_core.database import Database
from billing_core.errors import Invalid
from billing_core.i18n import LANGUAGES, choose_language
from billing_core.zones import zone


@dataclass(frozen=True)
class Viewer:
    """Whoever looks at a page: their rights, their time zone, and the pages that they may see."""

    db: Database
    actor: Actor
    tz: ZoneInfo
    pages: dict[str, Any] = field(default_factory=dict)

    @property
    def user_id(self) -> str:
        return self.actor.user_id

    @property
    def is_admin(self) -> bool:
        return self.actor.is_admin


def session_secret() -> str | None:
    """What the browser's cookie carries."""
    return st.context.cookies.get(SESSION_COOKIE)


def who(db: Database) -> Actor | None:
    return db.read(signin.session_actor, session_secret())


def choose(actor: Actor | None) -> ZoneInfo:
    """Note the viewer's language, and give their zone: what they have set, else the browser's."""
    asked = st.query_params.get("lang")
    own = actor.language if actor else None
    st.session_state["language"] = choose_language(own or (asked if asked in LANGUAGES else None), st.context.locale)
    for name in (actor.timezone if actor else None, st.context.timezone):
        try:
            if name:
                return zone(name)
        except Invalid:
            continue
    return ZoneInfo("UTC")

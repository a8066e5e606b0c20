"""Sign in; the first admin's link; and what to do with an empty database."""

from urllib.parse import urlencode, urlsplit

import streamlit as st

from api import sessions
from billing_core import accounts, signin
from billing_core.database import Database, Transaction
from billing_core.errors import BillingError, TooManyTries
from billing_core.i18n import LANGUAGES
from billing_core.models import Account

from .parts import address, told
from .parts.words import _, language


def page(db: Database) -> None:
    with st.container(horizontal_alignment="center"), st.container(width=420):
        st.title(_("Billing"), anchor=False)
        setup = st.query_params.get("setup")
        if setup:
            _set_up(db, setup)
        elif not db.read(accounts.acting_admins):
            _nobody_yet()
        else:
            _sign_in(db)
        _language()


def _sign_in(db: Database) -> None:
    with st.form("sign-in"):
        user_id = st.text_input(_("Id"), autocomplete="username", key="user_id")
        password = st.text_input(_("Password"), type="password", autocomplete="current-password", key="password")
        asked = st.form_submit_button(_("Sign in"), type="primary", width="stretch")
    _focus_the_first_field()
    if asked:
        try:
            account = signin.check_password(db, user_id, password)
            _enter(db, account)
        except BillingError as error:
            told.problem(error, st.container())
            if not isinstance(error, TooManyTries):
                st.caption(_("Forgotten it? An admin can give you a new one."))


def _focus_the_first_field() -> None:
    """Streamlit has no way of its own. It may draw the form once more after that, so that the focus is lost: for some seconds
    it comes back, unless somebody clicks or is somewhere else already."""
    st.html(f"<script>{_FOCUS}</script>", unsafe_allow_javascript=True)


_FOCUS = """{
    const focus = () => {
        if (!document.activeElement?.matches('input, button, a'))
            document.querySelector('form input, [data-testid=stForm] input')?.focus()
    }
    const timer = setInterval(focus, 100), stop = () => clearInterval(timer)
    setTimeout(stop, 5000)
    addEventListener('pointerdown', stop, {once: true})
    focus()
}"""


def _enter(db: Database, account: Account) -> None:
    def ticket(tx: Transaction) -> str:
        return signin.issue(tx, "ticket", account)

    address.go(sessions.start_url(db.write(ticket), _back()))


def _back() -> str:
    """Where the visitor wanted to go."""
    path = urlsplit(st.context.url or "/").path
    asked = {name: values for name in st.query_params if name != "lang" and (values := st.query_params.get_all(name))}
    return f"{path}?{urlencode(asked, doseq=True)}" if asked else path


def _nobody_yet() -> None:
    st.info(
        _(
            "Nobody has an account here yet. The first admin is made by the one-time link that the console prints, or by:"
        ),
        icon=":material/waving_hand:",
    )
    st.code("python -m billing_core account add boss --name Boss --admin", language="bash", wrap_lines=True)


def _set_up(db: Database, secret: str) -> None:
    if not db.read(signin.may_set_up, secret):
        st.error(_("This link has been used or is too old. Restart the app to get a new one on its console."))
        if db.read(accounts.acting_admins):
            _sign_in(db)
        return
    st.write(_("Welcome. Make yourself the first admin; you can add the others then."))
    with st.form("setup"):
        user_id = st.text_input(_("Id, to sign in with"), placeholder="boss", autocomplete="username", key="user_id")
        name = st.text_input(_("Name, as others see it"), placeholder="Boss", key="name")
        password = st.text_input(
            _("Password"), type="password", autocomplete="new-password", key="password",
            help=_("At least 8 characters. A short sentence is easy to remember."),
        )  # fmt: skip
        asked = st.form_submit_button(_("Make me the first admin"), type="primary", width="stretch")
    if asked:
        try:
            account = db.write(signin.set_up, secret, user_id, name, signin.hash_password(password))
        except BillingError as error:
            told.problem(error, st.container())
            return
        st.query_params.clear()
        _enter(db, account)


def _language() -> None:
    """The other languages, one click away, before anybody has signed in."""
    with st.container(horizontal=True, horizontal_alignment="center"):
        for code, name in LANGUAGES.items():
            if code != language() and st.button(name, type="tertiary", key=f"lang-{code}"):
                st.query_params["lang"] = code
                st.rerun()

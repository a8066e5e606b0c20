"""account … and key …"""

import sys
from typing import Annotated, Any

import typer

from ..errors import Invalid
from ..glossary import RIGHTS, ROLES, STATUSES
from ..i18n import N_, translate
from ..money import Hao, format_yuan
from .help import Shell
from .output import (
    Column,
    JsonOption,
    UserId,
    ZoneOption,
    db,
    hao,
    hint,
    iso,
    language,
    print_json,
    read_text,
    record,
    say,
    shown,
    table,
    word,
    zone,
)  # fmt: skip

account = Shell(name="account", help="Who there is: add, list, change, freeze.")
key = Shell(name="key", help="Keys, with which programs sign in.")

PasswordFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="A file that holds the password, or - for standard input. Else a terminal is asked.",
        show_default=False,
    ),
]  # fmt: skip
EmailOption = Annotated[str | None, typer.Option(show_default=False)]


def _password(file: str | None, *, may_be_none: bool) -> str | None:
    """A password out of a file, standard input or a terminal; None without any of them. Raises Invalid."""
    if file is not None:
        return read_text(file).rstrip("\r\n")
    if not sys.stdin.isatty():
        return None
    from getpass import getpass

    question = N_("Password (Enter for none): ") if may_be_none else N_("New password: ")
    first = getpass(translate(question, language()))
    if not first and may_be_none:
        return None
    if getpass(translate(N_("The same again: "), language())) != first:
        raise Invalid(N_("The two passwords differ. Nothing was changed."), field="password")
    return first


@account.command("add")
def add(
    user_id: UserId,
    name: Annotated[str, typer.Option(help="What people call it.", show_default=False)],
    email: EmailOption = "",
    admin: Annotated[bool, typer.Option("--admin", help="May do everything, in the app too.")] = False,
    password_file: PasswordFile = None,
) -> None:
    """Add an account with a balance of 0.

    Without a password it can be charged and have keys, but nobody can sign in on the page with it.
    """
    from .. import accounts, signin
    from ..actors import SHELL

    database = db()
    password = _password(password_file, may_be_none=True)
    hashed = None if password is None else signin.hash_password(password)
    added = database.write(
        accounts.add, user_id, name, actor=SHELL, email=email or "", role="admin" if admin else "member",
        password_hash=hashed,
    )  # fmt: skip
    say(N_("Added {user_id} ({name})."), user_id=added.user_id, name=added.name)
    if hashed is None:
        hint(
            N_("It has no password: set one with “account password {user_id}” to sign in on the page."), user_id=user_id
        )


def _as_json(one: Any, balance: Hao) -> dict[str, Any]:
    return {
        "user_id": one.user_id, "name": one.name, "email": one.email, "role": one.role, "status": one.status,
        **hao("balance", balance), **hao("total_consumed", one.total_consumed),
    }  # fmt: skip


@account.command("list")
def list_(
    search: Annotated[str, typer.Option(help="Part of an id, a name or an email.", show_default=False)] = "",
    as_json: JsonOption = False,
) -> None:
    """List the accounts with their balances."""
    from .. import accounts
    from ..actors import SHELL
    from ..balances import balances_of

    def read(tx: Any) -> list[tuple[Any, int]]:
        found = accounts.listed(tx, actor=SHELL, search=search)
        return [(one, balance.left) for one, balance in zip(found, balances_of(tx, found), strict=True)]

    rows = db().read(read)
    if as_json:
        return print_json([_as_json(*row) for row in rows])
    if not rows:
        return hint(
            N_("No account matches.")
            if search
            else N_("There is no account yet. Add one: account add boss --name Boss --admin")
        )
    table(
        [
            Column(N_("Account"), long=True), Column(N_("Name"), long=True), Column(N_("Role")), Column(N_("Status")),
            Column(N_("Balance, 元"), right=True), Column(N_("Consumed, 元"), right=True),
        ],
        (
            [one.user_id, one.name, word(ROLES, one.role), word(STATUSES, one.status), format_yuan(balance), format_yuan(one.total_consumed)]
            for one, balance in rows
        ),
    )  # fmt: skip


@account.command("show")
def show(user_id: UserId, timezone: ZoneOption = None, as_json: JsonOption = False) -> None:
    """Show one account."""
    from .. import accounts, ledger, signin
    from ..actors import SHELL

    def read(tx: Any) -> tuple[Any, int, int, int]:
        one = accounts.find(tx, user_id)
        keys = signin.keys(tx, user_id, actor=SHELL)
        in_use = sum(each.revoked_at_ns is None for each, _ in keys)
        return one, ledger.balance(tx, one), ledger.held(tx, one), in_use

    tz = zone(timezone)
    one, balance, held, keys = db().read(read)
    if as_json:
        more = {**hao("held", held), "has_password": one.password_hash is not None, "keys": keys}
        return print_json(_as_json(one, balance) | more | {"created_at": iso(one.created_at_ns, tz)})
    yes_no = N_("yes") if one.password_hash else N_("no: can't sign in on the page")
    record(
        [
            (N_("Account"), one.user_id), (N_("Name"), one.name), (N_("Email"), one.email), (N_("Role"), word(ROLES, one.role)),
            (N_("Status"), word(STATUSES, one.status)), (N_("Balance"), f"{format_yuan(balance)} 元"),
            (N_("Held"), f"{format_yuan(held)} 元"), (N_("Consumed"), f"{format_yuan(one.total_consumed)} 元"),
            (N_("Password"), translate(yes_no, language())), (N_("Keys"), keys), (N_("Since"), shown(one.created_at_ns, tz)),
        ]
    )  # fmt: skip


@account.command("set")
def set_(
    user_id: UserId,
    name: Annotated[str | None, typer.Option(show_default=False)] = None,
    email: EmailOption = None,
    role: Annotated[str | None, typer.Option(metavar="member|admin", show_default=False)] = None,
    status: Annotated[str | None, typer.Option(metavar="active|frozen", show_default=False)] = None,
) -> None:
    """Change an account's name, email, role or status."""
    if name is email is role is status is None:
        raise typer.BadParameter(N_("Say what to change: --name, --email, --role or --status."))
    _change(user_id, name=name, email=email, role=role, status=status)
    say(N_("Changed {user_id}."), user_id=user_id)


def _change(user_id: str, **what: str | None) -> None:
    from .. import accounts
    from ..actors import SHELL

    db().write(accounts.change, user_id, actor=SHELL, **what)


@account.command("freeze")
def freeze(user_id: UserId) -> None:
    """Let nothing new be charged to an account, and sign it out."""
    _change(user_id, status="frozen")
    say(N_("{user_id} is frozen: nothing new can be charged to it."), user_id=user_id)


@account.command("unfreeze")
def unfreeze(user_id: UserId) -> None:
    """Let an account be charged again."""
    _change(user_id, status="active")
    say(N_("{user_id} is active again."), user_id=user_id)


@account.command("password")
def password(user_id: UserId, password_file: PasswordFile = None) -> None:
    """Give an account a new password, and sign it out everywhere."""
    from .. import accounts, signin
    from ..actors import SHELL

    database = db()
    database.read(accounts.find, user_id)
    new = _password(password_file, may_be_none=False)
    if new is None:
        raise Invalid(
            N_(
                "There is no terminal to ask for a password. Name a file with --password-file, or - for standard input."
            ),
            field="password",
        )
    database.write(signin.change_password, user_id, signin.hash_password(new), actor=SHELL)
    say(N_("{user_id} has a new password."), user_id=user_id)


@key.command("add")
def add_key(
    user_id: Annotated[
        str, typer.Option("--account", metavar="USER_ID", help="Who it speaks for.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="What it is for, to tell keys apart.", show_default=False)] = "",
    can: Annotated[
        str,
        typer.Option(metavar="charge|admin", help="charge: charge any account; admin: everything.", show_default=False),
    ] = "",
) -> None:
    """Make a key. It is printed once, alone on standard output; without --can it only reads its own account."""
    from .. import signin
    from ..actors import SHELL

    made, secret = db().write(signin.add_key, user_id, actor=SHELL, name=name, can=can)
    hint(N_("Key {id} of {user_id}. Keep it: it is not shown again."), id=made.id, user_id=user_id)
    typer.echo(secret)


@key.command("list")
def list_keys(
    user_id: Annotated[str | None, typer.Option("--account", metavar="USER_ID", show_default=False)] = None,
    timezone: ZoneOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, those in use first."""
    from .. import accounts, signin
    from ..actors import SHELL

    def read(tx: Any) -> list[tuple[Any, str]]:
        if user_id is not None:
            accounts.find(tx, user_id)
        return signin.keys(tx, user_id, actor=SHELL)

    tz = zone(timezone)
    rows = db().read(read)
    if as_json:
        return print_json(
            [
                {
                    "id": each.id, "user_id": owner, "name": each.name, "hint": each.hint, "can": each.can,
                    "created_at": iso(each.created_at_ns, tz), "last_used_at": iso(each.last_used_at_ns, tz),
                    "revoked_at": iso(each.revoked_at_ns, tz),
                }
                for each, owner in rows
            ]
        )  # fmt: skip
    if not rows:
        return hint(N_("There is no key yet. Make one: key add --account USER_ID --can charge"))
    table(
        [
            Column(N_("No."), right=True), Column(N_("Account"), long=True), Column(N_("Name"), long=True), Column(N_("Begins")),
            Column(N_("Can")), Column(N_("Made"), wide=True), Column(N_("Last used")), Column(N_("Revoked"), wide=True),
        ],
        (
            [
                each.id, owner, each.name, each.hint + "…", word(RIGHTS, each.can), shown(each.created_at_ns, tz),
                shown(each.last_used_at_ns, tz), shown(each.revoked_at_ns, tz),
            ]
            for each, owner in rows
        ),
    )  # fmt: skip


@key.command("revoke")
def revoke(
    key_id: Annotated[int, typer.Argument(metavar="ID", help="Its number in “key list”.", show_default=False)],
) -> None:
    """End a key: it opens nothing from now on."""
    from .. import signin
    from ..actors import SHELL

    db().write(signin.revoke_key, key_id, actor=SHELL)
    say(N_("Key {id} is revoked."), id=key_id)

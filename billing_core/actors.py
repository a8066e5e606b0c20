"""Whoever asks for something, and what they may do."""

from dataclasses import dataclass

from .errors import Forbidden, FrozenActor
from .i18n import N_

SHELL_ID = "shell"
"""The user id that the shell's own acts are shown under; no account can have it."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever asks for something: an account behind a sign-in or a key, or the shell (`account_id` None)."""

    account_id: int | None
    user_id: str
    name: str
    is_admin: bool = False
    may_charge: bool = False
    is_frozen: bool = False
    language: str | None = None
    timezone: str | None = None
    origin: str = "page"
    """From where they ask: `page`, `shell`, or a key's first characters. The audit log keeps it."""

    def must_be_admin(self) -> None:
        if not self.is_admin:
            raise Forbidden(N_("Only an admin may do this. Ask one of your team's admins."))
        if self.is_frozen:
            raise FrozenActor(self.user_id)

    def must_charge(self) -> None:
        self.must_end_holds()
        if self.is_frozen:
            raise FrozenActor(self.user_id)

    def must_end_holds(self) -> None:
        """Whoever charges may settle and refund what is held, a frozen account as well."""
        if not (self.may_charge or self.is_admin):
            raise Forbidden(
                N_("This key may not charge. Use one made with: python -m billing_core key add --can charge.")
            )

    def must_see(self, user_id: str | None) -> None:
        """Everybody sees their own account, an admin sees all of them (None)."""
        if user_id != self.user_id:
            self.must_be_admin()

    @property
    def scope(self) -> int:
        """The name space of the actor's idempotency keys."""
        return self.account_id or 0


SHELL = Actor(None, SHELL_ID, SHELL_ID, is_admin=True, may_charge=True, origin="shell")

"""What can go wrong, each with one plain sentence that says what is wrong and what to do.

A page shows the sentence, the API maps `status` to HTTP once, the shell prints it and exits with 1.
"""

from typing import Any, Self

from .i18n import N_, translate

SYSTEM_SAYS = (
    N_("No such file or directory"),
    N_("Permission denied"),
    N_("Is a directory"),
    N_("Not a directory"),
    N_("File exists"),
    N_("Read-only file system"),
    N_("No space left on device"),
)
"""What an OSError says, which comes in English everywhere."""


class BillingError(Exception):
    """An error whose sentence a person may read. `status` is the HTTP status it maps to."""

    status = 422

    def __init__(self, message: str, **params: object):
        self.message = message
        self.params = params
        super().__init__(self.sentence())

    def sentence(self, language: str = "en") -> str:
        return translate(self.message, language, **{name: _said(each, language) for name, each in self.params.items()})

    def kept(self) -> dict[str, Any]:
        """What JSON can keep, so that it can be said in any language later on."""
        params = {name: each.kept() if isinstance(each, BillingError) else each for name, each in self.params.items()}
        return {"message": self.message, "params": params}

    @classmethod
    def of_kept(cls, kept: str | dict[str, Any]) -> Self:
        """What `kept` gave; an earlier version kept a sentence in English."""
        if isinstance(kept, str):
            return cls(kept)
        params = {name: cls.of_kept(each) if isinstance(each, dict) else each for name, each in kept["params"].items()}
        return cls(kept["message"], **params)


def _said(value: object, language: str) -> object:
    """A parameter; one that is a sentence itself in the reader's language."""
    if hasattr(value, "sentence"):
        return value.sentence(language)
    return translate(str(value), language) if value in SYSTEM_SAYS else value


class Invalid(BillingError):
    """Input that is not what its field takes (422). `field` names it."""

    def __init__(self, message: str, *, field: str | None = None, **params: object):
        self.field = field
        super().__init__(message, **params)


class NotSignedIn(BillingError):
    status = 401


class InsufficientBalance(BillingError):
    status = 402


class Forbidden(BillingError):
    status = 403


class Frozen(Forbidden):
    def __init__(self, user_id: str):
        super().__init__(
            N_("The account {user_id} is frozen: nothing new can be charged to it until an admin unfreezes it."),
            user_id=user_id,
        )


class FrozenActor(Forbidden):
    """Whoever asks is frozen, whomever it is about."""

    def __init__(self, user_id: str):
        super().__init__(
            N_("Your account {user_id} is frozen, so you may not do this. Ask an admin to unfreeze it."),
            user_id=user_id,
        )


class NotFound(BillingError):
    status = 404


class UnknownAccount(NotFound):
    def __init__(self, user_id: str):
        shown = user_id if len(user_id) <= 64 else user_id[:64] + "…"
        super().__init__(N_("There is no account {user_id}. Check the id, or add the account first."), user_id=shown)


class Conflict(BillingError):
    """Something that is already so, or was done with another content (409)."""

    status = 409


class TooManyTries(BillingError):
    status = 429


class DatabaseUnavailable(BillingError):
    """The database cannot be read or written now (503)."""

    status = 503

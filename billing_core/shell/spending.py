"""recharge, balance, charge, reverse."""

import re
from typing import Annotated, Any

import typer

from ..glossary import STATUSES
from ..i18n import N_
from ..money import format_yuan, parse_yuan
from .help import MARK, Command
from .output import JsonOption, UserId, db, hao, print_json, read_text, record, say, word

_NEGATIVE = re.compile(r"-[0-9.]")


class WithAmounts(Command):
    """A command whose arguments may be below 0: `-20` is an amount and not an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        takes_value = {name for param in self.params if not getattr(param, "is_flag", True) for name in param.opts}
        marked, before, only_arguments = [], "", False
        for arg in args:
            is_value = before in takes_value and not only_arguments
            only_arguments = only_arguments or (arg == "--" and not is_value)
            is_amount = _NEGATIVE.match(arg) and not is_value and not only_arguments
            marked.append(f"{MARK}{arg}" if is_amount else arg)
            before = "" if is_value else arg
        rest = super().parse_args(ctx, marked)
        for name, value in ctx.params.items():
            if isinstance(value, str):
                ctx.params[name] = value.removeprefix(MARK)
        return rest


def recharge(
    user_id: UserId,
    amount: Annotated[
        str, typer.Argument(metavar="AMOUNT", help="In 元, like 100 or 12.5; -20 takes 20 off.", show_default=False)
    ],
    remark: Annotated[str, typer.Option(help="Stands in the recharge log.", show_default=False)] = "",
    as_json: JsonOption = False,
) -> None:
    """Put money on an account, or take some off it (an amount below 0, into debt if need be)."""
    from .. import ledger
    from ..actors import SHELL

    moved = parse_yuan(amount)
    _print(db().write(ledger.recharge, user_id, moved, actor=SHELL, remark=remark), as_json)


def _print(done: Any, as_json: bool, **more: Any) -> None:
    """What an operation did."""
    if as_json:
        return print_json(
            {
                "id": done.entry_id, "user_id": done.user_id, "type": done.type, **hao("amount", done.amount),
                **hao("cost", done.cost), **hao("balance", done.balance), "status": done.status, **more,
            }
        )  # fmt: skip
    say(
        N_("{user_id}: {amount} 元, balance {balance} 元 (entry {id})."), user_id=done.user_id, id=done.entry_id,
        amount=format_yuan(done.amount, sign=True), balance=format_yuan(done.balance),
    )  # fmt: skip


def balance(user_id: UserId, as_json: JsonOption = False) -> None:
    """Show what an account may still spend."""
    from ..glance import Glance
    from ..glance import balance as at_a_glance

    def read(tx: Any) -> Glance:
        from .. import accounts, ledger

        account = accounts.find(tx, user_id)
        return Glance(ledger.balance(tx, account), ledger.held(tx, account), account.total_consumed, account.status)

    found = at_a_glance(user_id) or db().read(read)
    if as_json:
        amounts = {
            **hao("balance", found.balance),
            **hao("held", found.held),
            **hao("total_consumed", found.total_consumed),
        }
        return print_json({"user_id": user_id, **amounts, "status": found.status})
    record(
        [
            (N_("Balance"), f"{format_yuan(found.balance)} 元"), (N_("Held"), f"{format_yuan(found.held)} 元"),
            (N_("Consumed"), f"{format_yuan(found.total_consumed)} 元"), (N_("Status"), word(STATUSES, found.status)),
        ]
    )  # fmt: skip


def _tokens(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


def charge(
    user_id: UserId,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Like openai/gpt-4o.", show_default=False)],
    prompt_tokens: Annotated[int | None, _tokens("All input, cached tokens included.")] = None,
    completion_tokens: Annotated[int | None, _tokens("All output, reasoning included.")] = None,
    cached_tokens: Annotated[int | None, _tokens("The part of the input that a cache gave.")] = None,
    cache_creation_tokens: Annotated[int | None, _tokens("The part of the input written to a cache.")] = None,
    reasoning_tokens: Annotated[int | None, _tokens("The part of the output that is reasoning.")] = None,
    response: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="What the provider answered, in a file, or - for standard input.", show_default=False
        ),
    ] = None,
    allow_debt: Annotated[
        bool, typer.Option("--allow-debt", help="The call has been made: book it in any case.")
    ] = False,
    request_id: Annotated[
        str | None, typer.Option(help="The same id charges once, however often it is asked.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Charge one call, by its tokens or by what the provider answered."""
    from .. import ledger, usage
    from ..actors import SHELL
    from ..idempotency import Once
    from ..tokens import Tokens

    counts = [prompt_tokens, completion_tokens, cached_tokens, cache_creation_tokens, reasoning_tokens]
    if response is None and (prompt_tokens is None or completion_tokens is None):
        raise typer.BadParameter(N_("Give --prompt-tokens and --completion-tokens, or --response."))
    if response is not None and any(count is not None for count in counts):
        raise typer.BadParameter(N_("Give the tokens or --response, not both."))
    if response is not None:
        parts = list(usage.read(read_text(response)).by_model(model).items())
    else:
        prompt, completion, cached, creation, reasoning = (count or 0 for count in counts)
        parts = [(model, Tokens(prompt, completion, cached, creation, reasoning))]

    (name, tokens), *others = parts
    asked = [(one, [getattr(counts, part) for part in counts.__slots__]) for one, counts in parts]
    request = (user_id, *asked[0], allow_debt, *asked[1:])
    once = None if request_id is None else Once.of(SHELL, request_id, request)
    done = db().write(
        ledger.charge, user_id, name, tokens, actor=SHELL, allow_debt=allow_debt, once=once, others=others
    )
    _print(done, as_json, replayed=done.replayed)


def reverse(
    entry_id: Annotated[int, typer.Argument(metavar="ENTRY_ID", help="Its number in “logs”.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Stands beside the reversal.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Undo an entry with another one that names it."""
    from .. import ledger
    from ..actors import SHELL

    _print(db().write(ledger.reverse, entry_id, reason, actor=SHELL), as_json)

"""Would a test notice? Runs mutmut on the code that moves and prices money, and prints the score:

    python tests/mutants.py            # all of it, some 20 minutes on two cores
    python tests/mutants.py billing_core.money*
    python tests/mutants.py --no-run   # the score of the last run

A mutant is the code with one thing changed. Each is killed by a test, or explained below; any other is printed, and the
command fails.
"""

import ast
import difflib
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

EXPLAINED: tuple[tuple[str, str, str], ...] = (
    (
        r"ledger\.",
        r"^\+.*(_lock\(tx, user_id, (None)?\)|_take\(tx, user_id, \w+, None|earlier\(tx, None\))",
        "a key is looked up once more under the lock: that counts where the same request waits in another transaction",
    ),
    (
        r"ledger\.",
        r"^\+.*_(open_hold|not_reversed)\(tx, \w+, (None)?\)",
        "a key is looked up once more under the lock: that counts where the same request waits in another transaction",
    ),
    (
        r"x__at_once$|x_last_read$",
        r"^\+",
        "on Postgres alone, of which nothing runs here: tests/test_at_once.py",
    ),
    (
        r"_with_holds_due$",
        r"^\+.*order_by\(None\)",
        "the order in which Postgres locks rows",
    ),
    (
        r"x__without_due$|x_known_number$|x_model_number$|x__numbers$",
        r"^\+.*(rows\(.(select|insert|SELECT [A-Z]+ FROM|INSERT INTO MODEL)|return .(select|SELECT VERSION))",
        "SQL's words and names in either case are the same",
    ),
    (r"_Batchǁwrite$", r"^\+.*zip\(ids, rows, (strict=(None|False)|)\)", "each row has a number"),
    (r"_Batchǁbook$", r"_Locked\(account\.id, balance, None\)", "who has been charged is not frozen"),
    (
        r"InForceǁ(at|kept)$",
        r"^\+(found = (None|self\._(rows|found)\.get\(None\))|self\._found\[model, at_ns\] = None)",
        "what isn't kept in mind is looked up again",
    ),
    (r"InForceǁ_usd_rate$", r"^\+", "what is in force is kept as a number, and the settings say the same"),
    (r"InForceǁ(_looked_up|at)$", r"\(number is None\) and False", "no price is of no model"),
    (
        r"InForceǁ(kept|_with_row)$",
        r"^\+(rates, noted = .*_noted\(None|found = .*and False else|self\._(rows|models)\[.*\] = None|number = None)",
        "what isn't kept in mind is looked up again",
    ),
    (
        r"InForceǁ(kept|_with_row)$",
        r"^\+.*(noted\[1\] is not rates|_is_still\(self\._tx, None\))",
        "what other threads find out meanwhile on Postgres: tests/test_concurrency.py",
    ),
    (
        r"InForceǁ(at|_noted)$|_Batchǁ__init__$",
        r"^\+.*(known = (None|self\._noted\(None)|\(known\) and False|\) and False else None|_models\.get\(None\)|InForce\(tx, (None)?\)|now = None|calls_now\(None|Uses\(None)",
        "what isn't kept in mind, or asked together with the rest, is looked up again",
    ),
    (
        r"x__known$|InForceǁ_is_present$",
        r"^\+.*(from_ns < |<= (known|self\._known)\.until_ns)",
        "at its very ends what is kept in mind is looked up again, or the other of the two looks",
    ),
    (
        r"_Batchǁ(__init__|_new_numbers|book)$|x__known$|x__locks$",
        r"^\+.*(_numbers\(|\) or True else iter|self\._numbers = \"\"|GREATEST|for no key update|or True else ' FOR NO KEY UPDATE')",
        "numbers, words and locks of Postgres: SQLite counts on from the last one",
    ),
    (r"_Batchǁwrite$", r"^\+receipts = .*, (strict=(None|False))?\)\)?$", "each request has its receipt"),
    (r"pricing\.x_rates_of$", r"is None and row\.output is None", "a price that ends has neither"),
    (
        r"ledger\.x__numbers$",
        r"^\+return .(select|SELECT VERSION)",
        "SQL's words and names in either case are the same",
    ),
    (r"ledger\.x__receipts$", r"^\+.*zip\(.*, (strict=(None|False))?\)", "each request has its parts"),
    (r"pricing\.x__lock_models$", r"", "which rows Postgres locks: SQLite has one writer"),
    (r"ledger\.x_precharge$", r"is None\) and False", "no service tier and empty extras are the same"),
    (r"note_expired$", r"suppress\(None\)", "a database that can't be written to: tests/faults"),
    (
        r"",
        r"^\+.*(\.id|how|upstream_usd) or (1|\"XXXX\")",
        "what was written has a number, an ended hold an end, and what is known in 元 is known in dollars",
    ),
    (r"ledger\.x__lock$", r"\) or True else account", "where nothing has expired the row is still the same"),
    (
        r"ledger\.x_charged_anew$",
        r"^\+\.(limit\((None|2)\)|order_by\(None\))",
        "SQLite takes the first row of a subquery, in the order of its index; Postgres refuses a second one",
    ),
    (r"x__own$", r"is None\) and False", "a model that nobody knows has no price either"),
    (r"x__set_price$", r"^\+.*at_ns <= tx\.now_ns", "what has begun by now was looked for already"),
    (
        r"x_(history|planned|undo_change|_expire)$",
        r"^\+.*order_by\((col\(Price\.valid_from_ns\)(\.desc\(\))?|HOLDS\.c\.expires_at_ns), (None)?\)",
        "SQLite gives equals in the order of their numbers",
    ),
    (r"x_planned$", r"^\+\.where\(Price\.valid_from_ns > ", "built-in prices have no start to come"),
    (
        r"x_changes$",
        r"^\+.*(\.join\(Price, (None)?\)|count\(None\))",
        "SQLAlchemy finds the same join, and counts the same rows",
    ),
    (r"Extrasǁ__add__$", r"sum\(costs, \)", "0 and Decimal(0) start the same sum"),
    (r"money\.x__exact$", r"(40|41)", "a bound far beyond any amount, against endless exponents"),
    (r"money\.", r"rstrip\(.XX0XX.\)", "there is no X among digits"),
    (r"money\.x_price_yuan$", r"quantize\(Decimal\(2\)\)", "only the exponent of what is given counts"),
    (r"x_undo_change$", r"set_of\(counted\[1\], None\)\.prices", "prices have no name"),
    (r"x_(preview_rule|with_rule)$", r"^\+.*, None\)$", "a rule that is only tried has no start"),
)
"""A pattern of the function's name, one of the changed line, and why no test can tell the difference."""


@cache
def functions(module: str) -> dict[str, list[str]]:
    """The lines of each function in a module of mutants."""
    text = Path("mutants", *module.split(".")).with_suffix(".py").read_text("utf-8")
    lines = text.splitlines()
    found = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return {node.name: [line.strip() for line in lines[node.lineno : node.end_lineno]] for node in found}


def change(mutant: str) -> tuple[str, str]:
    """The function that a mutant stands for, and its changed lines."""
    module, name = mutant.rsplit(".", 1)
    function = re.sub(r"__mutmut_\d+$", "", name)
    before, after = functions(module)[f"{function}__mutmut_orig"], functions(module)[name]
    lines = (
        line for line in difflib.unified_diff(before, after, lineterm="", n=0) if line[:2] not in ("--", "++", "@@")
    )
    return f"{module}.{function}", "\n".join(lines)


def main(arguments: list[str]) -> int:
    if "--no-run" not in arguments:
        subprocess.run(["mutmut", "run", *arguments], check=False, stdout=subprocess.DEVNULL)
    listed = subprocess.run(["mutmut", "results", "--all", "true"], check=True, capture_output=True, text=True).stdout
    states = dict(line.strip().split(": ", 1) for line in listed.splitlines() if "__mutmut_" in line)
    totals: Counter[tuple[str, str]] = Counter()
    used, left = set(), 0
    for mutant, state in states.items():
        module = mutant.rsplit(".", 1)[0]
        if state in ("survived", "no tests"):
            function, changed = change(mutant)
            reasons = [
                why for why in EXPLAINED if re.search(why[0], function) and re.search(why[1], changed, re.MULTILINE)
            ]
            used.update(reasons)
            if not reasons:
                left += 1
                print(f"{mutant}\n{changed}\n")
            totals[module, "explained" if reasons else state] += 1
        else:
            totals[module, state] += 1
    for module in sorted({module for module, _state in totals}):
        states_here = {state: n for (where, state), n in sorted(totals.items()) if where == module}
        print(
            f"{module}: {sum(states_here.values())} mutants, "
            + ", ".join(f"{n} {state}" for state, n in states_here.items())
        )
    unused = [why for why in EXPLAINED if why not in used]
    for function, changed, _reason in unused if not arguments else ():
        print(f"No mutant is explained by {function} {changed} any more.")
    killed = sum(n for (_module, state), n in totals.items() if state == "killed")
    print(f"{killed} of {sum(totals.values())} killed, {left} neither killed nor explained")
    untried = sum(n for (_module, state), n in totals.items() if state == "not checked")
    if untried:
        print(f"{untried} not tried")
    return 1 if left or ((unused or untried) and not arguments) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

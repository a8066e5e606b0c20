"""A statement: what an account had at the start of a month, every entry, and what it had at the end, under a seal.

made = statement.make(db, "ann", "2026-10", zone("Asia/Shanghai"), actor=actor)
blocks = statement.as_html(db, made, "en")        # or as_csv(db, made)
verdict = statement.verify(db, file, actor=actor)  # does the ledger still say the same?
"""

from .content import Statement, entries, make
from .verifying import Verdict, verify
from .writing import FORMATS, as_csv, as_html

__all__ = ["FORMATS", "Statement", "Verdict", "as_csv", "as_html", "entries", "make", "verify"]

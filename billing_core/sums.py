"""The sums of use: what is kept, and how what was used in any stretch of time is put together from it.

A period is `length` quarters of an hour. Of every model, whoever used it, periods of 15 minutes, 4 hours, a day and 8 days
are kept; of every account, whatever it used, of 4 hours, a day and 8 days; of every account and model, of 8 days, and only
where an account made BUSY_CALLS calls within those 8 days, of an hour, 4 hours and a day as well: whoever makes fewer has few
entries to read. What reversals undo is rare, and kept in every length. Where sums don't reach, at the ends of a stretch, the
calls themselves are added up, found by their account and time.
"""

from .models import ACCOUNT, BOTH, MODEL

QUARTER_NS = 900 * 10**9
LONGEST = 768
"""8 days."""
KEPT = {MODEL: (LONGEST, 96, 16, 1), ACCOUNT: (LONGEST, 96, 16), BOTH: (LONGEST,)}
"""The lengths that are always kept of what was used."""
BUSY = (96, 16, 4)
"""And of BOTH for a busy account, within periods of LONGEST in which it is one."""
UNDONE = {MODEL: (LONGEST, 96, 16, 1), ACCOUNT: (LONGEST, 96, 16, 1), BOTH: (LONGEST, 96, 16, 4, 1)}
"""The lengths that are kept of what reversals undid."""
BUSY_CALLS = 2048
"""An account is busy in a period of LONGEST from so many calls on: `calls` of its sum of ACCOUNT, of kind USED."""

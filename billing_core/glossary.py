"""What is kept in short codes, in words for people; programs get the codes."""

from .i18n import N_

TYPES = {
    "deduct": N_("Charge"),
    "precharge": N_("Held"),
    "settle": N_("Settled"),
    "refund": N_("Refund"),
    "expire": N_("Hold expired"),
    "recharge": N_("Recharge"),
    "reversal": N_("Reversal"),
}
"""Of entries."""
DEBIT = N_("Debit")
"""A recharge below 0."""
STATUSES = {"active": N_("Active"), "frozen": N_("Frozen")}
ROLES = {"member": N_("Member"), "admin": N_("Admin")}
RIGHTS = {"": N_("reads its own account"), "charge": N_("charges calls"), "admin": N_("does what an admin may")}
"""Of keys."""
SOURCES = {"database": N_("Set here"), "catalogue": N_("Built in"), "default": N_("Default")}
"""Of prices."""
KINDS = {
    "price": N_("Prices"),
    "account": N_("Accounts"),
    "password": N_("Passwords"),
    "key": N_("Keys"),
    "setting": N_("Settings"),
    "session": N_("Signing in"),
    "reversals": N_("Reversals of many entries"),
    "repricings": N_("Repricings of many entries"),
    "setup": N_("The first admin"),
    "database": N_("The database"),
}
"""Of what the audit log holds: what stands before the point of an action."""

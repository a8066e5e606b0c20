"""Where the database is, and which revision of its tables this code works with."""

import os
from pathlib import Path

DEFAULT_FILE = Path(__file__).resolve().parent.parent / "data" / "billing.db"
REVISION = "0010"
"""The schema's revision that this code works with: the newest in migrations/versions."""


def database_url() -> str:
    """BILLING_DATABASE_URL, else SQLite in data/billing.db."""
    url = os.environ.get("BILLING_DATABASE_URL", "").strip()
    return url or f"sqlite:///{DEFAULT_FILE}"

"""`python -m billing_core`: everything that the app does, for a shell. See shell/."""

from .shell import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()

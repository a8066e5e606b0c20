"""The front door: `streamlit run app.py` serves the pages and, on the same port, the HTTP API.

Streamlit uses this file twice. The server imports it as a module and finds `app`; each visit to a page runs it as a
script, whose name is then `__main__`.
"""

if __name__ == "__main__":
    from pages.parts import frame

    frame.show()
else:
    import gc

    gc.set_threshold(100_000, 20, 20)  # importing makes many objects and no rubbish
    import logging
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    import streamlit as st
    from starlette.middleware import Middleware
    from streamlit import config
    from streamlit.runtime.pages_manager import PagesManager

    import api
    from api import sessions
    from billing_core import keeper, signin
    from billing_core.database import open_database
    from billing_core.errors import BillingError
    from billing_core.i18n import environment_language, translate
    from pages.parts import frame

    # Without this, a visit to /recharge right after the start would run pages/recharge.py alone, past any sign-in.
    PagesManager.uses_pages_directory = False

    @asynccontextmanager
    async def at_start(_app: st.App) -> AsyncIterator[None]:
        """Open the database, and print the first admin's link while there is none."""
        try:
            secret = open_database().write(signin.setup_link)
            if secret:
                url = f"http://{config.get_option('browser.serverAddress')}:{config.get_option('server.port')}"
                says = translate("Make yourself the first admin (valid once, for a day):", environment_language())
                print(f"\n  {says}\n\n  {url}/?setup={secret}\n", flush=True)
        except (BillingError, OSError) as error:
            logging.getLogger("billing").error("%s", error)  # each page says the same to whoever opens it
        ended = keeper.start(open_database)
        # Streamlit looks for rubbish after every run of a page, with everybody waiting: not among what the start has made.
        gc.collect()
        gc.freeze()
        yield
        ended.set()

    app = st.App(
        __file__,
        lifespan=at_start,
        middleware=[Middleware(api.Door)],
        routes=sessions.ROUTES,
        on_script_error=frame.unexpected,
    )

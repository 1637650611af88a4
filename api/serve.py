"""The application as servers start it: with its logs as JSON lines. ``uvicorn api.serve:app --factory``."""

import gc

from starlette.types import ASGIApp

from api.app import create_app
from api.zero_copy import ZeroCopy
from store import logs


def app() -> ASGIApp:
    """uvicorn has set up its own logs by now; these replace them."""
    logs.configure()
    served = ZeroCopy(create_app())
    gc.collect()
    gc.freeze()  # what is loaded stays: looking through it for garbage took a tenth of the time of a busy server
    gc.set_threshold(10_000, 50, 100)  # looking through all that is kept held everybody up for 30 to 50 ms
    return served

"""The application as servers start it: with its logs as JSON lines. ``uvicorn api.serve:app --factory``."""

from starlette.types import ASGIApp

from api.app import create_app
from api.zero_copy import ZeroCopy
from store import logs


def app() -> ASGIApp:
    """uvicorn has set up its own logs by now; these replace them."""
    logs.configure()
    return ZeroCopy(create_app())

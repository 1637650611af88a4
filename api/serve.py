"""The application as servers start it: with its logs as JSON lines. ``uvicorn api.serve:app --factory``."""

from fastapi import FastAPI

from api.app import create_app
from store import logs


def app() -> FastAPI:
    """uvicorn has set up its own logs by now; these replace them."""
    logs.configure()
    return create_app()

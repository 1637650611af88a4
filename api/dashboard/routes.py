"""The dashboard: pages drawn by the server, each in a module of its own, and what they are made of."""

from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse

from api.dashboard import (
    admin_page,
    compare_page,
    job_page,
    jobs_page,
    reference_page,
    report_page,
    sign_in,
    static,
    submit_page,
    team_page,
)
from api.dashboard.visitor import SignInNeededError, to_sign_in

PAGES = (reference_page, sign_in, jobs_page, job_page, submit_page, report_page, compare_page, team_page, admin_page)

_start = APIRouter()


@_start.get("/")
def start() -> RedirectResponse:
    """There is no start page: jobs are what people come for."""
    return RedirectResponse("/jobs", status_code=303)


def install(app: FastAPI) -> None:
    """The pages, which the OpenAPI document does not have; whoever has to be known for one is sent to sign in."""
    app.add_exception_handler(SignInNeededError, to_sign_in)
    for router in (_start, static.router, *(each.router for each in PAGES)):
        app.include_router(router, include_in_schema=False)

"""The pages there are, by what they are called: where, of a job that made one model and of a sweep."""

from collections.abc import Callable

PAGES: dict[str, Callable[[list[str]], str]] = {
    "jobs": lambda ids: "/jobs",
    "no jobs": lambda ids: "/jobs?model=sample:none",
    "jobs by labels": lambda ids: "/jobs?label=team=vision&label=stage",
    "submit": lambda ids: "/submit",
    "submit a sweep": lambda ids: "/submit?goal=target_ratios",
    "a job": lambda ids: f"/jobs/{ids[0]}",
    "a sweep": lambda ids: f"/jobs/{ids[1]}",
    "a report": lambda ids: f"/jobs/{ids[0]}/report",
    "a sweep's report": lambda ids: f"/jobs/{ids[1]}/report",
    "a report of a sweep's model": lambda ids: f"/jobs/{ids[1]}/report?ratio=0.6",
    "picking": lambda ids: "/compare",
    "compare": lambda ids: f"/compare?jobs={','.join(ids)}",
    "compare the models of a sweep": lambda ids: f"/compare?jobs={ids[1]}",
    "team": lambda ids: "/team",
}
ADMINISTRATORS = ["/admin", "/admin/owners/lena"]
ANYBODYS = [("/sign-in", 200), ("/docs", 200), ("/nothing", 404)]

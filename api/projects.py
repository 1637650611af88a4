"""Projects: an owner's jobs, grouped."""

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from api.dependencies import Limit, NameCursor, next_cursor
from api.errors import BODY_STATUSES, responses
from api.idempotency import Once
from api.identity import Reader, Submitter
from api.resources import Database
from api.schemas_identity import NAME, Project, ProjectPage, ProjectRequest
from store import owners
from store.errors import ProjectExistsError, ProjectNotFoundError
from store.session import transaction

router = APIRouter(prefix="/v1/projects", tags=["projects"])


def _name(name: Annotated[str, Path(description="Among yours")]) -> str:
    if not re.fullmatch(NAME, name):
        raise ProjectNotFoundError(name)
    return name


Name = Annotated[str, Depends(_name)]


@router.post(
    "",
    name="create_project",
    summary="Add a project",
    status_code=HTTPStatus.CREATED,
    response_description="Added; `Location` is the project",
    responses=responses(ProjectExistsError, statuses=BODY_STATUSES),
)
def create(body: ProjectRequest, asking: Submitter, once: Once, request: Request, response: Response) -> Project:
    """Jobs name it as their `project`; those that name none are in `default`."""
    with once.transaction() as session:
        view = owners.create_project(session, asking.owner_id, body.name)
        response.headers["Location"] = request.url_for("get_project", name=view.name).path
        return once.answered(Project.model_validate(view))


@router.get("", name="list_projects", summary="List projects")
def list_(asking: Reader, engine: Database, cursor: NameCursor, limit: Limit = 50) -> ProjectPage:
    """Yours, by name."""
    with transaction(engine, read_only=True) as session:
        page = owners.list_projects(session, asking.owner_id, cursor=cursor, limit=limit)
    return ProjectPage(
        items=[Project.model_validate(view) for view in page.items],
        next_cursor=next_cursor(page),
    )


@router.get("/{name}", name="get_project", summary="Show a project", responses=responses(ProjectNotFoundError))
def get(name: Name, asking: Reader, engine: Database) -> Project:
    """One of yours; another owner's is not found."""
    with transaction(engine, read_only=True) as session:
        return Project.model_validate(owners.get_project(session, asking.owner_id, name))

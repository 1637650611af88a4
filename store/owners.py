"""Owners and their projects. No function commits."""

from collections.abc import Collection
from functools import cache
from typing import TypeVar

from sqlalchemy import Select, bindparam, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.errors import OwnerExistsError, OwnerNotFoundError, ProjectExistsError, ProjectNotFoundError
from store.session import now
from store.tables import LOCAL_ID, Owner, Project
from store.values import Identity, Limits, OwnerView, Page, Place, ProjectView, Scope

Named = TypeVar("Named", OwnerView, ProjectView)

DEFAULT_PROJECT = "default"
LOCAL = Place(owner_id=LOCAL_ID, project_id=LOCAL_ID)  # a migration made both rows
LOCAL_IDENTITY = Identity(owner_id=LOCAL_ID, owner="local", scopes=frozenset(Scope), key_id=None)


def create(session: Session, name: str, limits: Limits = Limits()) -> Place:  # noqa: B008 - frozen
    """A new owner with its default project. Raises ``OwnerExistsError``; the transaction is over then."""
    at = now(session)
    owner = Owner(
        name=name,
        created_at=at,
        max_running=limits.max_running,
        max_daily=limits.max_daily,
        max_bytes=limits.max_bytes,
    )
    session.add(owner)
    try:
        session.flush()
    except IntegrityError as error:
        raise OwnerExistsError(name) from error
    project = Project(owner_id=owner.id, name=DEFAULT_PROJECT, created_at=at)
    session.add(project)
    session.flush()
    return Place(owner.id, project.id)


def find(session: Session, name: str) -> str:
    """The id of the owner of that name. Raises ``OwnerNotFoundError``."""
    return _named(session, name).id


def get(session: Session, name: str, *, to_change: bool = False) -> OwnerView:
    """``to_change``: nobody else changes it until the transaction ends. Raises ``OwnerNotFoundError``."""
    return _view(_named(session, name, locked=to_change))


def list_(session: Session, *, cursor: str | None = None, limit: int = 50) -> Page[OwnerView]:
    """By name, behind the name ``cursor``."""
    query = select(Owner).order_by(Owner.name).limit(limit + 1)
    rows = session.scalars(query if cursor is None else query.where(Owner.name > cursor)).all()
    return _page([_view(row) for row in rows], limit)


def set_limits(session: Session, name: str, limits: Limits) -> OwnerView:
    """For jobs and bytes to come: nothing is stopped or deleted. Raises ``OwnerNotFoundError``."""
    owner = _named(session, name, locked=True)
    owner.max_running, owner.max_daily, owner.max_bytes = limits.max_running, limits.max_daily, limits.max_bytes
    session.flush()
    return _view(owner)


def limits(session: Session, owner_id: str) -> Limits:
    """Of an owner that is there."""
    return _view(session.get_one(Owner, owner_id)).limits


def place(session: Session, owner_id: str, project: str = DEFAULT_PROJECT) -> Place:
    """Raises ``ProjectNotFoundError``."""
    return Place(owner_id, _project(session, owner_id, project).id)


def unlimited(session: Session, asked: Collection[tuple[str, str]]) -> dict[tuple[str, str], Place]:
    """The places of those of the owners, by their ids and their projects' names, who may submit and store what they
    like; who names a project that is not there is left out, too."""
    rows = session.execute(_unlimited(), {"asked": list(asked)})
    return {(row.owner_id, row.name): Place(row.owner_id, row.id) for row in rows}


@cache  # to build it takes longer than to run it
def _unlimited() -> Select[str, str, str]:
    asked = tuple_(Project.owner_id, Project.name).in_(bindparam("asked", expanding=True))
    it = select(Project.owner_id, Project.name, Project.id).join(Owner)
    return it.where(asked, Owner.max_daily.is_(None), Owner.max_bytes.is_(None))


def create_project(session: Session, owner_id: str, name: str) -> ProjectView:
    """Raises ``ProjectExistsError``; the transaction is over then."""
    project = Project(owner_id=owner_id, name=name, created_at=now(session))
    session.add(project)
    try:
        session.flush()
    except IntegrityError as error:
        raise ProjectExistsError(name) from error
    return _project_view(project)


def get_project(session: Session, owner_id: str, name: str) -> ProjectView:
    """Raises ``ProjectNotFoundError``."""
    return _project_view(_project(session, owner_id, name))


def list_projects(session: Session, owner_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[ProjectView]:
    """By name, behind the name ``cursor``."""
    query = select(Project).where(Project.owner_id == owner_id).order_by(Project.name).limit(limit + 1)
    rows = session.scalars(query if cursor is None else query.where(Project.name > cursor)).all()
    return _page([_project_view(row) for row in rows], limit)


def _named(session: Session, name: str, *, locked: bool = False) -> Owner:
    query = select(Owner).where(Owner.name == name)
    if locked:
        query = query.with_for_update().execution_options(populate_existing=True)
    owner = session.scalar(query)
    if owner is None:
        raise OwnerNotFoundError(name)
    return owner


def _project(session: Session, owner_id: str, name: str) -> Project:
    project = session.scalar(select(Project).where(Project.owner_id == owner_id, Project.name == name))
    if project is None:
        raise ProjectNotFoundError(name)
    return project


def _page(views: list[Named], limit: int) -> Page[Named]:
    return Page(tuple(views[:limit]), views[limit - 1].name if len(views) > limit else None)


def _view(owner: Owner) -> OwnerView:
    return OwnerView(owner.name, owner.created_at, Limits(owner.max_running, owner.max_daily, owner.max_bytes))


def _project_view(project: Project) -> ProjectView:
    return ProjectView(project.name, project.created_at)

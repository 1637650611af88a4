"""Owners and their projects. No function commits."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import OwnerNotFoundError, ProjectNotFoundError
from store.session import now
from store.tables import LOCAL_ID, Owner, Project
from store.values import Identity, Place, Scope

DEFAULT_PROJECT = "default"
LOCAL = Place(owner_id=LOCAL_ID, project_id=LOCAL_ID)  # a migration made both rows
LOCAL_IDENTITY = Identity(owner_id=LOCAL_ID, owner="local", scopes=frozenset(Scope), key_id=None)


def create(session: Session, name: str) -> Place:
    """A new owner with its default project. The name must be free: see ``find``."""
    at = now(session)
    owner = Owner(name=name, created_at=at)
    session.add(owner)
    session.flush()
    project = Project(owner_id=owner.id, name=DEFAULT_PROJECT, created_at=at)
    session.add(project)
    session.flush()
    return Place(owner.id, project.id)


def find(session: Session, name: str) -> str:
    """The id of the owner of that name. Raises ``OwnerNotFoundError``."""
    owner_id = session.scalar(select(Owner.id).where(Owner.name == name))
    if owner_id is None:
        raise OwnerNotFoundError(name)
    return owner_id


def place(session: Session, owner_id: str, project: str = DEFAULT_PROJECT) -> Place:
    """Raises ``ProjectNotFoundError``."""
    project_id = session.scalar(select(Project.id).where(Project.owner_id == owner_id, Project.name == project))
    if project_id is None:
        raise ProjectNotFoundError(project)
    return Place(owner_id, project_id)

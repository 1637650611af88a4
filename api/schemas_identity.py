"""Keys, owners and projects, as they go over the wire."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, StringConstraints, model_validator

from api.schemas import NextCursor, RequestBody, ResponseBody, Text
from store.keys import LONGEST_OVERLAP
from store.values import Scope

LONGEST_LIFE = timedelta(days=3660)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"

Slug = Annotated[str, StringConstraints(pattern=NAME)]

_LIMITS: dict[str, Any] = {"max_running": 4, "max_daily": 100, "max_bytes": 500_000_000_000}
_KEY: dict[str, Any] = {
    "id": "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57",
    "owner": "vision",
    "name": "nightly build",
    "prefix": "vp_3fa98c01d2b7",
    "role": "member",
    "scopes": ["read", "submit"],
    "created_at": "2026-11-24T09:30:00Z",
    "expires_at": "2027-11-24T00:00:00Z",
    "last_used_at": "2026-11-24T10:15:00Z",
    "revoked_at": None,
}
_SECRET = _KEY | {"last_used_at": None, "key": "vp_3fa98c01d2b7_" + "x" * 43}
_OWNER: dict[str, Any] = {"name": "vision", "created_at": "2026-11-24T09:00:00Z", "limits": _LIMITS}
_PROJECT: dict[str, Any] = {"name": "lenses", "created_at": "2026-11-24T09:00:00Z"}


class Role(StrEnum):
    """A short name for the scopes of a key."""

    VIEWER = "viewer"  # read
    MEMBER = "member"  # read, submit
    ADMIN = "admin"  # read, submit, admin

    @property
    def scope(self) -> Scope:
        """The last of its scopes, which includes the others."""
        return list(Scope)[list(Role).index(self)]


def _ahead(at: datetime) -> datetime:
    """The clock is this process's: a second more or less does no harm here."""
    if not timedelta(0) < at - datetime.now(UTC) < LONGEST_LIFE:
        raise ValueError(f"expected a time to come, within {LONGEST_LIFE.days} days")
    return at


class KeyRequest(RequestBody):
    """With either a ``role`` or ``scopes``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "nightly build", "role": "member", "expires_at": "2027-11-24T00:00:00Z"}]
        }
    )

    name: Annotated[Text, Field(description="For people; need not be unique")]
    role: Annotated[Role | None, Field(description="`viewer` reads, `member` submits as well, `admin` may all")] = None
    scopes: Annotated[
        list[Scope] | None, Field(min_length=1, max_length=3, description="Each includes those before it")
    ] = None
    expires_at: Annotated[
        Annotated[AwareDatetime, AfterValidator(_ahead)] | None,
        Field(description="A key never outlives the one that made it; null: it does not expire sooner"),
    ] = None
    owner: Annotated[Slug | None, Field(description="Whose key it will be; another's needs `admin`")] = None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if (self.role is None) == (self.scopes is None):
            raise ValueError("expected either a role or scopes")
        return self

    @property
    def wanted(self) -> list[Scope]:
        """By ``role`` or by ``scopes``, whichever is given."""
        return [self.role.scope] if self.role else self.scopes or []


class RotateRequest(RequestBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=int(LONGEST_OVERLAP.total_seconds()),
            description="How long the old key stays valid beside the new one",
        ),
    ] = 0


class Key(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    id: str
    owner: str
    name: str
    prefix: Annotated[str, Field(description="How the key begins; the rest is known to whoever was given it")]
    role: Role
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[datetime | None, Field(description="To the minute")]
    revoked_at: datetime | None


class NewKey(Key):
    model_config = ConfigDict(json_schema_extra={"examples": [_SECRET]})

    key: Annotated[str, Field(description="The whole key. It is shown this once")]


class KeyPage(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_KEY], "next_cursor": None}]})

    items: list[Key]
    next_cursor: NextCursor


class Limits(ResponseBody):
    """Null is none."""

    max_running: Annotated[int | None, Field(description="Jobs at the same time")]
    max_daily: Annotated[int | None, Field(description="Jobs submitted in any 24 hours")]
    max_bytes: Annotated[int | None, Field(description="Stored: artifacts, models, datasets, uploads")]


class LimitsRequest(RequestBody):
    """What is left out stays; null is no limit, 0 lets nothing more in."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LIMITS]})

    max_running: Annotated[int | None, Field(ge=0, lt=2**31, description="Jobs at the same time")] = None
    max_daily: Annotated[int | None, Field(ge=0, lt=2**31, description="Jobs submitted in any 24 hours")] = None
    max_bytes: Annotated[int | None, Field(ge=0, lt=2**63, description="Stored")] = None


class OwnerRequest(RequestBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "vision", "limits": _LIMITS}]})

    name: Annotated[Slug, Field(description="Of a person or team; it stays")]
    limits: LimitsRequest = LimitsRequest()


class Owner(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_OWNER]})

    name: str
    created_at: datetime
    limits: Limits


class OwnerPage(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_OWNER], "next_cursor": None}]})

    items: list[Owner]
    next_cursor: NextCursor


class ProjectRequest(RequestBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "lenses"}]})

    name: Annotated[Slug, Field(description="Among yours; it stays")]


class Project(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_PROJECT]})

    name: str
    created_at: datetime


class ProjectPage(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_PROJECT], "next_cursor": None}]})

    items: list[Project]
    next_cursor: NextCursor


class WhoAmI(ResponseBody):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "auth": "keys",
                    "owner": "vision",
                    "role": "member",
                    "scopes": ["read", "submit"],
                    "limits": _LIMITS,
                    "key": _KEY,
                }
            ]
        }
    )

    auth: Annotated[Literal["keys", "local"], Field(description="`local`: this machine alone, without keys")]
    owner: str
    role: Role
    scopes: list[Scope]
    limits: Limits
    key: Annotated[Key | None, Field(description="The one that was asked with; null in local mode")]

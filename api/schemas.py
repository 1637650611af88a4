"""What goes over the wire. Requests forbid what they do not know; responses have no defaults, so none is forgotten."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from core import catalog
from core.progress import Stage
from core.recipe import Recipe
from core.report import Constraint
from store.states import EventKind, JobState
from vitpress.plan import Plan

# PostgreSQL's text cannot hold NUL, and no control character belongs into a name.
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LABEL_WANTED = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}(=[^\x00-\x1f\x7f-\x9f]{1,200})?"
LabelWanted = Annotated[str, StringConstraints(pattern=f"^{LABEL_WANTED}$")]
Labels = Annotated[dict[LabelKey, Text], Field(max_length=32, description="Free key-value pairs, to find the job by")]

Notes = Annotated[
    str,
    StringConstraints(max_length=10_000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$"),
    Field(description="For people; may have lines"),
]
NextCursor = Annotated[str | None, Field(description="The `cursor` of the next page; null on the last one")]
Priority = Annotated[int, Field(ge=-10, le=10, description="Larger first, among your own jobs")]


class RequestBody(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResponseBody(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


def _default_method(recipe: Any) -> Any:
    return {"method": "fisher"} | recipe if isinstance(recipe, dict) else recipe


RecipeRequest = Annotated[
    Recipe, BeforeValidator(_default_method), Field(description="What to do; without a `method` it is `fisher`")
]

_PLAN_EXAMPLE: dict[str, Any] = {"model": "sample:vit_fmnist", "recipe": {"method": "fisher", "target_ratio": 0.5}}
JOB_EXAMPLE = _PLAN_EXAMPLE | {
    "dataset": "sample:fashion-mnist",
    "name": "half the size",
    "labels": {"team": "vision"},
}


class PlanRequest(RequestBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_PLAN_EXAMPLE]})

    model: Annotated[Text, Field(description="A name of the catalogue, or your own: `own:<name>`")]
    recipe: RecipeRequest


def _samples_own(given: dict[str, Any]) -> str | None:
    return catalog.dataset_of(given.get("model", ""))


def _named(dataset: object) -> object:
    if dataset is None:
        raise PydanticCustomError("missing", "a dataset is needed, because the model is no sample with one of its own")
    return dataset


class JobRequest(PlanRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    dataset: Annotated[
        Text,
        BeforeValidator(_named),
        Field(
            default_factory=_samples_own,
            validate_default=True,
            description="Calibrates the compression, and tells what it cost; a sample model has one of its own",
        ),
    ]
    project: Annotated[Text, Field(description="One of yours")] = "default"
    name: Annotated[Text | None, Field(description="For people; need not be unique")] = None
    labels: Labels = {}
    notes: Notes | None = None
    priority: Priority = 0
    device: Annotated[Literal["any", "gpu"], Field(description="`gpu`: workers with one alone")] = "any"
    device_tag: Annotated[
        Tag | None, Field(description="Workers that were given this tag alone; `GET /v1/queue` tells if none is there")
    ] = None
    timeout_seconds: Annotated[
        int | None,
        Field(
            ge=10, le=7 * 24 * 3600, description="Of one attempt's running time; waiting in the queue does not count"
        ),
    ] = None


class JobError(ResponseBody):
    code: str
    message: str


class JobLinks(ResponseBody):
    """Paths on this server."""

    self: str
    events: str
    plan: str
    report: str
    artifacts: str
    cancel: str


class Job(ResponseBody):
    id: str
    project: str
    name: str | None
    labels: dict[str, str]
    notes: str | None
    revision: Annotated[int, Field(description="Of name, labels, notes and priority; in quotes it is the `ETag`")]
    model: str
    dataset: str
    recipe: Annotated[Recipe, Field(description="As it was resolved at submission, with every default")]
    timeout_seconds: int | None
    priority: int
    device: Literal["any", "gpu"]
    device_tag: str | None
    memory_bytes: Annotated[
        int | None, Field(description="Estimated peak on the device; workers with less are not given the job")
    ]
    state: JobState
    stage: Stage | None
    stage_fraction: Annotated[float, Field(description="Of the stage that is done, in [0, 1]")]
    stage_loss: Annotated[float | None, Field(description="Of a stage that trains, smoothed; null in the others")]
    stage_eta_seconds: Annotated[
        float | None, Field(description="Estimated by the stage, to its own end; null where it cannot tell")
    ]
    attempt: int
    max_attempts: int
    position: Annotated[
        int | None,
        Field(
            description="In the queue, from 1; null once the job has left it, and while 1,000 of your own are before it"
        ),
    ]
    eta_seconds: Annotated[
        float | None, Field(description="Estimated, from now to the end; null where there is no estimate")
    ]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    artifacts_deleted_at: Annotated[
        datetime | None, Field(description="Since when the server no longer keeps the artifacts; the report stays")
    ]
    error: JobError | None
    constraint: Annotated[
        Constraint | None,
        Field(description="What was asked for, and what came of it; null for a sweep: see its report"),
    ]
    links: JobLinks


class JobPage(ResponseBody):
    items: list[Job]
    next_cursor: NextCursor


class JobEvent(ResponseBody):
    """``data`` of one server-sent event, named by its ``kind``; a ``snapshot`` opens a stream that resumes nothing."""

    kind: EventKind | Literal["snapshot"]
    state: JobState
    stage: Stage | None
    fraction: float
    loss: Annotated[float | None, Field(description="Of a stage that trains, smoothed; null in the others")]
    eta_seconds: Annotated[
        float | None, Field(description="Estimated by the stage, to its own end; null where it cannot tell")
    ]
    attempt: int
    message: str | None
    at: datetime


class ProjectEvent(JobEvent):
    """``data`` of one server-sent event of a project's stream, named by its ``kind``."""

    kind: EventKind
    job_id: str


class ProjectOpened(ResponseBody):
    """``data`` of the event ``opened``, which begins a project's stream: its id is where that begins."""

    project: str


class Artifact(ResponseBody):
    name: str
    size: Annotated[int, Field(description="Bytes")]
    sha256: str
    media_type: str
    url: Annotated[str, Field(description="A path on this server")]


class ArtifactList(ResponseBody):
    items: list[Artifact]


class DryRun(ResponseBody):
    """What a recipe would do to a model by its shapes alone, with no data to tell the layers apart."""

    model: str
    recipe: Annotated[Recipe, Field(description="With every default")]
    ratio: Annotated[float, Field(description="Fraction of the parameters removed")]
    plan: Plan


class Health(ResponseBody):
    status: Literal["ok"]


class Readiness(ResponseBody):
    status: Literal["ok"]
    checks: dict[str, Literal["ok"]]


class FieldProblem(BaseModel):
    """What is wrong with one field. An unknown name brings its ``near`` matches or all ``known`` ones along, an
    unreachable target the largest ``reachable`` one."""

    model_config = ConfigDict(extra="allow")

    pointer: Annotated[
        str, Field(description="JSON Pointer into the request body", examples=["/recipe/target_ratio"])
    ] = ""
    field: Annotated[str, Field(description="Name of a query, path or header parameter", examples=["limit"])] = ""
    code: str
    message: str
    near: list[str] = []
    known: list[str] = []
    requested: float | None = None
    reachable: float | None = None


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(examples=["urn:vitpress:problem:job_not_found"])]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="Path of the request")]
    code: Annotated[str, Field(description="Stable name of the problem", examples=["job_not_found"])]
    errors: list[FieldProblem] = []

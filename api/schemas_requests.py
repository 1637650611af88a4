"""What changes, repeats, compares and measures jobs, over the wire."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from api.schemas import (
    JOB_EXAMPLE,
    Job,
    JobRequest,
    Labels,
    Notes,
    Priority,
    RecipeRequest,
    RequestBody,
    ResponseBody,
    Text,
)
from core.report import Latency, Proportion

MOST_JOBS = 100  # in a batch


def _not_given() -> Any:
    """What a job has anyway, where a change does not say."""
    return None


class JobUpdate(RequestBody):
    """What is not given stays. ``labels`` replace all that were there."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"notes": "the one we ship", "labels": {"team": "vision", "stage": "final"}}]},
    )

    name: Annotated[Text | None, Field(description="For people; need not be unique")] = None
    labels: Annotated[Labels, Field(default_factory=dict)]
    notes: Notes | None = None
    priority: Annotated[Priority, Field(default_factory=int)]


class CloneRequest(JobRequest):
    """What the new job has otherwise. What is not given is as in the job that is cloned."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"recipe": {"method": "fisher", "target_ratio": 0.6}}]})

    model: Annotated[Text, Field(default_factory=_not_given)]
    dataset: Annotated[Text, Field(default_factory=_not_given)]
    recipe: Annotated[RecipeRequest, Field(default_factory=_not_given)]


class BatchRequest(RequestBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"jobs": [JOB_EXAMPLE]}]})

    jobs: Annotated[list[JobRequest], Field(min_length=1, max_length=MOST_JOBS)]


class Batch(ResponseBody):
    items: Annotated[list[Job], Field(description="In the order in which they were given")]


class Dominated(ResponseBody):
    """Whether another model that it is comparable with is no worse and somewhere better. Null: it cannot be told."""

    overall: Annotated[bool, Field(description="By parameters, MACs and error together, as in a sweep's table")]
    by_parameters: Annotated[bool, Field(description="By parameters and error")]
    by_macs: Annotated[bool, Field(description="By MACs and error")]
    by_latency: Annotated[
        bool | None, Field(description="By the median latency of one image and error; null: measured elsewhere")
    ]


class ComparedModel(ResponseBody):
    """One model of a job; a sweep has several."""

    job_id: str
    job_name: str | None
    model: str
    dataset: str
    method: str
    ratio: Annotated[float, Field(description="Fraction of the parameters removed")]
    requested: Annotated[float, Field(description="In the terms of the goal")]
    goal: str
    parameters: int
    macs: Annotated[int, Field(description="Multiply-accumulates of one image")]
    latency: tuple[Latency, ...]
    top1: Annotated[Proportion, Field(description="With its 95 % interval")]
    relative_increase_in_error: Annotated[float | None, Field(description="Null: the original made no error")]
    kl_nats: float
    dominated: Dominated
    report: Annotated[str, Field(description="A path on this server")]


class Comparison(ResponseBody):
    items: list[ComparedModel]
    comparable: Annotated[
        bool, Field(description="All are of one model, and judged on the same images: their errors can be compared")
    ]
    warnings: Annotated[list[str], Field(description="Why they cannot, and what else differs")]


class Storage(ResponseBody):
    """Bytes. Uploads count by the length that they announced."""

    used_bytes: int
    artifacts_bytes: int
    models_bytes: int
    datasets_bytes: int
    uploads_bytes: int
    limit_bytes: Annotated[int | None, Field(description="Null: none")]

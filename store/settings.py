"""Everything that an installation can set, as ``VITPRESS_…`` environment variables.

The defaults are those of the embedded stack.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Directory = Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]


def _with_driver(url: str) -> str:
    """``postgresql://`` is what everybody writes; SQLAlchemy would take it for psycopg2."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in {"postgres", "postgresql"} else url


def _samples_dir() -> Path:
    """The repository's samples, whether the package runs from it or merely beside it."""
    beside_the_package = Path(__file__).resolve().parents[1] / "samples"
    return beside_the_package if beside_the_package.is_dir() else Path("samples").resolve()


def _in_data_dir(prefix: str, name: str) -> Any:
    return Field(default_factory=lambda data: f"{prefix}{data['data_dir']}/{name}")


class Settings(BaseSettings):
    """Frozen. What is invalid raises pydantic's ``ValidationError``, which does not repeat it."""

    model_config = SettingsConfigDict(env_prefix="VITPRESS_", frozen=True, hide_input_in_errors=True)  # has passwords

    data_dir: Directory = Path(".vitpress").resolve()
    database_url: Annotated[str, AfterValidator(_with_driver)] = _in_data_dir("sqlite:///", "vitpress.db")
    database_connections: PositiveInt = 15  # of each process, at most
    broker_url: str | None = None  # redis://…; the stack sets it to its embedded Valkey
    blob_url: str = _in_data_dir("file://", "blobs")  # or s3://bucket/prefix
    s3_endpoint: str | None = None  # what is None here is taken from AWS_…
    s3_region: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    samples_dir: Directory = Field(default_factory=_samples_dir)
    datasets_dir: Directory | None = None  # its sub-folders are the datasets local:<folder>

    lease_seconds: PositiveFloat = 20
    heartbeat_seconds: PositiveFloat = 4
    sweep_seconds: PositiveFloat = 15  # lease + sweep: a dead worker's job waits again within 35 s
    max_attempts: PositiveInt = 3
    job_timeout_seconds: PositiveInt = 4 * 3600  # of one attempt's running time, where a job says nothing
    kill_grace_seconds: PositiveFloat = 5  # between SIGTERM and SIGKILL
    device: Literal["auto", "cpu", "gpu"] = "auto"
    worker_tags: tuple[str, ...] = ()  # as a JSON list; a job may ask for one

    auth: Literal["keys", "local"] = "keys"  # local: nobody needs a key, and only this machine is served
    dataset_roots: tuple[Directory, ...] = ()  # as a JSON list: under these, owners may name directories as datasets
    upload_dir: Directory = Field(default_factory=lambda data: data["data_dir"] / "uploads")  # shared by API processes
    upload_hours: PositiveFloat = 48  # an upload that is not used for so long is deleted
    max_upload_bytes: PositiveInt = 50 << 30
    cache_dir: Directory = Field(default_factory=lambda data: data["data_dir"] / "cache")  # unpacked datasets
    cache_bytes: PositiveInt = 100 << 30
    hub_token: SecretStr | None = None
    hub_allowed: tuple[str, ...] = ("timm/*",)  # as a JSON list: patterns of hub ids that owners may name
    artifact_days: PositiveFloat | None = None  # artifacts of jobs that ended earlier are deleted; None: kept
    presigned_seconds: PositiveInt | None = None  # downloads are redirected to S3 links of that life; None: never
    webhook_private: bool = False  # whether webhooks may go to private addresses

    @model_validator(mode="after")
    def _two_heartbeats_fit_in_a_lease(self) -> Self:
        if self.lease_seconds <= 2 * self.heartbeat_seconds:
            raise ValueError(
                f"lease_seconds must exceed two heartbeats, got {self.lease_seconds} and {self.heartbeat_seconds}"
            )
        return self


@lru_cache
def get_settings() -> Settings:
    """Those of the environment, as it was when somebody first asked."""
    return Settings()

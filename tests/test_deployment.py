"""The container files, as far as they can be judged without an engine."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from store.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = ("migrate", "api", "worker-gpu", "worker-cpu")
FINAL = ("api", "worker")


@dataclass(frozen=True)
class Stage:
    base: str
    instructions: tuple[tuple[str, str], ...]

    def of(self, kind: str) -> list[str]:
        return [text for name, text in self.instructions if name == kind]


def stages() -> dict[str, Stage]:
    """The Dockerfile by stage; continued lines are joined, comments and build arguments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found: dict[str, Stage] = {}
    name = ""
    for instruction, rest in (line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("ARG")):
        if instruction == "FROM":
            base, _, name = rest.split()
            found[name] = Stage(base, ())
        else:
            before = found[name]
            found[name] = Stage(before.base, (*before.instructions, (instruction, rest)))
    return found


def lineage(name: str) -> Iterator[Stage]:
    """A stage, and the stages that it is built on."""
    while name in stages():
        yield stages()[name]
        name = stages()[name].base


def environment(service: str) -> dict[str, Any]:
    return dict(COMPOSE["services"][service].get("environment", {}))


class TestTheDockerfile:
    def test_has_nothing_that_hadolint_objects_to(self) -> None:
        ran = subprocess.run(
            [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ran.returncode, ran.stdout) == (0, "")

    def test_copies_what_exists_and_the_context_holds(self) -> None:
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        sources = [
            source
            for stage in stages().values()
            for copy in stage.of("COPY")
            if not copy.startswith("--from")
            for source in copy.split()[:-1]
        ]
        assert sources
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored

    def test_copies_from_stages_that_exist(self) -> None:
        for stage in stages().values():
            for copy in stage.of("COPY"):
                if copy.startswith("--from="):
                    assert copy.removeprefix("--from=").split()[0] in stages()

    @pytest.mark.parametrize("name", FINAL)
    def test_runs_under_a_fixed_user_that_is_not_root(self, name: str) -> None:
        assert stages()[name].of("USER") == ["10001:10001"]

    @pytest.mark.parametrize("name", FINAL)
    def test_starts_its_command_without_a_shell_and_says_whether_it_is_well(self, name: str) -> None:
        [command] = stages()[name].of("CMD")
        [health] = stages()[name].of("HEALTHCHECK")
        assert command.startswith("[")
        assert re.search(r"CMD \[", health)
        assert any(stage.of("STOPSIGNAL") == ["SIGTERM"] for stage in lineage(name))

    def test_installs_every_package_of_the_server_into_both_images(self) -> None:
        packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
        top_level = {package.partition(".")[0] for package in packages}
        for name in ("build-api", "build-worker"):
            copied = {source for copy in stages()[name].of("COPY") for source in copy.split()[:-1]}
            assert top_level <= copied

    @pytest.mark.parametrize(("name", "lock"), [("build-api", "api"), ("build-worker", "worker")])
    def test_installs_what_is_locked_and_nothing_else(self, name: str, lock: str) -> None:
        locked, ours = [run for run in stages()[name].of("RUN") if "pip install" in run]
        assert locked.endswith(f"pip install --require-hashes --requirement locks/{lock}.txt")
        assert ours.endswith("pip install --no-cache-dir --no-deps --no-build-isolation ./client .")


class TestCompose:
    def test_gives_only_settings_that_exist(self) -> None:
        settings = {f"VITPRESS_{name.upper()}" for name in Settings.model_fields}
        for service in OURS:
            assert environment(service)
            assert set(environment(service)) - {"FORWARDED_ALLOW_IPS"} <= settings  # that one is uvicorn's
        example = re.findall(r"^#?(VITPRESS_[A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
        assert set(example) <= settings

    def test_gives_urls_that_the_settings_understand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environment("api").items():
            if value is not None and name.startswith("VITPRESS_"):
                monkeypatch.setenv(name, re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}", r"\1", value))
        settings = Settings()
        assert settings.database_url.startswith("postgresql+psycopg://vitpress:@postgres:5432/")
        assert settings.blob_url == f"file://{mounts('api')['blobs']}"
        assert str(settings.datasets_dir) == mounts("api")["${DATASETS_DIR:-./datasets}"]

    def test_lets_nobody_in_without_a_key(self) -> None:
        assert {environment(service)["VITPRESS_AUTH"] for service in OURS} == {"keys"}

    def test_builds_targets_that_exist(self) -> None:
        for service in OURS:
            assert COMPOSE["services"][service]["build"]["target"] in FINAL

    def test_has_no_password_of_its_own(self) -> None:
        """Each must be set, or nothing starts."""
        for line in (ROOT / ".env.example").read_text().splitlines():
            if "PASSWORD" in line and "=" in line and not line.startswith("#"):
                assert line.endswith("=")
        text = (ROOT / "docker-compose.yml").read_text()
        for use in re.findall(r"\$\{\w*PASSWORD[^}]*\}", text):
            assert ":?" in use

    def test_opens_the_api_alone_and_to_this_machine_alone(self) -> None:
        ports = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
        assert ports == {"api": ["${API_LISTEN:-127.0.0.1:8000}:8000"]}

    @pytest.mark.parametrize("service", COMPOSE["services"])
    def test_takes_from_every_service_what_it_does_not_need(self, service: str) -> None:
        described = COMPOSE["services"][service]
        assert described["read_only"] is True
        assert described["cap_drop"] == ["ALL"]
        assert described["security_opt"] == ["no-new-privileges:true"]
        if service not in OURS:
            assert described["user"] != "0"

    def test_starts_nothing_before_what_it_needs_is_well(self) -> None:
        for service in ("api", "worker-gpu", "worker-cpu"):
            conditions = {name: need["condition"] for name, need in COMPOSE["services"][service]["depends_on"].items()}
            assert conditions == {
                "postgres": "service_healthy",
                "valkey": "service_healthy",
                "migrate": "service_completed_successfully",
            }
        assert all("healthcheck" in COMPOSE["services"][name] for name in ("postgres", "valkey"))

    def test_keeps_in_volumes_what_must_last(self) -> None:
        used = {source for service in COMPOSE["services"] for source in mounts(service) if "/" not in source}
        assert used == set(COMPOSE["volumes"])

    def test_lets_every_process_write_where_the_settings_say(self) -> None:
        """All else is read-only, and what a volume is first mounted over must belong to the user."""
        settings = Settings(data_dir=Path("/var/lib/vitpress"))
        places = {"api": {settings.upload_dir}, "worker-cpu": {settings.cache_dir, Path("/var/lib/vitpress/hub")}}
        [made] = [run for run in stages()["base"].of("RUN") if "install --directory" in run]
        for service, directories in places.items():
            targets = {Path(volume.split(":")[1]) for volume in writable(service)}
            assert directories | {Path("/var/lib/vitpress/blobs")} <= targets
            assert {str(target) for target in targets} <= set(made.split())

    def test_gives_a_gpu_to_the_gpu_worker(self) -> None:
        [device] = COMPOSE["services"]["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert environment("worker-gpu")["VITPRESS_DEVICE"] == "gpu"


def writable(service: str) -> list[str]:
    return [volume for volume in COMPOSE["services"][service]["volumes"] if not volume.endswith(":ro")]


def mounts(service: str) -> dict[str, str]:
    """The places in the container by their sources."""
    found = {}
    for volume in COMPOSE["services"][service].get("volumes", []):
        source, target = re.match(r"(\$\{[^}]*\}|[^:]+):([^:]+)", volume).groups()  # type: ignore[union-attr]
        found[source] = target
    return found

import threading
from pathlib import Path
from typing import Any

import pytest
from live_server import DATASET, MODEL, LiveServer, plan, report

from core.progress import Stage
from examples import SWEEP_REPORT
from vitpress import Client, JobHandle
from vitpress.errors import (
    ConflictError,
    InvalidRequestError,
    JobFailedError,
    NotFoundError,
    RatioError,
    WaitTimeoutError,
)
from vitpress.values import JobState


def submitted(client: Client, name: str | None = None) -> JobHandle:
    return client.compress(MODEL, dataset=DATASET, target_ratio=0.5, name=name)


class TestCompress:
    def test_submits_a_job_with_all_that_was_said_of_it(self, client: Client) -> None:
        handle = client.compress(
            MODEL,
            dataset=DATASET,
            target_ratio=0.3,
            rank_budget=0.9,
            seed=7,
            name="third",
            labels={"team": "vision"},
            timeout_seconds=60,
        )
        job = client.get(handle.id)
        assert (job.state, job.position, job.model, job.dataset) == (JobState.QUEUED, 1, MODEL, DATASET)
        assert (job.name, job.labels, job.timeout_seconds) == ("third", {"team": "vision"}, 60)
        assert (job.recipe["target_ratio"], job.recipe["rank_budget"], job.recipe["seed"]) == (0.3, 0.9, 7)
        assert job.created_at.utcoffset() is not None

    def test_of_an_unknown_model_and_dataset_names_both_and_what_there_is(self, client: Client) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            client.compress("sample:vit_fmnits", dataset="local:none", target_ratio=0.5)
        model, dataset = caught.value.errors
        assert (model.pointer, dataset.pointer) == ("/model", "/dataset")
        assert MODEL in model.near
        assert DATASET in dataset.known

    def test_of_an_unreachable_target_says_what_is_reachable(self, client: Client) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            client.compress(MODEL, dataset=DATASET, target_ratio=0.9, rank_budget=0.1, prune_budget=0.1)
        [error] = caught.value.errors
        assert error.pointer == "/recipe/target_ratio"
        assert error.reachable is not None
        assert 0 < error.reachable < 0.9

    def test_of_an_option_that_the_server_does_not_know_names_it(self, client: Client) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            client.compress(MODEL, dataset=DATASET, target_ratio=0.5, rank_bugdet=0.5)
        assert [error.pointer for error in caught.value.errors] == ["/recipe/rank_bugdet"]


class TestADryRun:
    def test_gives_the_plan_that_the_shapes_allow(self, client: Client) -> None:
        assert client.dry_run(MODEL, target_ratio=0.5) == plan()


class TestJobs:
    def test_are_listed_newest_first_over_all_pages(self, client: Client) -> None:
        ids = [submitted(client).id for _ in range(5)]
        assert [job.id for job in client.jobs(page=2)] == ids[::-1]

    def test_are_listed_by_their_state(self, client: Client) -> None:
        first, second = submitted(client), submitted(client)
        first.cancel()
        assert [job.id for job in client.jobs(state="queued")] == [second.id]

    def test_are_listed_by_their_names_and_labels(self, client: Client) -> None:
        for name, labels in (("A half", {"team": "vision", "stage": "final"}), ("half", {"team": "speech"})):
            client.compress(MODEL, dataset=DATASET, target_ratio=0.5, name=name, labels=labels)

        def listed(**query: Any) -> list[str | None]:
            return [job.name for job in client.jobs(page=1, dataset=DATASET, **query)]

        assert listed(name="HALF") == ["half", "A half"]
        assert listed(labels={"team": None}) == ["half", "A half"]
        assert listed(labels={"team": "vision", "stage": None}) == ["A half"]
        assert listed(name="a", labels={"team": "speech"}) == ["half"]
        with pytest.raises(InvalidRequestError):
            listed(labels={"two words": None})

    def test_that_do_not_exist_are_not_found(self, client: Client) -> None:
        with pytest.raises(NotFoundError, match="no-such-job"):
            client.job("no-such-job")


class TestCancelling:
    def test_ends_a_queued_job(self, client: Client) -> None:
        handle = submitted(client)
        assert handle.cancel().state is JobState.CANCELLED
        with pytest.raises(JobFailedError, match="cancelled"):
            handle.wait()

    def test_a_finished_job_is_a_conflict(self, client: Client) -> None:
        handle = submitted(client)
        handle.cancel()
        with pytest.raises(ConflictError):
            handle.cancel()


class TestEvents:
    def test_tell_of_a_job_while_it_runs(self, client: Client, server: LiveServer) -> None:
        handle = submitted(client)
        heard = handle.events()
        assert next(heard).kind == "snapshot"
        claim = server.claim()
        assert next(heard).state is JobState.RUNNING
        server.progress(claim, Stage.COMPRESS, 0.25)
        event = next(heard)
        assert (event.kind, event.stage, event.fraction) == ("stage", "compress", 0.25)
        server.succeed(claim)
        assert [(each.kind, each.state) for each in heard] == [("state", JobState.SUCCEEDED)]

    def test_tell_the_whole_story_of_a_finished_job(self, client: Client, server: LiveServer) -> None:
        handle = submitted(client)
        claim = server.claim()
        server.progress(claim, Stage.LOAD, 1.0)
        server.succeed(claim)
        assert [each.kind for each in handle.events(after="0")] == ["state", "state", "stage", "state"]
        assert [each.kind for each in handle.events()] == ["snapshot"]


class TestWaiting:
    def test_returns_when_the_job_succeeded(self, client: Client, server: LiveServer) -> None:
        handle = submitted(client)
        claim = server.claim()
        worker = threading.Thread(target=server.finish, args=(claim,))
        worker.start()
        assert handle.wait(timeout=30).job.state is JobState.SUCCEEDED
        worker.join()

    def test_raises_with_the_reason_when_the_job_failed(self, client: Client, server: LiveServer) -> None:
        handle = submitted(client)
        server.fail(server.claim(), "bad_dataset", "two images are no dataset")
        with pytest.raises(JobFailedError, match="two images are no dataset") as caught:
            handle.wait()
        assert caught.value.job.error is not None
        assert caught.value.job.error.code == "bad_dataset"

    def test_raises_when_its_time_is_up_and_leaves_the_job_alone(self, client: Client) -> None:
        handle = submitted(client)
        with pytest.raises(WaitTimeoutError) as caught:
            handle.wait(timeout=0.05)
        assert caught.value.job.state is JobState.QUEUED
        assert handle.refresh().state is JobState.QUEUED


class TestTheResult:
    def test_is_refused_until_there_is_one(self, client: Client) -> None:
        handle = submitted(client)
        for ask in (handle.report, handle.plan):
            with pytest.raises(ConflictError) as caught:
                ask()
            assert caught.value.code == "report_not_ready"

    def test_has_the_workers_report_and_plan(self, client: Client, server: LiveServer) -> None:
        handle = submitted(client)
        server.succeed(server.claim())
        assert handle.report().model_dump(mode="json") == report().model_dump(mode="json")
        assert handle.plan() == plan()
        assert handle.refresh().constraint == handle.report().constraint

    def test_is_downloaded_as_the_worker_stored_it(self, client: Client, server: LiveServer, tmp_path: Path) -> None:
        files = {"model.safetensors": bytes(range(251)) * 10_007, "config.json": b"{}"}
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        handle = submitted(client)
        server.succeed(server.claim(), *(tmp_path / name for name in files))
        got = handle.download(tmp_path / "got")
        assert {path.name: path.read_bytes() for path in got.iterdir()} == files

    def test_whose_download_broke_is_continued_by_the_real_server(
        self, client: Client, server: LiveServer, tmp_path: Path
    ) -> None:
        content = bytes(range(251)) * 997
        (tmp_path / "model.safetensors").write_bytes(content)
        handle = submitted(client)
        server.succeed(server.claim(), tmp_path / "model.safetensors")
        [artifact] = handle.artifacts()
        got = tmp_path / "got"
        got.mkdir()
        (got / f".model.safetensors.{artifact.sha256[:12]}.part").write_bytes(content[:100_003])
        counts: list[int] = []
        client.download(handle.id, got, lambda _, count: counts.append(count))
        assert counts[0] > 100_003
        assert [path.read_bytes() for path in got.iterdir()] == [content]

    def test_loads_as_the_model_that_the_worker_had(
        self, client: Client, server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import timm
        import torch

        from vitpress.artifact import ModelConfig, Preprocessing, save

        kwargs: dict[str, Any] = {"img_size": 28, "patch_size": 14, "in_chans": 1, "num_classes": 3}
        kwargs |= {"embed_dim": 24, "depth": 1, "num_heads": 2}
        model = timm.create_model("vit_tiny_patch16_224", pretrained=False, **kwargs).eval()
        preprocessing = Preprocessing(input_size=(1, 28, 28), mean=(0.5,), std=(0.25,))
        config = ModelConfig(architecture="vit_tiny_patch16_224", kwargs=kwargs, preprocessing=preprocessing)
        save(model, config, None, tmp_path / "made")
        handle = submitted(client)
        server.succeed(server.claim(), *(tmp_path / "made").iterdir())

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        loaded = handle.wait().load()
        image = torch.randn(2, 1, 28, 28)
        assert torch.equal(loaded(image), model(image))
        assert (tmp_path / "cache" / "vitpress" / handle.id / "model.safetensors").is_file()


class TestWhatThereIs:
    def test_models_are_found_by_words_of_their_name(self, client: Client) -> None:
        [model] = client.models.list("vit_fmnist")
        assert (model.name, model.input_size, model.num_classes) == (MODEL, (1, 28, 28), 10)
        assert client.models.get(MODEL).parameters == model.parameters == plan().parameters_before

    def test_models_come_over_all_pages(self, client: Client) -> None:
        names = [model.name for model in client.models.list("vit_small", page=3)]
        assert len(names) == len(set(names)) > 3

    def test_datasets_have_their_classes_and_splits(self, client: Client) -> None:
        found = {dataset.name: dataset for dataset in client.datasets.list()}
        assert found[DATASET].classes == ("a", "b")
        assert found[DATASET].splits == ("calibration", "evaluation")


class TestASweep:
    @pytest.fixture
    def handle(self, client: Client, server: LiveServer) -> JobHandle:
        """Of one that has succeeded, for 0.3 and 0.5."""
        handle = client.sweep(MODEL, dataset=DATASET, target_ratios=(0.5, 0.3), seed=7)
        server.succeed_in_sweep(server.claim())
        return handle

    def test_is_one_job_for_several_ratios(self, client: Client, handle: JobHandle) -> None:
        recipe = client.get(handle.id).recipe
        assert (recipe["target_ratios"], recipe["target_ratio"], recipe["seed"]) == ([0.3, 0.5], None, 7)

    def test_compares_its_models(self, handle: JobHandle) -> None:
        report = handle.sweep_report()
        assert report.model_dump(mode="json") == SWEEP_REPORT.model_dump(mode="json")
        assert [row.folder for row in report.table] == ["ratio-0.3", "ratio-0.5"]

    def test_has_a_report_and_a_plan_for_each_ratio(self, handle: JobHandle) -> None:
        for ratio, known in zip((0.3, 0.5), SWEEP_REPORT.reports, strict=True):
            assert handle.report(ratio=ratio).model_dump(mode="json") == known.model_dump(mode="json")
            assert handle.plan(ratio=ratio) == plan(ratio)

    def test_has_to_be_told_which_model(self, handle: JobHandle) -> None:
        for ask in (handle.report, handle.load):
            with pytest.raises(RatioError, match=r"a model for each of 0\.3, 0\.5"):
                ask()
        with pytest.raises(InvalidRequestError):
            handle.plan()

    def test_is_downloaded_in_a_folder_for_each_model(self, handle: JobHandle, tmp_path: Path) -> None:
        got = handle.download(tmp_path / "got")
        assert {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()} == {
            "report.json",
            "ratio-0.3/model.safetensors",
            "ratio-0.3/plan.json",
            "ratio-0.5/model.safetensors",
            "ratio-0.5/plan.json",
        }
        assert (got / "ratio-0.3" / "model.safetensors").read_bytes() == b"three tenths"

    def test_gives_one_model_alone_without_its_folder(self, handle: JobHandle, tmp_path: Path) -> None:
        got = handle.download(tmp_path / "got", ratio=0.5)
        assert {path.name for path in got.iterdir()} == {"model.safetensors", "plan.json"}
        assert (got / "model.safetensors").read_bytes() == b"a half"

    def test_has_no_model_for_another_ratio(self, handle: JobHandle, tmp_path: Path) -> None:
        with pytest.raises(RatioError, match=r"no model for the ratio 0\.4"):
            handle.download(tmp_path / "got", ratio=0.4)

    def test_is_not_what_a_single_model_is(self, client: Client, server: LiveServer, tmp_path: Path) -> None:
        handle = submitted(client)
        server.succeed(server.claim())
        with pytest.raises(RatioError, match="needs no ratio"):
            handle.download(tmp_path / "got", ratio=0.5)


class TestOtherGoals:
    @pytest.mark.parametrize(
        "goal",
        [{"target_macs": 0.4}, {"target_latency": 0.3, "latency_batch": 32}, {"max_error_increase": 0.05}],
    )
    def test_take_the_place_of_the_ratio(self, client: Client, goal: dict[str, Any]) -> None:
        recipe = client.compress(MODEL, dataset=DATASET, **goal).job.recipe
        assert goal.items() <= recipe.items()
        assert recipe["target_ratio"] is None

    def test_of_macs_have_a_dry_run(self, client: Client) -> None:
        found = client.dry_run(MODEL, target_macs=0.4)
        assert 1 - found.macs_after / found.macs_before == pytest.approx(0.4, abs=0.01)

import pytest

from core import catalog
from core.architectures import Arguments, InputChanges
from core.errors import UnknownModelError
from steps import Steps
from store import checks, jobs, own_models, owners
from store.blobs import Stored
from store.columns import uuid7
from store.errors import ModelExistsError, ModelInUseError, ModelNotReadyError
from store.own_models import Wanted
from store.owners import LOCAL
from store.states import CheckState, JobKind
from store.values import JobError

NAME = "own:shoes"
SAMPLE = catalog.get("sample:vit_digits")
WANTED = Wanted(preprocessing=InputChanges(mean=(0.25,)), class_names=("boot", "sandal"))


def bring(steps: Steps, owner_id: str = LOCAL.owner_id) -> str:
    """The id of a model that waits for its check."""
    model_id = uuid7()
    steps.do(
        own_models.create,
        owner_id,
        "shoes",
        model_id=model_id,
        architecture="vit_tiny_patch16_224",
        arguments=Arguments(depth=3, img_size=(7, 11)),
        wanted=WANTED,
        stored=Stored(1013, "ab" * 32),
    )
    steps.do(checks.enqueue, LOCAL, JobKind.CHECK_MODEL, model_id)
    return model_id


def decide(steps: Steps, error: JobError | None = None) -> None:
    config = {
        "architecture": "vit_tiny_patch16_224",
        "preprocessing": {"input_size": (1, 7, 11), "mean": (0.25,), "std": (0.5,)},
    }
    found = {"shape": SAMPLE.shape.model_dump(mode="json"), "config": config, "parameters": SAMPLE.parameters}
    rejected = {"details": {"differences": {"missing": {"total": 1, "names": ["a"]}}}}
    steps.do(checks.finish_check, steps.claim(), error, stage_seconds={}, **(rejected if error else found))


class TestAModel:
    def test_keeps_what_was_said_of_it_for_its_check(self, steps: Steps) -> None:
        model_id = bring(steps)
        view = steps.do(own_models.by_id, model_id)
        assert (view.state, view.wanted, view.size) == (CheckState.CHECKING, WANTED, 1013)
        assert view.arguments.given() == {"depth": 3, "img_size": [7, 11]}
        assert view.blob_key == f"models/{model_id}/model.safetensors"
        with pytest.raises(ModelNotReadyError, match="still being checked"):
            steps.do(own_models.ready, LOCAL.owner_id, NAME)

    def test_that_passed_is_ready_with_its_shape(self, steps: Steps) -> None:
        model_id = bring(steps)
        decide(steps)
        view = steps.do(own_models.ready, LOCAL.owner_id, NAME)
        assert view.config is not None
        assert view.config.preprocessing.input_size == (1, 7, 11)
        assert steps.do(own_models.shape, model_id) == SAMPLE.shape

    def test_that_did_not_says_why(self, steps: Steps) -> None:
        bring(steps)
        decide(steps, JobError("checkpoint_mismatch", "it does not fit"))
        view = steps.do(own_models.get, LOCAL.owner_id, NAME)
        assert (view.state, view.error) == (CheckState.REJECTED, JobError("checkpoint_mismatch", "it does not fit"))
        assert view.details == {"differences": {"missing": {"total": 1, "names": ["a"]}}}
        with pytest.raises(ModelNotReadyError, match="it does not fit"):
            steps.do(own_models.ready, LOCAL.owner_id, NAME)

    def test_is_its_owners_alone(self, steps: Steps) -> None:
        bring(steps)
        with pytest.raises(ModelExistsError):
            bring(steps)
        other = steps.do(owners.create, "others").owner_id
        assert steps.do(own_models.list_, other) == []
        for step in (own_models.get, own_models.remove, own_models.ready):
            with pytest.raises(UnknownModelError) as caught:
                steps.do(step, other, NAME)
            assert caught.value.near == []
        bring(steps, other)

    def test_that_a_job_needs_stays(self, steps: Steps) -> None:
        bring(steps)
        job = steps.submit(model=NAME)
        with pytest.raises(ModelInUseError, match=job.id):
            steps.do(own_models.remove, LOCAL.owner_id, NAME)
        steps.do(jobs.request_cancel, job.id)
        steps.do(own_models.remove, LOCAL.owner_id, NAME)
        assert steps.do(own_models.names, LOCAL.owner_id) == []

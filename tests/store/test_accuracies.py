"""What jobs have measured of the models that they began with."""

from examples import PLAN, REPORT, SWEEP_RECIPE, SWEEP_REPORT
from steps import Steps
from store import accuracies, attempts, owners
from store.accuracies import Accuracy
from store.owners import LOCAL
from store.tables import LOCAL_ID


class TestMeasured:
    def test_is_that_of_the_last_job_of_the_owner_by_model(self, steps: Steps) -> None:
        worse = REPORT.before.accuracy.top1.model_copy(update={"value": 0.25})
        before = REPORT.before.model_copy(
            update={"accuracy": REPORT.before.accuracy.model_copy(update={"top1": worse})}
        )
        other = steps.do(owners.create, "anna")
        for place, dataset, report in (
            (LOCAL, "sample:shirts", REPORT),
            (LOCAL, "sample:hats", REPORT.model_copy(update={"before": before})),
            (other, "sample:shoes", REPORT),
        ):
            steps.submit(place=place, dataset=dataset)
            steps.do(attempts.finish, steps.claim(), plan=PLAN, report=report, artifacts=[], stage_seconds={})
        steps.submit(model="sample:other")

        assert steps.do(accuracies.measured, LOCAL_ID) == {"sample:vit": Accuracy("sample:hats", 0.25)}

    def test_is_told_by_a_sweep_too(self, steps: Steps) -> None:
        steps.submit(recipe=SWEEP_RECIPE)
        plans = [PLAN for _ in SWEEP_REPORT.reports]
        steps.do(attempts.finish, steps.claim(), plan=plans, report=SWEEP_REPORT, artifacts=[], stage_seconds={})

        top1 = SWEEP_REPORT.reports[0].before.accuracy.top1.value
        assert steps.do(accuracies.measured, LOCAL_ID) == {"sample:vit": Accuracy("sample:shirts", top1)}

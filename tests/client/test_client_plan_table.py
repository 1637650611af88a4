from rich.console import Console

from vitpress.plan import Attention, FeedForward, LowRankSparse, Plan
from vitpress.tables import plan_table

COUNTS = {"parameters_before": 1000, "parameters_after": 500, "predicted_loss": None}


class TestPlanTable:
    def test_says_what_each_kind_of_layer_becomes(self) -> None:
        plan = Plan(
            parameters_before=3000,
            parameters_after=1500,
            macs_before=10,
            macs_after=5,
            layers=(
                Attention(
                    path="a", in_features=24, out_features=24, heads_before=3, heads=3, head_dim_before=8, qk_dim=8,
                    v_dim=5, inputs=19, **COUNTS,
                ),
                FeedForward(path="b", in_features=24, out_features=24, width_before=96, width=31, inputs=17, **COUNTS),
                FeedForward(path="c", in_features=24, out_features=24, width_before=96, width=31, **COUNTS),
                LowRankSparse(path="d", in_features=24, out_features=72, rank=3, neurons=11, **COUNTS),
            ),
        )  # fmt: skip
        console = Console(width=200, record=True)
        console.print(plan_table(plan))
        text = console.export_text()
        assert "3 of 3 heads, dimensions 8 and 5 of 8, reads 19 of 24" in text
        assert "width 31 of 96, reads 17 of 24" in text
        assert text.count("reads") == 2
        assert "rank 3, and 11 of 72 outputs" in text

"""What a report says and draws, without a server: sentences that hold, charts that have the numbers."""

import re

import pytest

from api.dashboard.confusion_charts import confusion
from api.dashboard.layer_charts import kept, spectra
from api.dashboard.report_charts import MOST_BINS, Drawn, accuracy, divergence, latency, self_check
from api.dashboard.report_page import Drawing, Drawings
from api.dashboard.report_text import comparison, constraint, data_use, verdict, warnings
from core.evidence import ConfusionCell, LatencySamples, Spectrum, SpectrumPoint
from core.report import Constraint, FinetuneReport, LayerCheck, McNemar, Report
from examples import PLAN, REPORT, SWEEP_REPORT


def paired(lost: int, won: int, p: float) -> Report:
    mcnemar = McNemar(only_before_right=lost, only_after_right=won, p_value=p)
    return REPORT.model_copy(update={"change": REPORT.change.model_copy(update={"mcnemar": mcnemar})})


def increased(by: float | None) -> Report:
    change = REPORT.change.model_copy(update={"relative_increase_in_error": by})
    return REPORT.model_copy(update={"change": change})


def text(report: Report) -> str:
    return " ".join(each.sentence for each in verdict(report))


class TestTheVerdict:
    @pytest.mark.parametrize(
        ("lost", "won", "p", "said"),
        [
            (17, 7, 0.064, "do not show that one of them is better"),
            (71, 7, 1e-9, "the smaller model is worse"),
            (7, 71, 1e-9, "the smaller model is better"),
            (0, 0, 1.0, "no image that only one of the two gets right"),
        ],
    )
    def test_goes_by_the_paired_test(self, lost: int, won: int, p: float, said: str) -> None:
        assert said in text(paired(lost, won, p))

    @pytest.mark.parametrize(
        ("by", "said"),
        [
            (0.125, "12.5 % more mistakes than the original makes"),
            (-0.02, "2.0 % fewer mistakes"),
            (0.0, "as many mistakes as the original"),
            (None, "The original made no mistake"),
        ],
    )
    def test_tells_how_the_errors_grew(self, by: float | None, said: str) -> None:
        assert said in text(increased(by))

    def test_breaks_no_line_before_a_unit(self) -> None:
        said = " ".join(each.text for each in verdict(REPORT))
        assert "91.00\u00a0%" in said
        assert " %" not in said


class TestTheConstraint:
    def test_of_a_ratio_has_both_fractions(self) -> None:
        said = constraint(Constraint(requested=0.5, achieved=0.412, met=False))
        assert said.kind == "bad"
        assert said.sentence == ("Asked for: 50.0 % of the parameters removed; achieved: 41.20 %. The goal is not met.")

    def test_of_an_error_says_where_it_was_measured(self) -> None:
        found = Constraint(kind="max_error_increase", requested=0.1, achieved=0.05, met=True)
        said = constraint(found)
        assert said.kind == "good"
        assert "increased by at most 10.0 %" in said.sentence
        assert "measured on the evaluation images: 5.00 %" in said.sentence
        untold = constraint(found.model_copy(update={"achieved": None}))
        assert "nothing was wrong before" in untold.sentence


class TestWarnings:
    def test_are_of_what_weakens_the_result(self) -> None:
        few = REPORT.before.accuracy.model_copy(update={"images": 101})
        finetune = FinetuneReport(
            steps=11,
            epochs=1.0,
            held_out_loss_before=0.1,
            held_out_loss_after=0.2,
            kept="training_free",
            stopped_early=True,
            seconds=7.0,
            resumed_from_step=None,
            warnings=("stopped before its time",),
        )
        report = REPORT.model_copy(
            update={
                "after": REPORT.after.model_copy(update={"accuracy": few}),
                "data": REPORT.data.model_copy(update={"overlapping_images_dropped": 3}),
                "finetune": finetune,
                "reload_max_abs_difference": 0.02,
            }
        )
        said = [each.sentence for each in warnings(report)]
        assert len(said) == 5
        assert said[0].startswith("3 calibration images were found among the evaluation images")
        assert said[1].startswith("With 101 evaluation images the interval is 2.0 points wide")
        assert said[2] == "Stopped before its time."
        assert said[4].endswith("differ by up to 0.02.")

    def test_are_none_of_a_sound_report(self) -> None:
        assert warnings(REPORT) == []

    def test_data_that_was_split_is_told_from_data_that_was_given(self) -> None:
        split = REPORT.model_copy(update={"data": REPORT.data.model_copy(update={"source": "split"})})
        assert "given as such" in data_use(REPORT)
        assert "divided at random" in data_use(split)


def test_the_comparison_has_every_measure() -> None:
    lines = {each.what: each for each in comparison(REPORT)}
    assert list(lines) == ["Parameters", "MACs of one image", "File", "Latency, batch 1", "Top-1 accuracy"]
    assert lines["Parameters"].change == "−50.3 %"
    assert lines["Top-1 accuracy"].change == "−1.00 points"
    assert lines["Top-1 accuracy"].spread == ("91.00 – 93.00", "90.00 – 92.00")
    assert lines["Latency, batch 1"].change == "1.00× as fast"


def figure(drawn: Drawn) -> str:
    assert drawn.figure is not None
    return str(drawn.figure)


class TestDrawn:
    def test_tells_columns_of_numbers(self) -> None:
        rows = [("1", "−2.5 %", "1e-07", "91.00 – 93.00 %", "a 3"), ("2", "–", "1,234", "90.1 – 92.2 %", "4")]
        drawn = Drawn("key", "title", None, ("one", "two", "three", "four", "five"), rows)
        assert drawn.heads == ("one", "#two", "#three", "#four", "five")


class TestAccuracy:
    def test_of_a_sweep_joins_the_front_and_names_every_model(self) -> None:
        drawn = accuracy(SWEEP_REPORT, ["−30 %", "−50 %"])
        assert [row[0] for row in drawn.rows] == ["original", "−30 %", "−50 %"]
        assert drawn.rows[1] == ("−30 %", "840,001", "91.50 %", "90.50 – 92.50 %")
        for name in ("original", "−30 %", "−50 %"):
            assert f">{name}</text>" in figure(drawn)
        assert "no other beats" in figure(drawn)

    def test_divergences_of_a_sweep_name_every_model(self) -> None:
        drawn = divergence(SWEEP_REPORT, ["−30 %", "−50 %"])
        assert [row[:2] for row in drawn.rows] == [("−30 %", "840,001"), ("−50 %", "596,209")]
        for name in ("−30 %", "−50 %"):
            assert f">{name}</text>" in figure(drawn)


class TestSelfCheck:
    CHECKS = (
        LayerCheck(path="blocks.0.attn", predicted_loss=0.002, measured_kl=0.003),
        LayerCheck(path="blocks.0.mlp", predicted_loss=0.01, measured_kl=0.007),
        LayerCheck(path="blocks.1.mlp", predicted_loss=None, measured_kl=0.001),
        LayerCheck(path="blocks.2.mlp", predicted_loss=0.0, measured_kl=0.0),
    )

    def test_has_every_layer_in_the_table_and_those_with_both_on_the_chart(self) -> None:
        drawn = self_check(self.CHECKS)
        assert drawn.rows[0] == ("blocks.0.attn", "2", "3", "1.50")
        assert drawn.rows[2] == ("blocks.1.mlp", "–", "1", "–")
        assert len(drawn.rows) == 4
        named = re.findall(r'aria-label="(blocks\.\d\.\w+)"', figure(drawn))
        assert sorted(named) == ["blocks.0.attn", "blocks.0.mlp"]

    def test_is_in_the_unit_that_leaves_few_zeros(self) -> None:
        small = LayerCheck(path="blocks.0.attn", predicted_loss=3e-7, measured_kl=2e-6)
        drawn = self_check([small])
        assert drawn.head[1] == "Predicted, µnat"
        assert drawn.rows[0][1:3] == ("0.3", "2")

    def test_without_any_prediction_draws_nothing(self) -> None:
        assert self_check(self.CHECKS[2:]).figure is None


class TestLatency:
    def test_counts_every_pass_once(self) -> None:
        times = LatencySamples(batch=1, measured=7, before_ms=(3.0, 3.1, 3.1, 3.2, 3.4, 3.5, 90.0), after_ms=(2.0,) * 7)
        drawn = latency([times])
        bars = re.findall(r'aria-label="(before|after): (\d+) of 7"', figure(drawn))
        for side in ("before", "after"):
            assert sum(int(count) for name, count in bars if name == side) == 7  # the outlier among them
        assert len(bars) <= 2 * MOST_BINS
        assert "median 3.2 ms" in figure(drawn)
        assert drawn.rows[0] == ("1", "before", "3", "3", "3.2", "90", "90", "7")

    def test_of_equal_times_is_drawn(self) -> None:
        same = LatencySamples(batch=1, measured=2, before_ms=(2.0, 2.0), after_ms=(2.0, 2.0))
        assert "<svg" in figure(latency([same]))


class TestConfusion:
    CELLS = (
        ConfusionCell(0, 0, 50, 41),
        ConfusionCell(0, 1, 0, 2),
        ConfusionCell(0, 2, 3, 10),
        ConfusionCell(1, 0, 5, 1),
        ConfusionCell(1, 1, 40, 44),
        ConfusionCell(2, 2, 60, 60),
    )

    def test_ranks_the_wrong_pairs_by_how_much_they_changed(self) -> None:
        _, pairs = confusion(self.CELLS, ["a", "b", "c"])
        assert [row[:2] + row[4:] for row in pairs.rows] == [("a", "c", "+7"), ("b", "a", "−4"), ("a", "b", "+2")]

    def test_counts_in_whole_images(self) -> None:
        _, pairs = confusion(self.CELLS[:2], ["a", "b"])  # one pair, of two images more
        labels = re.findall(r">([^<>]+)</text>", figure(pairs))
        assert [each for each in labels if each.strip("+−").isdigit()] == ["0", "+1", "+2"]

    def test_has_a_map_of_all_that_changed_where_classes_are_few(self) -> None:
        drawn, _ = confusion(self.CELLS, ["a", "b", "c"])
        assert drawn.key == "confusion"
        named = re.findall(r'aria-label="(\w answered \w: [^"]*)"', figure(drawn))
        assert sorted(named) == [
            "a answered a: 50 before, 41 after",
            "a answered b: 0 before, 2 after",
            "a answered c: 3 before, 10 after",
            "b answered a: 5 before, 1 after",
            "b answered b: 40 before, 44 after",
        ]

    def test_of_many_classes_has_the_pairs_alone(self) -> None:
        many = [str(number) for number in range(1000)]
        assert [each.key for each in confusion(self.CELLS, many)] == ["pairs"]

    def test_without_a_change_draws_nothing(self) -> None:
        assert [each.figure for each in confusion(self.CELLS[-1:], ["a", "b", "c"])] == [None, None]


class TestLayers:
    def test_tell_what_is_left_of_each_size(self) -> None:
        drawn = kept(PLAN)
        assert drawn.rows[0][1] == "heads 2 of 3, q, k 31 of 67, v 47 of 67, qkv rank 61 of 192"
        assert drawn.rows[1][1] == "width 383 of 769, fc2 rank 89 of 193"
        assert drawn.rows[2][1] == "as it was"
        assert "blocks.0.mlp: width 383 of 769" in figure(drawn)

    def test_spectra_have_a_chart_a_part_and_a_panel_a_layer(self) -> None:
        points = tuple(SpectrumPoint(place, 10.0**-place) for place in range(1, 12))
        found = [
            Spectrum(path=f"blocks.{block}.{layer}", part=part, unit="nats", count=11, kept=7, points=points)
            for block in range(3)
            for layer, part in (("attn", "qkv"), ("mlp", "fc1"))
        ]
        drawn = spectra(found)
        assert [each.key for each in drawn] == ["spectra-qkv", "spectra-fc1"]
        for each in drawn:
            assert [label for label in ("blocks.0", "blocks.1", "blocks.2") if f">{label}</text>" in figure(each)] == [
                "blocks.0",
                "blocks.1",
                "blocks.2",
            ]
            assert each.rows[0][1:] == ("7", "11", "0.1", "1e-07")

    def test_spectra_of_any_length_are_drawn(self) -> None:
        for count, kept_ in ((1, 1), (1, 0), (2, 1), (3001, 1009)):
            points = tuple(SpectrumPoint(place, 3.0 / place) for place in range(1, count + 1))
            found = Spectrum(path="blocks.0.attn", part="qkv", unit="nats", count=count, kept=kept_, points=points)
            [drawn] = spectra([found])
            assert ">blocks.0</text>" in figure(drawn)
            assert len(figure(drawn)) < 20_000  # as many points as there are pixels

    def test_spectra_that_are_zero_throughout_are_a_table_alone(self) -> None:
        nothing = Spectrum(
            path="blocks.0.attn", part="qkv", unit="nats", count=2, kept=1, points=(SpectrumPoint(1, 0.0),)
        )
        [drawn] = spectra([nothing])
        assert drawn.figure is None
        assert len(drawn.rows) == 1


class TestWhatWasDrawn:
    def test_is_kept_for_the_last_ones_that_were_asked_for(self) -> None:
        drawings = Drawings(most=2)
        first, second, third = (Drawing([], missing=each) for each in "abc")
        drawings.put("first", first)
        drawings.put("second", second)
        assert drawings.get("first") is first  # which makes it the later one
        drawings.put("third", third)
        assert drawings.get("second") is None
        assert (drawings.get("first"), drawings.get("third")) == (first, third)

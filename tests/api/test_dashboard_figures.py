"""Numbers and times, as the pages tell them."""

from datetime import UTC, datetime

import pytest

from api.dashboard import figures
from core.report import Constraint


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (4_610_000_000, "4.61 GB"),
    ],
)
def test_sizes_have_three_digits(given: int | None, told: str) -> None:
    assert figures.size(given) == told


@pytest.mark.parametrize(
    ("given", "told"), [(None, "–"), (0, "0"), (999, "999"), (999.6, "1 k"), (21_669_514, "21.7 M"), (4.6e9, "4.6 G")]
)
def test_counts_have_three_digits(given: float | None, told: str) -> None:
    assert figures.count(given) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
    ],
)
def test_durations_have_two_units(given: float | None, told: str) -> None:
    assert figures.duration(given) == told


@pytest.mark.parametrize(
    ("given", "told"), [(None, "–"), (59.4, "59 s"), (95, "1 min 35 s"), (2041, "34 min"), (3900, "1 h 5 min")]
)
def test_estimates_are_as_fine_as_they_can_be(given: float | None, told: str) -> None:
    assert figures.about(given) == told


def test_moments_are_exact_for_scripts_and_short_for_people() -> None:
    told = str(figures.moment(datetime(2026, 11, 24, 9, 30, 15, tzinfo=UTC)))

    assert told == '<time datetime="2026-11-24T09:30:15+00:00">2026-11-24 09:30 UTC</time>'
    assert figures.moment(None) == "–"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Constraint(kind="target_ratio", requested=0.5, achieved=0.503, met=True), "−50.3 % parameters"),
        (Constraint(kind="target_macs", requested=0.5, achieved=0.41, met=False), "−41.0 % MACs, goal missed"),
        (Constraint(kind="target_latency", requested=0.2, achieved=-0.03, met=False), "+3.0 % latency, goal missed"),
        (Constraint(kind="max_error_increase", requested=0.1, achieved=0.07, met=True), "+7.0 % errors"),
        (Constraint(kind="max_error_increase", requested=0.1, achieved=-0.02, met=True), "−2.0 % errors"),
        (Constraint(kind="max_error_increase", requested=0.1, achieved=None, met=True), "–"),
    ],
)
def test_what_was_achieved_has_its_sign(given: Constraint, told: str) -> None:
    assert figures.achieved(given) == told

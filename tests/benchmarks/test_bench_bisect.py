from collections.abc import Callable

import pytest
from torch import nn

from benchmarks.bisect import nearest, parameters

ORIGINAL = 1000


def narrowed(knob: float) -> nn.Module:
    return nn.Linear(ORIGINAL - round(knob * ORIGINAL), 1, bias=False)


class TestNearest:
    @pytest.mark.parametrize("ratio", [0.137, 0.5, 0.731])
    def test_turns_the_knob_until_the_ratio_is_met(self, ratio: float) -> None:
        model = nearest(narrowed, ORIGINAL, ratio, 0.0, 0.99)
        assert parameters(model) == pytest.approx(ORIGINAL * (1 - ratio), abs=1)

    def test_of_a_knob_with_few_stops_takes_the_nearest_on_either_side(self) -> None:
        def stepped(knob: float) -> nn.Module:
            return narrowed(int(knob * 10) / 10)

        assert parameters(nearest(stepped, ORIGINAL, 0.56, 0.0, 0.99)) == 400
        assert parameters(nearest(stepped, ORIGINAL, 0.54, 0.0, 0.99)) == 500

    def test_gives_the_end_of_the_knob_for_a_ratio_beyond_it(self) -> None:
        assert parameters(nearest(narrowed, ORIGINAL, 0.9, 0.0, 0.5)) == pytest.approx(500, abs=1)

    def test_stops_as_soon_as_it_is_there(self) -> None:
        knobs: list[float] = []

        def counted(build: Callable[[float], nn.Module], knob: float) -> nn.Module:
            knobs.append(knob)
            return build(knob)

        nearest(lambda knob: counted(narrowed, knob), ORIGINAL, 0.5, 0.0, 1.0)
        assert knobs == [0.5]

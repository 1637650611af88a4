import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.shapes import factored
from core.steps import LEVELS, head_counts, multiples, ranks


class TestMultiples:
    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.integers(1, 20_000))
    def test_are_few_ascending_and_within_what_there_is(self, most: int) -> None:
        sizes = multiples(most)
        assert 1 <= len(sizes) <= LEVELS
        assert sizes == sorted(set(sizes))
        assert 1 <= sizes[0] <= sizes[-1] <= most

    @pytest.mark.parametrize("most", [64, 384, 3072, 6144])
    def test_are_what_kernels_like_where_there_is_room(self, most: int) -> None:
        assert all(size % 8 == 0 for size in multiples(most))

    def test_are_finer_in_a_small_layer(self) -> None:
        assert multiples(11) == list(range(1, 12))

    def test_leave_out_what_is_below_the_least(self) -> None:
        assert min(multiples(384, least=100)) >= 100


class TestRanks:
    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.integers(16, 3000), st.integers(16, 3000))
    def test_all_save_parameters(self, inputs: int, outputs: int) -> None:
        found = ranks(inputs, outputs)
        assert found
        assert all(factored(inputs, outputs, rank) <= inputs * outputs for rank in found)

    def test_reach_close_to_the_break_even(self) -> None:
        assert ranks(384, 1152)[-1] == 288 == 384 * 1152 // (384 + 1152)


class TestHeadCounts:
    @pytest.mark.parametrize(
        ("heads", "counts"), [(1, [1]), (2, [2, 1]), (3, [3, 2, 1]), (6, [6, 4, 3, 1]), (12, [12, 9, 6, 3])]
    )
    def test_fall_by_quarters_to_one_at_least(self, heads: int, counts: list[int]) -> None:
        assert head_counts(heads) == counts

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.shapes import factored
from core.steps import KERNEL, LEVELS, head_counts, multiples, ranks


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

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.integers(1, 20_000))
    def test_are_as_fine_as_kernels_and_levels_allow(self, most: int) -> None:
        sizes = multiples(most)
        step = sizes[0]
        assert sizes == [step * n for n in range(1, most // step + 1)]
        if step > KERNEL:
            assert step % KERNEL == 0
            assert most > (step - KERNEL) * LEVELS
        else:
            assert step in (1, 2, 4, 8)
            assert step == 1 or most // step >= 8  # there is room for that
            assert step == KERNEL or most // (2 * step) < 8 or most // (2 * step) > LEVELS

    @pytest.mark.parametrize(
        ("most", "step"),
        [(15, 1), (16, 2), (31, 2), (32, 4), (63, 4), (64, 8), (128, 8), (129, 16), (256, 16), (257, 24)],
    )
    def test_change_their_step_where_the_next_has_room(self, most: int, step: int) -> None:
        assert multiples(most)[0] == step

    def test_may_begin_at_the_least_and_end_at_the_most(self) -> None:
        assert multiples(128, least=40) == list(range(40, 129, 8))

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

    @pytest.mark.parametrize(("inputs", "outputs"), [(768, 768), (216, 216), (22, 22), (768, 3072), (2, 2), (1, 1)])
    def test_are_all_from_a_twelfth_of_the_break_even_on(self, inputs: int, outputs: int) -> None:
        even = inputs * outputs // (inputs + outputs)
        assert ranks(inputs, outputs) == [size for size in multiples(even) if size >= even // 12]
        assert 0 not in ranks(inputs, outputs)

    def test_leave_out_those_too_few_to_say_anything(self) -> None:
        assert ranks(1152, 1152)[0] == 80  # of 40, 80, …, a twelfth of 576 being 48


class TestHeadCounts:
    @pytest.mark.parametrize(
        ("heads", "counts"), [(1, [1]), (2, [2, 1]), (3, [3, 2, 1]), (6, [6, 4, 3, 1]), (12, [12, 9, 6, 3])]
    )
    def test_fall_by_quarters_to_one_at_least(self, heads: int, counts: list[int]) -> None:
        assert head_counts(heads) == counts

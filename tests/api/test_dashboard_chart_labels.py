"""Names beside points: none on another, none over the edge."""

from itertools import combinations

from api.dashboard.chart_labels import RADIUS, SPOTS, Axis, Named, spots

WIDTH = 307.0


def dot(name: str, x: float, y: float) -> Named:
    return Named(name, x, y, y, y)


def boxes(points: list[Named]) -> list[tuple[float, float, float, float]]:
    placed = zip(points, spots(points, width=WIDTH), strict=True)
    return [SPOTS[place].box(point) for point, place in placed if place is not None]


class TestNames:
    def test_stand_where_nothing_else_is(self) -> None:
        points = [dot(f"−{number} %", 31 + 25 * number, 101 + 7 * (number % 3)) for number in range(11)]
        found = boxes(points)
        assert len(found) > 5
        for (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) in combinations(found, 2):
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
        for left, top, right, bottom in found:
            for point in points:
                assert not (
                    left < point.x + RADIUS
                    and point.x - RADIUS < right
                    and top < point.y + RADIUS
                    and point.y - RADIUS < bottom
                )

    def test_stay_within_the_plot(self) -> None:
        for left, _, right, _ in boxes([dot("a long name", x, 50) for x in (3.0, WIDTH - 3)]):
            assert left >= 0
            assert right <= WIDTH

    def test_give_way_to_those_before_them(self) -> None:
        crowd = [dot("the same", 101, 103) for _ in range(9)]
        assert spots(crowd, width=WIDTH)[-1] is None


class TestAxis:
    def test_leaves_a_margin_on_both_sides(self) -> None:
        axis = Axis.around([11, 23, 17], 100, 7)
        assert (round(axis.at(11), 9), round(axis.at(23), 9)) == (7, 93)
        log = Axis.around([1e-3, 1e2], 100, 7, log=True)
        assert (round(log.at(1e-3), 9), round(log.at(1e2), 9)) == (7, 93)

    def test_of_one_value_has_it_in_the_middle(self) -> None:
        for value in (13, 0, -3):
            assert round(Axis.around([value], 100, 7).at(value), 9) == 50
        assert round(Axis.around([1e-5], 100, 7, log=True).at(1e-5), 9) == 50

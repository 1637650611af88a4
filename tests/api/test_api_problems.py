"""Where in a body a problem points. What is answered to real requests is in the tests of the routes."""

import pytest

from api.problems import pointer


class TestPointer:
    @pytest.mark.parametrize(
        ("location", "expected"),
        [
            ([], ""),
            (["model"], "/model"),
            (["recipe"], "/recipe"),
            (["recipe", "fisher", "target_ratio"], "/recipe/target_ratio"),
            (["recipe", "fisher", "fisher"], "/recipe/fisher"),
            (["labels", "fisher"], "/labels/fisher"),
            (["labels", "a/b~c"], "/labels/a~1b~0c"),
            (["items", 7, "name"], "/items/7/name"),
        ],
    )
    def test_is_a_json_pointer_without_the_unions_tag(self, location: list[str | int], expected: str) -> None:
        assert pointer(location) == expected

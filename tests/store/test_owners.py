"""Owners with their limits, and their projects."""

import pytest

from steps import Steps
from store import owners
from store.errors import OwnerExistsError, OwnerNotFoundError, ProjectExistsError, ProjectNotFoundError
from store.owners import DEFAULT_PROJECT
from store.values import Limits


class TestOwners:
    def test_a_new_one_has_a_project_and_the_limits_it_is_given(self, steps: Steps) -> None:
        limits = Limits(max_running=2, max_daily=None, max_bytes=7 << 40)
        place = steps.do(owners.create, "anna", limits)
        assert steps.do(owners.find, "anna") == place.owner_id
        assert steps.do(owners.place, place.owner_id, DEFAULT_PROJECT) == place
        assert steps.do(owners.get, "anna").limits == limits == steps.do(owners.limits, place.owner_id)

    def test_a_name_is_given_once(self, steps: Steps) -> None:
        steps.do(owners.create, "anna")
        with pytest.raises(OwnerExistsError):
            steps.do(owners.create, "anna")
        assert [view.name for view in steps.do(owners.list_).items] == ["anna", "local"]

    def test_limits_change_together(self, steps: Steps) -> None:
        steps.do(owners.create, "anna", Limits(max_running=2, max_daily=3))
        changed = steps.do(owners.set_limits, "anna", Limits(max_running=0, max_bytes=5))
        assert changed == steps.do(owners.get, "anna")
        assert changed.limits == Limits(max_running=0, max_daily=None, max_bytes=5)

    def test_one_that_is_not_there_is_an_error(self, steps: Steps) -> None:
        for step, arguments in ((owners.find, ()), (owners.get, ()), (owners.set_limits, (Limits(),))):
            with pytest.raises(OwnerNotFoundError):
                steps.do(step, "nobody", *arguments)

    def test_pages_go_by_name(self, steps: Steps) -> None:
        for name in ("carla", "anna", "bert"):
            steps.do(owners.create, name)
        first = steps.do(owners.list_, limit=3)
        second = steps.do(owners.list_, limit=3, cursor=first.next_cursor)
        assert [view.name for view in (*first.items, *second.items)] == ["anna", "bert", "carla", "local"]
        assert second.next_cursor is None


class TestProjects:
    def test_are_their_owner_s_alone(self, steps: Steps) -> None:
        anna, bert = (steps.do(owners.create, name).owner_id for name in ("anna", "bert"))
        steps.do(owners.create_project, anna, "lenses")
        steps.do(owners.create_project, bert, "lenses")
        steps.do(owners.create_project, bert, "mirrors")
        assert [view.name for view in steps.do(owners.list_projects, anna).items] == ["default", "lenses"]
        assert steps.do(owners.place, anna, "lenses") != steps.do(owners.place, bert, "lenses")
        for step in (owners.get_project, owners.place):
            with pytest.raises(ProjectNotFoundError):
                steps.do(step, anna, "mirrors")

    def test_a_name_is_given_once(self, steps: Steps) -> None:
        anna = steps.do(owners.create, "anna").owner_id
        with pytest.raises(ProjectExistsError):
            steps.do(owners.create_project, anna, DEFAULT_PROJECT)

    def test_pages_go_by_name(self, steps: Steps) -> None:
        anna = steps.do(owners.create, "anna").owner_id
        for name in ("mirrors", "lenses"):
            steps.do(owners.create_project, anna, name)
        first = steps.do(owners.list_projects, anna, limit=2)
        second = steps.do(owners.list_projects, anna, limit=2, cursor=first.next_cursor)
        assert [view.name for view in (*first.items, *second.items)] == ["default", "lenses", "mirrors"]

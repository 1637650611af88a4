"""The table of errors."""

import inspect

import pytest

import core.errors
import store.errors
from api.errors import RULES, checked
from core.errors import (
    ArchiveError,
    CheckpointError,
    CheckpointMismatchError,
    HubUnreachableError,
    NumericalError,
    VitpressError,
)
from store.errors import LeaseLostError

# These end a job, or an attempt at it: no request can meet them.
OF_THE_WORKER = {
    ArchiveError,
    CheckpointError,
    CheckpointMismatchError,
    HubUnreachableError,
    NumericalError,
    LeaseLostError,
}


class TestTable:
    def test_has_every_domain_error_that_a_request_can_meet(self) -> None:
        domain = {
            each
            for module in (core.errors, store.errors)
            for _, each in inspect.getmembers(module, inspect.isclass)
            if issubclass(each, VitpressError) and each is not VitpressError
        }

        assert domain - OF_THE_WORKER <= set(RULES)
        assert not OF_THE_WORKER & set(RULES)

    def test_gives_every_error_a_code_of_its_own(self) -> None:
        codes = [error.code for error in RULES if issubclass(error, VitpressError)]

        assert len(set(codes)) == len(codes)


class TestChecked:
    def test_lets_errors_through_that_no_field_is_at_fault_for(self) -> None:
        def step() -> None:
            raise NumericalError("not finite")

        with pytest.raises(NumericalError):
            checked(step)

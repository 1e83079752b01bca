"""Collections are put off and never lost: whatever happens inside, cycles are found again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec

import pytest

from tunesmith.tools.core.settled import load_modules, settled_objects, uncollected
from tunesmith.tools.pipeline import catalog


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def left_behind() -> weakref.ref[Cycle]:
    return weakref.ref(Cycle())


@pytest.mark.parametrize("inside", [settled_objects, uncollected])
def test_an_error_inside_leaves_collection_as_it_was(inside: Callable[[], AbstractContextManager[None]]) -> None:
    with pytest.raises(ZeroDivisionError), inside():
        raise ZeroDivisionError
    assert gc.isenabled()
    made = left_behind()
    gc.collect()
    assert made() is None


def test_what_is_made_while_the_rest_is_settled_is_still_collected() -> None:
    before = gc.get_freeze_count()
    with settled_objects():
        assert gc.get_freeze_count() > before
        made = left_behind()
        gc.collect()
        assert made() is None
    assert gc.get_freeze_count() == 0


def test_a_module_that_is_not_there_is_told_and_collection_goes_on() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load_modules(["json", "no_such_module"])
    assert gc.isenabled()


def test_every_module_that_a_stage_loads_first_is_there() -> None:
    for entry in catalog.STAGES:
        for module in entry.loads:
            assert find_spec(module.split(".")[0]), f"{entry.name}: {module}"

"""Collections are put off and never lost: whatever happens inside, cycles are found again."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tunesmith.tools.core.settled import load_modules, settled_objects, uncollected
from tunesmith.tools.pipeline import catalog


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def left_behind() -> weakref.ref[Cycle]:
    return weakref.ref(Cycle())


@pytest.mark.heavy
@pytest.mark.parametrize("inside", [settled_objects, uncollected])
def test_an_error_inside_leaves_collection_as_it_was(inside: Callable[[], AbstractContextManager[None]]) -> None:
    with pytest.raises(ZeroDivisionError), inside():
        raise ZeroDivisionError
    assert gc.isenabled()
    made = left_behind()
    gc.collect()
    assert made() is None


@pytest.mark.heavy
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


def test_a_package_that_is_to_be_left_out_is_not_met_while_loading_and_is_there_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asks_for_it.py").write_text(
        "from importlib.util import find_spec\nfound = find_spec('slow_package')\n"
        "try:\n    import slow_package\nexcept ImportError:\n    slow_package = None\n"
    )
    (tmp_path / "slow_package.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    load_modules(["asks_for_it"], without=["slow_package"])
    met = sys.modules.pop("asks_for_it")
    assert met.found is None and met.slow_package is None
    load_modules(["asks_for_it"])
    assert sys.modules.pop("asks_for_it").slow_package is sys.modules.pop("slow_package")


def test_whoever_trains_at_4_bits_says_so_by_the_name_that_the_worker_looks_for() -> None:
    asking = {entry.name for entry in catalog.STAGES if "load_in_4bit" in entry.load().request.model_fields}
    assert asking == {entry.name for entry in catalog.STAGES if "trl.trainer.sft_trainer" in entry.loads}


def test_every_module_that_a_stage_loads_first_is_there() -> None:
    for entry in catalog.STAGES:
        for module in entry.loads:
            assert find_spec(module.split(".")[0]), f"{entry.name}: {module}"


_LOADED = """
import sys
from tunesmith.tools.core.settled import load_modules
from tunesmith.tools.pipeline import catalog
for name in sys.argv[1:]:
    load_modules(catalog.ENTRIES[name].loads, without=catalog.ENTRIES[name].without)
print("met", *sorted({name.split(".")[0] for name in sys.modules} & {*catalog.ENTRIES[sys.argv[1]].without}))
"""
DOING_WITHOUT: dict[tuple[str, ...], list[str]] = {}
"""The same libraries → the stages that do without them, those that load the same counted once."""
for name in {entry.loads: entry.name for entry in catalog.STAGES if entry.without}.values():
    DOING_WITHOUT.setdefault(tuple(catalog.ENTRIES[name].without), []).append(name)


@pytest.mark.lab
@pytest.mark.parametrize("stages", DOING_WITHOUT.values(), ids=" ".join)
def test_what_stages_do_without_is_not_loaded_with_the_rest(stages: list[str]) -> None:
    """One process for all that do without the same: what any of them loads, it holds."""
    done = subprocess.run([sys.executable, "-c", _LOADED, *stages], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "met", "libraries may have spoken before"

"""Blind cases stay blind: until `tunesmith compare --open-blind` whatever is shown holds them as counts alone.

Who reads a case, or which of them fail, writes rows and settings by it. What is opened once stays open, for the whole
run, and is an event of it.
"""

from __future__ import annotations

from collections.abc import Collection

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_list
from tunesmith.memory.records import BLIND_SHOWN, Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import read_suite

META = "blind"
"""Of a suite's artifact: the ids of its blind cases."""


def blind_ids(cases: Collection[Case]) -> list[str]:
    """The blind ones among cases, by their ids."""
    return [case.case_id for case in cases if case.is_blind]


def hidden_cases(store: Store, run: str) -> frozenset[str]:
    """The cases of a run that nobody may see; none once they were opened."""
    if _opened(store, run):
        return frozenset()
    return frozenset(name for suite in store.artifacts(run, "suite") for name in _named(suite))


def open_blind(store: Store, run: str, by: str) -> int:
    """Show the blind cases of a run from now on; how many there are. Opened twice they are opened once."""
    hidden = hidden_cases(store, run)
    if hidden:
        store.event(BLIND_SHOWN, run=run, by=by, cases=len(hidden))
    return len(hidden)


def _named(suite: Artifact) -> Collection[str]:
    """The blind cases of a suite; where its record does not say, as its file does."""
    if META in suite.meta:
        return [str(case) for case in as_list(suite.meta[META])]
    try:
        return blind_ids(read_suite(suite.path).cases)
    except (OSError, BadInput):  # gone, or of another version: nothing of it can be shown
        return ()


def _opened(store: Store, run: str) -> bool:
    return bool(store.read("SELECT 1 FROM events WHERE run = ? AND event = ? LIMIT 1", run, BLIND_SHOWN))

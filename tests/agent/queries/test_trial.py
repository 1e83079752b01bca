"""Two whole models that are compared."""

from __future__ import annotations

import pytest

from tests.fixtures import stored_runs
from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.comparisons import CompareQuery
from tunesmith.agent.queries.registry import answer
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return stored_runs.finished_run(tmp_path_factory.mktemp("trial") / "home")[0]


def test_two_whole_models_that_are_compared_are_told_with_their_sizes(finished: Store) -> None:
    context = Context(Workspace(finished, None, lambda event, **data: None), finished.newest_run())
    pairs = [("quantized", "base", "On disk: base 269 MiB, quantized 112 MiB."), ("adapter", "base", "")]
    for arm, other, sizes in pairs:  # an adapter is no whole model
        lines = answer(CompareQuery.model_validate({"arm": arm, "other_arm": other}), context).lines
        assert [line for line in lines if line.startswith("On disk")] == [sizes] * bool(sizes)

"""Two finished runs, made once for all queries that only read."""

from __future__ import annotations

import pytest

from tests.driver.exam_home import make_exam_home
from tunesmith.memory.store import Store


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of an exam's home: r1 and r2, all steps done. Read it only."""
    return Store(make_exam_home(tmp_path_factory.mktemp("two-runs") / "home"))

"""In a control group with too little memory, merge and quantize end with a reason, never by the kernel's killer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.memory_limit import MIB, has_controller, limited
from tests.fixtures.lab_model import write_adapter, write_tiny_model

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not has_controller(), reason="no memory control groups of version 1 can be made here"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("limited") / "base", shard_size="40KB")


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    return write_adapter(model, model.parent / "adapter")


@pytest.mark.parametrize("work", ["merge", "quantize"])
def test_a_limit_under_the_need_is_refused_with_the_number(
    model: Path, adapter: Path, tmp_path: Path, work: str
) -> None:
    run = limited(work, model, adapter, tmp_path / work, 320 * MIB)
    assert (run.outcome, run.kernel_kills, run.kept) == ("refused", 0, 0), run
    assert "GiB of RAM and swap, 0." in run.says


def test_a_limit_that_shrinks_while_it_merges_stops_it_with_what_is_finished(
    model: Path, adapter: Path, tmp_path: Path
) -> None:
    run = limited("merge", model, adapter, tmp_path / "merge", 6 << 30, 128 * MIB)
    assert (run.outcome, run.kernel_kills, run.kept) == ("stopped", 0, 1), run
    assert "stopped at shard 2" in run.says and "finished shards are kept (1)" in run.says

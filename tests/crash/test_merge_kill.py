"""`kill -9` of a merge at twelve file calls and tensors, first to last: going on ends in the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.lab_model import write_adapter, write_tiny_model

pytestmark = pytest.mark.lab
KILLS = 12


def test_a_merge_that_is_killed_anywhere_ends_in_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base", shard_size="60KB")
    adapter = write_adapter(base, tmp_path / "adapter")
    out = tmp_path / "step" / "merged"
    out.parent.mkdir()
    command = [sys.executable, "-m", "tests.crash.merge_points", *map(str, (base, adapter, out, KILLS))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["points"] > 3 * KILLS, "points lie close enough to be spread"
    assert len(found["digests"]) == KILLS + 1 and len(set(found["digests"])) == 1

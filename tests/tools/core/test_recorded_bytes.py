"""The disk that a step takes is priced with what the store needs for it: its pages, its log, and its first files."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.estimate import STORE_BYTES, estimate, recorded_bytes
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, Facts, expected
from tunesmith.tools.imports.import_rows import ImportContext, ImportRequest, plan

FACTS = Facts(Path("/home"), Machine("test", 2, 64 * GIB, 64 * GIB, 0, 64 * GIB), "r1")


@table("characters", [20, 100, 600, 1000, 1500, 2200, 6000])
def test_records_take_their_pages_and_their_log_and_not_twice_as_much(
    tmp_path_factory: pytest.TempPathFactory, characters: int
) -> None:
    home, count = tmp_path_factory.mktemp("home"), 300_000 // characters
    turn = [{"role": "user", "content": "é" * (characters // 2)}]
    rows = [TrainingRow(f"i-{n:06d}", "imported", turn, turn) for n in range(count)]
    bytes_ = count * 2 * len(json.dumps(turn, ensure_ascii=False).encode())
    with closing(Store(home)) as store:
        run = store.new_run("r")
        step = store.propose(run, "import", plan_hash="h")
        before = sum(file.stat().st_size for file in home.iterdir())
        store.add_rows(run, step, rows)
        store.read("PRAGMA wal_checkpoint")
        taken = sum(file.stat().st_size for file in home.iterdir()) - before
    assert taken <= recorded_bytes(bytes_, count) + (64 << 10), "beside it only the shared memory grows"
    assert recorded_bytes(bytes_, count) <= 2 * taken


def test_the_store_is_in_the_price_of_every_step() -> None:
    assert estimate("train", FACTS, seconds=1).disk_bytes == STORE_BYTES > 1_000 * 4_096
    assert estimate("train", FACTS, seconds=1, disk_bytes=GIB).disk_bytes == GIB + STORE_BYTES


def test_rows_of_before_are_in_the_price_of_an_import_beside_them() -> None:
    """They are written and recorded once more, under the new step."""
    request = ImportRequest(source="hub:a/b@" + "0" * 40)
    context = ImportContext("b", None, {}, download_bytes=1_000_000)
    alone = plan(request, FACTS, context).estimate.disk_bytes
    facts = Facts(FACTS.home, FACTS.machine, "r1", artifacts={"rows": expected("rows", 50_000_000, rows=50_000)})
    beside = plan(request, facts, context).estimate.disk_bytes
    assert beside - alone > 3 * 50_000_000
    assert plan(request.model_copy(update={"beside": False}), facts, context).estimate.disk_bytes == alone

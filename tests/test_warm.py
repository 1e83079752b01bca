"""What a light test starts is forked off a process that has done its imports: workers and confined children too."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fixtures import warm
from tests.fixtures.steps import say_yes
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory import confined
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.message_files import read_records
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


@pytest.mark.heavy
def test_the_worker_of_a_step_is_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    popen = launcher.subprocess.Popen
    assert isinstance(launcher.subprocess, warm.Workers)
    monkeypatch.setattr(launcher.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    ws = Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)
    request = StepRequest("base", {"model": str(make_tiny_model(tmp_path / "model"))}, ws.store.new_run("test"))
    assert run_step(ws, request, say_yes).done().status == "done"
    ws.store.close()
    assert [type(one) for one in started] == [warm.Process]


def test_a_confined_child_is_forked_where_its_limit_leaves_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    popen = confined.subprocess.Popen
    assert isinstance(confined.subprocess, warm.ConfinedChildren)
    monkeypatch.setattr(confined.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    (tmp_path / "rows.jsonl").write_text('{"message": "one"}\n{"message": ""}\n')
    for memory_bytes in (1 << 30, 256 << 20):
        items = confined.confined(
            read_records, {"path": str(tmp_path / "rows.jsonl")}, "it", confined.Limits(memory_bytes=memory_bytes)
        )
        assert next(items) == "one"
        with pytest.raises(BadInput, match="record 2"):
            next(items)
    assert [type(one) for one in started] == [warm.Piped, subprocess.Popen]

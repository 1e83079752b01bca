"""A real Ray head on loopback: one short step goes there and comes back, from where our home cannot be seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fixtures.ray_head import Head, ray_head
from tests.fixtures.steps import say_yes
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.files import verify
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with ray_head(tmp_path_factory.mktemp("ray")) as head:
        yield head


def test_a_step_goes_there_and_comes_back_and_a_dead_head_is_told(head: Head, tmp_path: Path) -> None:
    ws = Workspace(Store(head.home), None, lambda event, **data: None)
    run = ws.store.new_run("test")
    run_step(ws, StepRequest("base", {"model": str(make_tiny_model(tmp_path / "model"))}, run), say_yes).done()
    rows = [{"prompt": f"question {n} of the day", "completion": f"answer {n}"} for n in range(6)]
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    run_step(ws, StepRequest("import", {"source": str(tmp_path / "own.jsonl")}, run), say_yes).done()
    head.write_settings()

    refused = head.tunesmith("critique", "--on", "ray", "--run", run)
    assert refused.returncode == 3, refused.stderr
    assert head.settings.address in refused.stderr, "the price says where"
    done = head.tunesmith("critique", "--on", "ray", "--run", run, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(head.tunesmith("runs", "show", run, "--json").stdout)
    step = shown["steps"][-1]
    assert step["stage"] == "critique" and step["status"] == "done" and step["on"].startswith(head.settings.address)
    [dataset] = step["artifacts"]
    verify(Path(dataset["path"]), dataset["sha256"])
    assert head.settings.address in head.tunesmith("runs", "show", run).stdout

    wrong = head.home / "wrong"
    wrong.write_text("f" * 64)
    text = (head.home / "settings.toml").read_text()
    (head.home / "settings.toml").write_text(text.replace(head.settings.token_file, str(wrong)))
    told = head.tunesmith("critique", "--on", "ray", "--run", run)
    assert told.returncode == 2 and "does not take the token" in told.stderr, told.stderr
    (head.home / "settings.toml").write_text(text)
    (head.home / "ray-machine.json").unlink(missing_ok=True)
    head.end()
    told = head.tunesmith("critique", "--on", "ray", "--run", run)
    assert told.returncode == 2 and f"{head.settings.address} does not answer" in told.stderr, told.stderr
    assert len(json.loads(head.tunesmith("runs", "show", run, "--json").stdout)["steps"]) == 3

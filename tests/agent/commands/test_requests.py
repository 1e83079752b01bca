"""A request means the same wherever it is carried out, and what was agreed to is what runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES, warm
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline.plan_file import load_pipeline, parse_fields
from tunesmith.tools.pipeline.run_step import Outcome, decide, price, propose
from tunesmith.tools.pipeline.start_step import follow_step, start
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace
from tunesmith.tools.serving import servers

pytestmark = pytest.mark.heavy

STUB = str(FIXTURES / "stub_chat.py")
SUITE = "prompts: ['{{q}}']\ntests: [{vars: {q: a}, assert: [{type: contains, value: %s}]}]\n"


class Folder:
    """A folder that tunesmith is started in, with a home inside."""

    def __init__(self, path: Path) -> None:
        self.path, self.home = path, path / "home"

    def __call__(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        named = {"TUNESMITH_HOME": "home", "TUNESMITH_VLLM": STUB, "STUB_REQUESTS": str(self.path / "asked")}
        return warm.run(args, os.environ | named | env, cwd=self.path)


@pytest.fixture(scope="module")
def with_base(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which `base --model ./mymodel` was typed."""
    folder = Folder(tmp_path_factory.mktemp("folder"))
    make_tiny_model(folder.path / "mymodel")
    done = folder("base", "--model", "./mymodel", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(with_base: Folder, tmp_path: Path) -> Iterator[Folder]:
    shutil.copytree(with_base.path, tmp_path / "f")
    yield Folder(tmp_path / "f")
    servers.stop_all(tmp_path / "f" / "home")


def test_a_relative_model_reaches_the_worker_and_the_stored_request_is_absolute(with_base: Folder) -> None:
    with contextlib.closing(Store(with_base.home)) as store:
        step = store.steps()[0]
        assert step.status == "done" and step.request["model"] == str(with_base.path / "mymodel")
        assert store.run(step.run).name == "mymodel"


def test_a_relative_suite_reaches_the_worker(folder: Folder) -> None:
    (folder.path / "s1.yaml").write_text(SUITE % "no")
    done = folder("baseline", "--suites", "s1.yaml", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    step = Store(folder.home).steps()[-1]
    assert step.status == "done" and step.request["suites"] == [str(folder.path / "s1.yaml")]


def test_a_suite_that_changed_after_its_plan_was_shown_is_another_plan(folder: Folder) -> None:
    (folder.path / "s1.yaml").write_text(SUITE % "no")
    asked = json.loads(folder("baseline", "--suites", "s1.yaml", "--json").stdout)
    (folder.path / "s1.yaml").write_text(SUITE % "yes")
    done = folder("baseline", "--approve", asked["plan_hash"][:12])
    assert done.returncode == 3 and "would now be planned" in done.stderr, done.stderr
    assert not (folder.path / "asked").exists(), "no case was asked"


def test_a_suite_that_changed_between_the_yes_and_the_start_is_refused_by_the_worker(folder: Folder) -> None:
    suite = folder.path / "s1.yaml"
    suite.write_text(SUITE % "no")
    ws = Workspace(Store(folder.home), STUB, lambda event, **data: None)
    plan = price(ws, StepRequest("baseline", {"suites": [str(suite)]}, "r1"))
    step = propose(ws, plan)
    assert decide(ws, step, plan, yes).yes
    suite.write_text(SUITE % "yes")
    start(ws, step)
    with pytest.raises(StepFailed, match="the suite was changed after its plan was approved"):
        Outcome(follow_step(ws, step)).done()
    assert not (folder.path / "asked").exists()


def yes(plan: Plan, step: str) -> Decision:
    return Decision(True, "test")


@table(
    ("stage", "fields"),
    [
        ("base", {"model": "bundled"}),
        ("base", {"model": "org/name"}),
        ("baseline", {"suites": ["demo", "general", "tools"]}),
        ("critique", {"suites": ["demo"]}),
        ("generate", {"behaviour": "demo"}),
        ("evaluate", {"behaviour": "demo", "arm": "prompted"}),
        ("evaluate", {"behaviour": ""}),
    ],
)
def test_short_names_stay_short_whatever_lies_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, fields: dict[str, Any]
) -> None:
    for name in ("bundled", "demo", "general", "tools"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_fields(stage, fields) == fields


@table(
    ("stage", "field", "value"),
    [("base", "model", "m"), ("generate", "behaviour", "b.yaml"), ("evaluate", "behaviour", "b.yaml")],
)
def test_a_local_path_is_made_absolute_where_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, field: str, value: str
) -> None:
    (tmp_path / value).mkdir()
    monkeypatch.chdir(tmp_path)
    for typed in (value, f"./{value}", str(tmp_path / value)):
        assert parse_fields(stage, {field: typed}) == {field: str(tmp_path / value)}


def test_paths_in_a_plan_start_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tmp_path / "plans" / "p.yaml"
    plan.parent.mkdir()
    (plan.parent / "model").mkdir()
    plan.write_text("name: p\nsteps: [{stage: base, model: model}, {stage: baseline, suites: [s.yaml, demo]}]\n")
    monkeypatch.chdir(tmp_path)
    base, baseline = load_pipeline(Path("plans/p.yaml")).steps
    assert base.fields == {"model": str(plan.parent / "model")}
    assert baseline.fields == {"suites": [str(plan.parent / "s.yaml"), "demo"]}


@table("model", ["", "x" * 300, "./" + "x" * 300, "nul\0l", "./nul\0l"])
def test_what_can_be_no_model_is_bad_input(tmp_path: Path, model: str) -> None:
    ws = Workspace(Store(tmp_path), None, lambda event, **data: None)
    with pytest.raises(BadInput):
        price(ws, StepRequest("base", {"model": model}))

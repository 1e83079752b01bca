"""A behaviour folder from a stranger: read within bounds, through no link, and what was agreed to is what is used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.data.behaviour import behaviour_folder, load_behaviour, load_rehearsal
from tunesmith.tools.pipeline.plan_file import load_pipeline
from tunesmith.tools.pipeline.run_step import Outcome, decide, price, propose, run_step
from tunesmith.tools.pipeline.start_step import follow_step, start
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace
from tunesmith.tools.serving import servers

STUB = str(FIXTURES / "stub_writer.py")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(behaviour_folder("demo"), tmp_path / "b")
    return tmp_path / "b"


def yes(plan: Plan, step: str) -> Decision:
    return Decision(True, "test")


# --- what is read


@pytest.mark.parametrize("target", ["/proc/self/environ", "/etc/hostname", "behaviour.yaml", "/nowhere"])
def test_prompts_are_never_read_through_a_link(folder: Path, target: str) -> None:
    (folder / "rehearsal.txt").unlink()
    (folder / "rehearsal.txt").symlink_to(target)
    with pytest.raises(BadInput, match="symbolic link"):
        load_rehearsal(str(folder))


def test_the_spec_of_a_folder_is_never_read_through_a_link(folder: Path) -> None:
    (folder / "behaviour.yaml").rename(folder / "b.yaml")
    (folder / "behaviour.yaml").symlink_to("b.yaml")
    with pytest.raises(BadInput, match="symbolic link"):
        load_behaviour(str(folder))
    assert load_behaviour(str(folder / "b.yaml")).name, "a file that was named may lie anywhere"


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 << 30)


def _bomb(path: Path) -> None:
    path.write_text(BOMB)


def _deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def _wide(path: Path) -> None:
    path.write_text("a: [" + "x," * 400_000 + "]")


def _nul(path: Path) -> None:
    path.write_bytes(b"name: a\0b")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("make", [_pipe, _zeros, _sparse, _bomb, _deep, _wide, _nul])
@pytest.mark.parametrize("read", [load_behaviour, load_pipeline])
def test_a_hostile_file_is_refused_in_few_words(tmp_path: Path, make: object, read: object) -> None:
    path = tmp_path / "x.yaml"
    make(path)  # type: ignore[operator]
    with pytest.raises(BadInput) as refused:
        read(str(path) if read is load_behaviour else path)  # type: ignore[operator]
    assert len(str(refused.value)) < 2000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("make", [_pipe, _sparse])
def test_hostile_prompts_are_refused(folder: Path, make: object) -> None:
    (folder / "rehearsal.txt").unlink()
    make(folder / "rehearsal.txt")  # type: ignore[operator]
    with pytest.raises(BadInput):
        load_rehearsal(str(folder))


@table("name", ["a\0b", "x" * 5000, "/nowhere/at/all", "~nobody-of-this-name/x"])
def test_a_name_that_no_file_can_have_is_bad_input(name: str) -> None:
    with pytest.raises(BadInput):
        load_behaviour(name)


# --- what was agreed to


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    (tmp_path / "answers").write_text("1000")
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    monkeypatch.setenv("STUB_ANSWERS", str(tmp_path / "answers"))
    yield Workspace(Store(tmp_path / "home"), STUB, lambda event, **data: None)
    servers.stop_all(tmp_path / "home")


@pytest.mark.heavy
def test_prompts_that_were_swapped_after_the_yes_are_not_used(ws: Workspace, folder: Path, tmp_path: Path) -> None:
    run = ws.store.new_run("test")
    run_step(ws, StepRequest("base", {"model": str(make_tiny_model(tmp_path / "model"))}, run), yes).done()
    fields = {"behaviour": str(folder), "rows": 2, "rehearsal_rows": 2}
    first = price(ws, StepRequest("generate", fields, run))
    step = propose(ws, first)
    assert decide(ws, step, first, yes).yes
    (folder / "rehearsal.txt").write_text("another prompt\nand one more\n")
    assert price(ws, StepRequest("generate", fields, run)).hash != first.hash, "it is another plan"
    start(ws, step)
    with pytest.raises(StepFailed, match="rehearsal prompts were changed after its plan was approved"):
        Outcome(follow_step(ws, step)).done()
    assert not (tmp_path / "requests").exists(), "nothing was asked"


def test_a_plan_that_quotes_a_digest_in_its_prose_agrees_to_nothing(ws: Workspace, tmp_path: Path) -> None:
    """A model in a folder that is named like a digest made the old, textual comparison pass."""
    from tunesmith.tools.core.job import Job
    from tunesmith.tools.core.stage import Estimate, Request

    digest = "deadbeefcafe" + "0" * 52
    plan = Plan(
        stage="generate", run="r1", summary=f"sha256 {digest}", steps=(f"use sha256 {digest}",), request={},
        estimate=Estimate(seconds=1, basis="none"), pins={"suite": digest[:12] + "1" * 52},
    )  # fmt: skip
    step = ws.store.step(ws.store.propose(ws.store.new_run("x"), "generate", plan_hash=plan.hash))
    job = Job(store=ws.store, step=step, plan=plan, request=Request(), inputs={}, dir=tmp_path)
    for name in ("behaviour", "suite"):
        with pytest.raises(StepFailed, match="plan the step again"):
            job.agreed(name, digest)

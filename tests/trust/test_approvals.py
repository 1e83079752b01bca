"""A yes is to what was shown: the bytes of a folder, the judge's address, every resource of the price."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.approvals import covered
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Estimate, Input, Plan
from tunesmith.tools.evaluation.judge import Models, find_judge
from tunesmith.tools.models.folder import fingerprint
from tunesmith.tools.pipeline.run_step import decide, price, propose
from tunesmith.tools.pipeline.start_step import follow_step as follow
from tunesmith.tools.pipeline.start_step import start
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace


def plan(request: dict[str, Any] | None = None, base: str = "b", **costs: float) -> Plan:
    cost = {"seconds": 10, "peak_ram_bytes": 10, "peak_vram_bytes": 10, "disk_bytes": 10, **costs}
    return Plan(
        stage="train", run="r1", summary="", steps=(), request=request or {"model": "m"},
        inputs={"base": Input(artifact="a1", sha256=base)}, estimate=Estimate(basis="", **cost),
    )  # fmt: skip


@table("cost", ["seconds", "peak_ram_bytes", "peak_vram_bytes", "disk_bytes"])
def test_always_covers_no_plan_that_costs_more_of_anything(cost: str) -> None:
    assert covered(plan(**{cost: 10}), plan()) and covered(plan(**{cost: 9}), plan())
    assert not covered(plan(**{cost: 11}), plan())


def test_always_covers_no_other_model() -> None:
    assert not covered(plan(base="c"), plan())
    for name in ("model", "revision", "role", "judge", "writer"):
        assert not covered(plan({"model": "m", name: "another"}), plan({"model": "m"}))


def _other_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"evil")


def _other_weights_of_the_same_time(folder: Path) -> None:
    before = (folder / "model.safetensors").stat()
    _other_weights(folder)
    os.utime(folder / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))


def _other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ 'evil' }}")


def _another_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    make_tiny_model(folder, weight_bytes=4 << 20, hidden_size=32)


def _one_file_more(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{}")


CHANGES = [_other_weights, _other_weights_of_the_same_time, _other_template, _another_folder, _one_file_more]


@table("change", CHANGES)
def test_a_folder_that_holds_other_bytes_has_another_fingerprint(tmp_path: Path, change: Any) -> None:
    folder = make_tiny_model(tmp_path / "m", weight_bytes=4 << 20)
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    change(folder)
    assert fingerprint(folder) != before


def test_a_folder_that_was_swapped_after_the_yes_is_not_taken(tmp_path: Path) -> None:
    folder, store = make_tiny_model(tmp_path / "m", weight_bytes=4 << 20), Store(tmp_path / "home")
    ws = Workspace(store, None, lambda event, **data: None)
    priced = price(ws, StepRequest("base", {"model": str(folder)}, store.new_run("test")))
    step = propose(ws, priced)
    assert decide(ws, step, priced, lambda plan, step: Decision(True, "test")).yes
    _other_weights(folder)
    start(ws, step)
    with pytest.raises(StepFailed, match="model folder was changed after its plan was approved"):
        ended = follow(ws, step)
        raise StepFailed(str(ended.error))
    assert store.artifacts(priced.run) == []


def test_a_judge_at_another_address_is_another_judge(tmp_path: Path) -> None:
    def judge(endpoint: str, name: str) -> dict[str, str]:
        (tmp_path / "settings.toml").write_text(f'[judge]\nendpoint = "{endpoint}"\nname = "{name}"\n')
        return Models(find_judge("endpoint", tmp_path)).pins

    shown = judge("http://127.0.0.1:8000/v1", "m")
    assert shown["judge"] and judge("http://127.0.0.1:8000/v1", "m") == shown
    assert judge("http://evil.example:8000/v1", "m") != shown and judge("http://127.0.0.1:8000/v1", "n") != shown


def test_answers_go_to_no_judge_that_the_settings_named_after_the_yes(based: Path, tmp_path: Path) -> None:
    shutil.copytree(based / "home", tmp_path / "home")
    suite = tmp_path / "suite.yaml"
    suite.write_text("prompts: [hi]\ntests: [{assert: [{type: llm-rubric, value: polite}]}]\n")
    ws = Workspace(Store(tmp_path / "home"), "/bin/false", lambda event, **data: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = '[judge]\nendpoint = "http://127.0.0.1:%s/v1"\nname = "m"\n'
        (tmp_path / "home" / "settings.toml").write_text(settings % 1)
        priced = price(ws, StepRequest("baseline", {"suites": [str(suite)]}, "r1"))
        step = propose(ws, priced)
        assert decide(ws, step, priced, lambda plan, step: Decision(True, "test")).yes
        (tmp_path / "home" / "settings.toml").write_text(settings % other.getsockname()[1])
        start(ws, step)
        ended = follow(ws, step)
        assert "the judge was changed after its plan was approved" in str(ended.error), ended.error
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_judge_in_a_folder_is_known_by_what_it_holds(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "m", weight_bytes=4 << 20)
    before = Models(find_judge(str(folder), tmp_path)).pins
    _other_template(folder)
    assert Models(find_judge(str(folder), tmp_path)).pins != before

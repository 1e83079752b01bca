"""An existing quantized checkpoint as the quantized base: taken once, recorded, used again, or refused and not kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.quantized_checkpoints import as_gptq, fine_tuned, rounded
from tests.fixtures.steps import say_yes
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.models.measuring import MEASURED_AT, QUANTIZED_BASE
from tunesmith.tools.pipeline.run_step import quote, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving.model_server import precision_told, weights_of

pytestmark = pytest.mark.lab

DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    yield Workspace(Store(tmp_path / "home"), "/bin/true", lambda event, **data: None)


@pytest.fixture
def checkpoint(tiny_llama: Path, tmp_path: Path) -> Path:
    return rounded(tiny_llama, tmp_path / "published-w4a16")


def fetched(ws: Workspace, model: Path, **fields: Any) -> tuple[dict[str, Any], Artifact]:
    """The result of a step in a new run, and its quantized base."""
    run = ws.store.new_run("test")
    result = run_step(ws, StepRequest("base", {"model": str(model), **fields}, run), say_yes).done().result or {}
    [quantized] = ws.store.artifacts(run, QUANTIZED_BASE)
    return result, quantized


def test_it_is_taken_recorded_and_answers_for_the_base(ws: Workspace, tiny_llama: Path, checkpoint: Path) -> None:
    result, quantized = fetched(ws, tiny_llama, quantized=str(checkpoint))
    [base] = ws.store.artifacts(quantized.run, "base")
    assert quantized.parents == (base.id,) and quantized.meta["base_sha256"] == base.sha256
    assert quantized.meta["quantized_source"] == result["quantized_source"] == str(checkpoint)
    assert quantized.meta["group_size"] == 64 and quantized.meta["scheme"] == "W4A16"
    assert result["measured_at"] == base.meta[MEASURED_AT] == "4"
    assert result["measured_because"] == f"{checkpoint} is taken as its quantized base"
    assert "14 layers quantized, 14 of them decoded again" in result["quantized_audit"]
    folder = quantized.path
    assert folder.parent == ws.store.home / "models" and not folder.stat().st_mode & 0o222
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("quantization_config") and config == json.loads((base.path / "config.json").read_text())
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (base.path / name).read_bytes(), "asked in the same words"
    planned = quote(ws, StepRequest("baseline", {}, quantized.run))
    assert planned.inputs[QUANTIZED_BASE].artifact == quantized.id and planned.inputs["base"].artifact == base.id
    assert weights_of(quantized) == base.sha256 and quantized.sha256[:12] in precision_told(quantized)


def test_it_is_taken_once_and_every_other_source_is_another(
    ws: Workspace, tiny_llama: Path, checkpoint: Path, tmp_path: Path
) -> None:
    plan = quote(ws, StepRequest("base", {"model": str(tiny_llama), "quantized": str(checkpoint)}))
    assert plan.pins.keys() == {"model folder", "quantized folder"} and plan.request["measuring"] == "4"
    assert any("copy 0.00 GiB" in step for step in plan.steps) and any("hold every tensor" in s for s in plan.steps)
    first = fetched(ws, tiny_llama, quantized=str(checkpoint))[1]
    stamp = (first.path / "model.safetensors").stat().st_mtime_ns
    again = quote(ws, StepRequest("base", {"model": str(tiny_llama), "quantized": str(checkpoint)}))
    assert "which is here already" in again.steps[-1] and again.estimate.disk_bytes < plan.estimate.disk_bytes
    result, second = fetched(ws, tiny_llama, quantized=str(checkpoint))
    assert second.path == first.path and (second.path / "model.safetensors").stat().st_mtime_ns == stamp
    assert "audited when it was made" in result["quantized_audit"]
    gptq = as_gptq(tiny_llama, tmp_path / "published-gptq")
    assert (
        "which is here already"
        not in quote(ws, StepRequest("base", {"model": str(tiny_llama), "quantized": str(gptq)})).steps[-1]
    )
    third, made = fetched(ws, tiny_llama, quantized=str(gptq))[1], fetched(ws, tiny_llama, measuring="4")[1]
    assert third.meta["group_size"] == 32 and "quantized_source" not in made.meta
    assert len({artifact.path for artifact in (first, third, made)}) == 3
    assert precision_told(third).startswith("gptq") and precision_told(third) != precision_told(first)


def test_what_fails_is_named_and_leaves_nothing_and_the_base_can_still_be_rounded_here(
    ws: Workspace, tiny_llama: Path, tmp_path: Path
) -> None:
    other = rounded(fine_tuned(tiny_llama, tmp_path / "other", f"{DOWN}.weight"), tmp_path / "another-w4a16")
    run = ws.store.new_run("test")
    asked = {"model": str(tiny_llama), "quantized": str(other)}
    told = run_step(ws, StepRequest("base", asked, run), say_yes).step.error or ""
    assert DOWN in told and "larger scales" in told and "nothing of it was kept" in told
    assert ws.store.artifacts(run) == []
    assert not [path for path in (ws.store.home / "models").iterdir() if "another-w4a16" in path.name]
    assert fetched(ws, tiny_llama, measuring="4")[0]["quantized_audit"]


def test_a_copy_that_was_changed_is_set_aside_and_taken_again(
    ws: Workspace, tiny_llama: Path, checkpoint: Path
) -> None:
    first = fetched(ws, tiny_llama, quantized=str(checkpoint))[1]
    weights = first.path / "model.safetensors"
    first.path.chmod(0o755)
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    result, again = fetched(ws, tiny_llama, quantized=str(checkpoint))
    assert again.path == first.path and again.sha256 == first.sha256 and "decoded again" in result["quantized_audit"]
    assert [path for path in first.path.parent.iterdir() if ".damaged-" in path.name]


def test_a_folder_that_changed_since_the_yes_is_not_taken(ws: Workspace, tiny_llama: Path, checkpoint: Path) -> None:
    def yes_and_change(plan: Any, step: str) -> Any:
        shutil.copyfile(checkpoint / "config.json", checkpoint / "added.json")
        return say_yes(plan, step)

    run = ws.store.new_run("test")
    asked = {"model": str(tiny_llama), "quantized": str(checkpoint)}
    failed = run_step(ws, StepRequest("base", asked, run), yes_and_change).step
    assert "the quantized folder was changed after" in (failed.error or "") and ws.store.artifacts(run) == []


def test_one_that_is_no_base_is_refused_before_a_step_starts(ws: Workspace, tiny_llama: Path) -> None:
    with pytest.raises(BadInput, match="no quantization_config"):
        quote(ws, StepRequest("base", {"model": str(tiny_llama), "quantized": str(tiny_llama)}))
    assert ws.store.steps() == []

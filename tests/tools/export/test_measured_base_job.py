"""A base that is measured at 4 bits: its quantized base is an artifact of its own, made once, and what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.steps import say_yes
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import read_manifest
from tunesmith.memory.store import Store
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.export.measured_base_job import _sealed
from tunesmith.tools.models.measuring import MEASURED_AT, QUANTIZED_BASE
from tunesmith.tools.pipeline.run_step import quote, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

pytestmark = pytest.mark.lab

SHORT = {"suites": ["general"]}
"""Cases that the 512 tokens of the tiny model hold."""


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    yield Workspace(Store(tmp_path / "home"), "/bin/true", lambda event, **data: None)


def test_a_base_at_4_bits_leaves_two_artifacts_and_what_follows_is_planned_on_the_second(
    ws: Workspace, tiny_llama: Path
) -> None:
    run = ws.store.new_run("test")
    fields = {"model": str(tiny_llama), "measuring": "4"}
    result = run_step(ws, StepRequest("base", fields, run), say_yes).done().result or {}
    [base], [quantized] = ws.store.artifacts(run, "base"), ws.store.artifacts(run, QUANTIZED_BASE)
    assert quantized.parents == (base.id,) and quantized.meta["base_sha256"] == base.sha256
    assert result["quantized_base"] == quantized.id and "layers quantized" in result["quantized_audit"]
    assert result["measured_at"] == base.meta[MEASURED_AT] == "4" and result["measured_because"] == "asked for"
    assert 0 < quantized.bytes < base.bytes and not quantized.path.stat().st_mode & 0o222
    planned = quote(ws, StepRequest("baseline", SHORT, run))
    assert planned.inputs[QUANTIZED_BASE].artifact == quantized.id and planned.inputs["base"].artifact == base.id
    assert any("at 4 bits" in step for step in planned.steps)


def test_it_is_made_once_for_every_run_and_one_at_16_bits_has_none(ws: Workspace, tiny_llama: Path) -> None:
    fields = {"model": str(tiny_llama)}
    runs = [ws.store.new_run(name) for name in ("one", "two", "three")]
    for run in runs[:2]:
        run_step(ws, StepRequest("base", {**fields, "measuring": "4"}, run), say_yes).done()
    result = run_step(ws, StepRequest("base", fields, runs[2]), say_yes).done().result or {}
    one, two = (ws.store.artifacts(run, QUANTIZED_BASE)[0] for run in runs[:2])
    assert one.path == two.path and one.sha256 == two.sha256
    assert ws.store.artifacts(runs[2], QUANTIZED_BASE) == [] and result["measured_at"] == "16"
    assert "measuring it at 16 bits needs" in result["measured_because"]
    assert QUANTIZED_BASE not in quote(ws, StepRequest("baseline", SHORT, runs[2])).inputs


def test_a_quantized_base_that_was_changed_is_set_aside_and_made_again(ws: Workspace, tiny_llama: Path) -> None:
    def fetched() -> Path:
        run = ws.store.new_run("test")
        run_step(ws, StepRequest("base", {"model": str(tiny_llama), "measuring": "4"}, run), say_yes).done()
        return ws.store.artifacts(run, QUANTIZED_BASE)[0].path

    folder = fetched()
    before = read_manifest(folder)
    weights = folder / "model.safetensors"
    folder.chmod(0o755)
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert fetched() == folder and before is not None
    after = read_manifest(folder)
    assert after is not None and after["sha256"] == before["sha256"]
    assert [path for path in folder.parent.iterdir() if ".damaged-" in path.name]


def test_what_fails_its_audit_is_not_there_afterwards(tmp_path: Path) -> None:
    """Sealed first, and killed before its audit, it was taken for audited by the next run."""
    target = tmp_path / "models" / "made"

    def fill(folder: Path) -> Audit:
        (folder / "model.safetensors").write_text("codes")
        assert read_manifest(folder) is None and not target.exists()
        raise StepFailed("a scale is wrong")

    with pytest.raises(StepFailed, match="a scale is wrong"):
        _sealed(target, fill, kind=QUANTIZED_BASE)
    assert list(target.parent.iterdir()) == []

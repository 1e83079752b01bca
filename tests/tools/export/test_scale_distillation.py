"""Scales that learn: nearer to the merged model, nothing else moved, the same bytes after a kill."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.forked import forked
from tests.fixtures.lab_model import write_tiny_model
from tunesmith.memory.errors import StepFailed
from tunesmith.tools.export import scale_distillation
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.quantize import LearnedScales
from tunesmith.tools.export.quantize_job import quantize_model, work_folder
from tunesmith.tools.models.tensor_file import weight_files

pytestmark = pytest.mark.lab
STEPS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("merged") / "model", "llama", initializer_range=0.4)


@pytest.fixture(scope="module")
def rows(rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, with held-out ones beside them."""
    folder = tmp_path_factory.mktemp("dataset")
    shutil.copyfile(rows_file, folder / "train.jsonl")
    lines = rows_file.read_text().splitlines(keepends=True)
    (folder / "valid.jsonl").write_text("".join(lines[:6]))
    return folder / "train.jsonl"


def quantized(model: Path, rows: Path, out: Path, **options: Any) -> LearnedScales | None:
    quantize_model(model, rows, out, scheme="W4A16", group_size=64, samples=8, max_seq_len_tokens=48, seed=1,
                   progress=lambda *_: None, **options)  # fmt: skip
    said = work_folder(out) / scale_distillation.LEARNED
    return LearnedScales.model_validate_json(said.read_bytes()) if said.exists() else None


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


def test_learned_scales_come_nearer_and_nothing_else_moves(model: Path, rows: Path, tmp_path: Path) -> None:
    import torch

    assert quantized(model, rows, tmp_path / "plain") is None
    learned = quantized(model, rows, tmp_path / "learned", distil_steps=STEPS)
    assert learned is not None and learned.kept and learned.steps == STEPS
    assert learned.kl_after < learned.kl_before
    before, after = tensors(tmp_path / "plain"), tensors(tmp_path / "learned")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith(".weight_scale")}
    assert all(before[name].dtype == after[name].dtype for name in moved)
    assert audit_quantized(tmp_path / "learned", model, group_size=64).refusal == ""


def test_what_is_said_is_what_the_files_compute(model: Path, rows: Path, tmp_path: Path) -> None:
    """The divergence that learning reports is that of the saved model, loaded by transformers as anyone would."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig

    from tunesmith.tools.data.row_file import read_rows
    from tunesmith.tools.training.rows import tokenize_row

    learned = quantized(model, rows, tmp_path / "learned", distil_steps=STEPS)
    assert learned is not None
    whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    decoded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "learned", dtype=torch.bfloat16, quantization_config=CompressedTensorsConfig(run_compressed=False)
    )
    tokenizer, total, tokens = AutoTokenizer.from_pretrained(model), 0.0, 0
    for row in read_rows(rows.with_name("valid.jsonl")):
        made = tokenize_row(tokenizer, row, 48)
        ids, labelled = torch.tensor([made.input_ids]), torch.tensor(made.labels)[1:] >= 0
        with torch.no_grad():
            p, q = (one(input_ids=ids).logits[0, :-1][labelled].float().log_softmax(-1) for one in (whole, decoded))
        total += float((p.exp() * (p - q)).sum())
        tokens += int(labelled.sum())
    assert total / tokens == pytest.approx(learned.kl_after, rel=0.05, abs=2e-5)


def test_scales_that_come_no_nearer_are_not_taken(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    quantized(model, rows, tmp_path / "plain")
    monkeypatch.setattr(scale_distillation, "RATE", 0.5)  # of such steps nothing good comes
    learned = quantized(model, rows, tmp_path / "learned", distil_steps=STEPS)
    assert learned is not None and not learned.kept and learned.kl_after >= learned.kl_before
    before, after = tensors(tmp_path / "plain"), tensors(tmp_path / "learned")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_kill_while_scales_are_learned_or_written_ends_in_the_same_bytes(
    model: Path, rows: Path, tmp_path: Path
) -> None:
    assert forked(lambda: quantized(model, rows, tmp_path / "whole", distil_steps=STEPS)) == 0
    for place in ("_learn", "_write"):
        out, before = tmp_path / place, getattr(scale_distillation, place)

        def then_killed(*args: Any, of: Any = before) -> None:
            of(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        def work(to: Path = out) -> None:
            quantized(model, rows, to, distil_steps=STEPS)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scale_distillation, place, then_killed)
            assert os.WTERMSIG(forked(work)) == signal.SIGKILL
        assert forked(work) == 0
        for file in sorted((tmp_path / "whole").iterdir()):
            assert (out / file.name).read_bytes() == file.read_bytes(), file.name


def test_without_held_out_rows_nothing_is_learned(model: Path, rows: Path, tmp_path: Path) -> None:
    alone = tmp_path / "rows"
    alone.mkdir()
    shutil.copyfile(rows, alone / "train.jsonl")
    (alone / "valid.jsonl").touch()
    with pytest.raises(StepFailed, match="held-out rows"):
        quantized(model, alone / "train.jsonl", tmp_path / "q", distil_steps=STEPS)

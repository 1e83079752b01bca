"""Quantizing: what is packed, what stays, what is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_rows, write_tiny_model
from tunesmith.memory.errors import StepFailed
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.export.calibration import calibration_batches, calibration_rows
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.export.quantize_job import (
    FALLBACKS,
    chosen_group_size,
    out_of_memory_named,
    quantize_model,
    work_folder,
)
from tunesmith.tools.export.rounding_recipes import SMOOTHED, fallbacks_in, recipes
from tunesmith.tools.models.full_precision import Proof
from tunesmith.tools.models.tensor_file import read_headers, weight_files

pytestmark = pytest.mark.lab
_MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")


def quantize(model: Path, rows: Path, out: Path, scheme: str = "W4A16", **options: Any) -> Proof:
    config = json.loads((model / "config.json").read_text())
    settings: dict[str, Any] = {
        "scheme": scheme,
        "group_size": chosen_group_size(config, scheme, 0),
        "calibration_samples": 8,
        "max_seq_len_tokens": 64,
        "seed": 1,
        "keep": (),
    }
    progress = options.pop("progress", lambda *_: None)
    return quantize_model(model, rows, out, QuantizeRequest.model_validate(settings | options), progress)


def logits(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.arange(3, 60)[None]).logits


def test_what_is_to_be_kept_stays_as_it_was_and_the_others_are_packed(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    proof = quantize(tiny_llama, rows_file, tmp_path / "q", "W8A8", keep=["down_proj"])
    assert proof.quantized_layers == 12
    kept = {name: spec for name, spec in read_headers(weight_files(tmp_path / "q")).items() if "down_proj" in name}
    assert (
        len(kept) == 2 and {spec.dtype for spec in kept.values()} == {"BF16"} and set(kept) <= {*proof.full_precision}
    )


@pytest.mark.parametrize(("scheme", "packed"), [("W4A16", "I32"), ("W8A16", "I32"), ("W8A8", "I8")])
def test_every_projection_is_packed_and_the_rest_is_as_it_was(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, scheme: str, packed: str
) -> None:
    notes: list[str] = []
    proof = quantize(tiny_llama, rows_file, tmp_path / "q", scheme, progress=lambda _d, _t, note: notes.append(note))
    assert proof.quantized_layers == 14
    assert "model.embed_tokens.weight" in proof.full_precision
    weights = {
        spec.dtype
        for name, spec in read_headers(weight_files(tmp_path / "q")).items()
        if name.endswith(("proj.weight_packed", "proj.weight"))
    }
    assert weights == {packed}
    passes = ["smoothing", "quantizing"] if scheme == "W8A8" else ["quantizing"]
    assert [note for note in notes if "layer" in note] == [f"{one} layer {n} of 2" for one in passes for n in (1, 2)]
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "q" / name).read_bytes() == (tiny_llama / name).read_bytes()
    error = (logits(tmp_path / "q") - logits(tiny_llama)).norm() / logits(tiny_llama).norm()
    assert error < (0.35 if scheme == "W4A16" else 0.05)


def test_rounding_to_the_nearest_step_rounds_every_weight_by_itself(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    """No weight is further from its own than half a step, where GPTQ moves some to make up for others' errors."""
    layer = "model.layers.1.self_attn.o_proj"
    own, far = weight_of(tiny_llama, layer), {}
    for rounding in ("nearest", "gptq"):
        out = tmp_path / rounding
        quantize(tiny_llama, rows_file, out, rounding=rounding)
        far[rounding] = float(((weight_of(out, layer) - own).abs() / scales_of(out, layer, own.shape)).max())
    assert far["nearest"] < 0.52 < far["gptq"]


def test_rounding_to_the_nearest_step_smooths_too(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    quantize(
        tiny_llama, rows_file, tmp_path / "q", "W8A8", rounding="nearest", progress=lambda *said: notes.append(said[2])
    )
    assert [note for note in notes if "smoothing layer" in note]
    error = (logits(tmp_path / "q") - logits(tiny_llama)).norm() / logits(tiny_llama).norm()
    assert error < 0.05


def weight_of(folder: Path, layer: str) -> Any:
    """A layer's weight as the model computes with it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model(torch.arange(3, 9)[None])  # codes become weights when they are first used
    return model.get_parameter(f"{layer}.weight").detach()


def scales_of(folder: Path, layer: str, shape: Any) -> Any:
    """The step of each weight of a layer."""
    from safetensors import safe_open

    for file in weight_files(folder):
        with safe_open(file, "pt") as tensors:
            if f"{layer}.weight_scale" in tensors.keys():  # noqa: SIM118
                scale = tensors.get_tensor(f"{layer}.weight_scale").float()
                return scale.repeat_interleave(shape[1] // scale.shape[1], dim=1)
    raise AssertionError(f"{layer} has no scales")


@pytest.mark.parametrize("kind", sorted(SMOOTHED))
def test_smoothing_changes_the_norms_and_not_what_the_model_computes(
    kind: str, rows_file: Path, tmp_path: Path
) -> None:
    import torch
    from llmcompressor import oneshot
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_tiny_model(tmp_path / "model", kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    doing, smoothing = next(recipes("W8A8", 0, json.loads((folder / "config.json").read_text())))
    assert doing == "smoothing"
    batches = DataLoader(
        calibration_batches(tokenizer, calibration_rows(tokenizer, rows_file, 8, 64, 1)), batch_size=None
    )
    norms = [name for name, _ in model.named_parameters() if "layernorm" in name]
    before = {name: model.get_parameter(name).clone() for name in norms}
    oneshot(model=model, tokenizer=tokenizer, dataset=batches, recipe=smoothing, pipeline="sequential")
    scaled = {
        name.rpartition(".layers.")[2].split(".")[1]
        for name in norms
        if not before[name].equal(model.get_parameter(name))
    }
    assert scaled == {"input_layernorm"} | (set() if kind in _MIXTURES else {"post_attention_layernorm"})
    with torch.no_grad():
        smoothed = model(torch.arange(3, 60)[None]).logits
    assert torch.allclose(smoothed, logits(folder), atol=1e-4)


@pytest.mark.parametrize("kind", ["gemma2", "granite", "a model of tomorrow"])
def test_a_norm_that_may_not_be_scaled_is_left_alone(kind: str, tiny_llama: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text()) | {"model_type": kind}
    assert [doing for doing, _ in recipes("W8A8", 0, config)] == ["quantizing"]


@pytest.mark.parametrize("kind", ["qwen3_moe", "qwen2_moe"])
def test_routers_and_gates_of_a_mixture_stay_full_precision(kind: str, rows_file: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", kind, tie_word_embeddings=False)
    proof = quantize(model, rows_file, tmp_path / "q")
    kept = {name.removeprefix("model.") for name in proof.full_precision}
    expected = {"lm_head.weight", "embed_tokens.weight", "layers.0.mlp.gate.weight", "layers.1.mlp.gate.weight"}
    if kind == "qwen2_moe":
        expected |= {f"layers.{n}.mlp.shared_expert_gate.weight" for n in (0, 1)}
    assert kept == expected
    experts = [
        name
        for name in read_headers(weight_files(tmp_path / "q"))
        if ".experts." in name and name.endswith("weight_packed")
    ]
    assert len(experts) == 2 * 4 * 3  # layers, experts, projections: each its own, each calibrated


def test_the_fast_column_loop_is_the_librarys() -> None:
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.modifiers.gptq import gptq_quantize

    from tunesmith.tools.cpu.gptq_blocks import cpu_gptq_block_update

    torch.manual_seed(2)
    for bits, group in ((4, 32), (8, None)):
        shape: dict[str, Any] = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        args = QuantizationArgs(num_bits=bits, type="int", symmetric=True, **shape)
        weights = torch.randn(2, 48, 64)
        inverse = torch.linalg.cholesky(torch.eye(64) + torch.rand(2, 64, 64) / 200, upper=True)
        groups = 64 // group if group else 1
        scale = weights.reshape(2, 48, groups, -1).abs().amax(-1) / (2 ** (bits - 1) - 1)
        index = torch.arange(64) // group if group else None

        def run(update: Any, weights: Any = weights, inverse: Any = inverse, scale: Any = scale,
                index: Any = index, args: Any = args) -> list[Any]:  # fmt: skip
            work = weights.clone()
            out = [torch.zeros_like(work) for _ in range(3)]
            g_idx = None if index is None else index.expand(2, -1)
            update(work, inverse, *out, scale=scale, zero_point=torch.zeros_like(scale), global_scale=None,
                   g_idx=g_idx, quant_args=args, i1=0)  # fmt: skip
            return out

        eager = gptq_quantize.gptq_block_update.__wrapped__ if hasattr(
            gptq_quantize.gptq_block_update, "__wrapped__") else gptq_quantize.gptq_block_update  # fmt: skip
        quantized, errors, losses = run(eager)
        for ours, theirs in zip(run(cpu_gptq_block_update), (quantized, errors, losses), strict=True):
            close = torch.isclose(ours, theirs, atol=1e-4, rtol=1e-3).float().mean()
            assert close > 0.99  # a value at a rounding boundary may fall to the other side


def test_calibration_uses_whole_training_rows_and_the_same_ones_for_a_seed(tiny_llama: Path, rows_file: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    batches = list(calibration_batches(tokenizer, calibration_rows(tokenizer, rows_file, 10, 512, seed=4)))
    again = list(calibration_batches(tokenizer, calibration_rows(tokenizer, rows_file, 10, 512, seed=4)))
    assert sum(len(batch["input_ids"]) for batch in batches) == 10
    assert all(bool((a["input_ids"] == b["input_ids"]).all()) for a, b in zip(batches, again, strict=True))
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            text = tokenizer.decode(ids[mask.bool()])
            assert text.startswith("<|im_start|>user\nSay the number:")
            assert text.endswith("<|im_end|>")


def test_a_group_that_does_not_divide_is_refused_with_one_that_does(tiny_llama: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    assert chosen_group_size(config, "W4A16", 0) == 64
    assert chosen_group_size(config, "W8A16", 0) == 0
    assert chosen_group_size(config, "W4A16", 32) == 32
    with pytest.raises(StepFailed, match="try group_size=64"):
        chosen_group_size(config, "W4A16", 128)
    with pytest.raises(StepFailed, match="leave group_size out"):
        chosen_group_size(config, "W8A8", 64)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"max_seq_len_tokens": 1 << 20},
            r"needs [0-9.]+ GiB of RAM and swap, [0-9.]+ GiB free; try max_seq_len_tokens=524288",
        ),
        ({"calibration_samples": 1 << 30}, r"needs [0-9.]+ TiB of disk, [0-9.]+ GiB free at .*; make room"),
    ],
)
def test_too_little_memory_or_disk_is_found_before_the_model_is_loaded(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, options: dict[str, int], says: str
) -> None:
    with pytest.raises(StepFailed, match=says):
        quantize(tiny_llama, rows_file, tmp_path / "q", **options)
    assert not (tmp_path / "q").exists()


def test_vram_that_runs_out_is_told_with_what_to_try() -> None:
    import torch

    with (
        pytest.raises(
            StepFailed, match=r"out of VRAM .*2\.00 GiB.* try max_seq_len_tokens=128, or quantize on the CPU"
        ),
        out_of_memory_named(256),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
    with pytest.raises(RuntimeError, match="something else"), out_of_memory_named(256):
        raise RuntimeError("something else")


def test_one_row_is_enough_to_calibrate(tiny_llama: Path, tmp_path: Path) -> None:
    assert quantize(tiny_llama, write_rows(tmp_path / "one.jsonl", 1), tmp_path / "q").quantized_layers == 14


def test_layers_that_gptq_only_rounds_are_counted_over_a_kill_and_said(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their Hessians get a negative curvature, which no damping mends, as a degenerate calibration gives one."""
    from llmcompressor.modifiers.gptq import gptq_quantize

    factorize, out = gptq_quantize.factorize_hessian, tmp_path / "q"

    def spoilt(weights: Any, hessians: Any, *more: Any) -> Any:
        if weights.shape[-2] == weights.shape[-1]:  # q_proj and o_proj
            hessians[:, 0, 0] = -1e6
        return factorize(weights, hessians, *more)

    def killed(done: float, total: float, note: str) -> None:
        if note == "quantizing layer 2 of 2":
            raise KeyboardInterrupt

    monkeypatch.setattr(gptq_quantize, "factorize_hessian", spoilt)
    with pytest.raises(KeyboardInterrupt):
        quantize(tiny_llama, rows_file, out, progress=killed)
    quantize(tiny_llama, rows_file, out)
    square = {f"model.layers.{layer}.self_attn.{name}_proj" for layer in (0, 1) for name in "qo"}
    assert set(fallbacks_in(work_folder(out) / FALLBACKS)) == square
    audit = Audit(model="quantized", quantized_layers=14, fallbacks=len(square))
    assert "4 of 14 layers were rounded to the nearest step instead of by GPTQ" in audit.summary


def test_nothing_is_said_of_fallbacks_where_there_were_none(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> None:
    quantize(tiny_llama, rows_file, tmp_path / "q")
    assert fallbacks_in(work_folder(tmp_path / "q") / FALLBACKS) == ()
    assert "rounded to the nearest" not in Audit(model="quantized", quantized_layers=14).summary

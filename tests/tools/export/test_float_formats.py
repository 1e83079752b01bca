"""FP8: saved is the format's nearest value, the rest is untouched, what is tampered with is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_rows, write_tiny_model
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.machine import Gpu, Machine
from tunesmith.tools.core.stage import GIB, Facts, Plan
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.float_kernels import served
from tunesmith.tools.export.quantize import STAGE, QuantizeRequest, expected_artifact, plan
from tunesmith.tools.export.quantize_job import quantize_model
from tunesmith.tools.models.full_precision import Proof
from tunesmith.tools.models.quantized_layout import Layout, decoded
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.models.tensor_file import TensorPlace, read_headers, read_places, weight_files
from tunesmith.tools.models.tensor_values import floats

pytestmark = pytest.mark.lab
WIDE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 4}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 128, "head_dim": 32, "tie_word_embeddings": False}
QUERY = "model.layers.1.self_attn.q_proj"


class Made:
    """Models and what they became, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model, self.quantized = cache(self._model), cache(self._quantized)

    def _model(self, kind: str) -> Path:
        return write_tiny_model(self.folder / kind, kind, **WIDE, **(EXPERTS if kind == "qwen3_moe" else {}))

    def _quantized(self, kind: str) -> tuple[Path, Proof]:
        model, out = self.model(kind), self.folder / f"{kind} fp8"
        rows = write_rows(self.folder / "rows.jsonl", 8)
        request = QuantizeRequest(scheme="FP8", calibration_samples=8, max_seq_len_tokens=48, seed=1, keep=())
        return out, quantize_model(model, rows, out, request, lambda *_: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("floats"))


def config_of(model: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((model / "config.json").read_text())
    return document


def places_of(folder: Path) -> dict[str, TensorPlace]:
    return {name: place for file in weight_files(folder) for name, place in read_places(file).items()}


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


def decompressed(folder: Path) -> dict[str, Any]:
    """Every quantized layer's weight, by compressed-tensors' own reading of the files."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    described = QuantizationConfig.model_validate(config_of(folder)["quantization_config"])
    [scheme] = described.config_groups.values()
    reader = BaseCompressor.get_value_from_registry(described.format)
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors(folder).items():
        layer, _, end = name.rpartition(".")
        layers.setdefault(layer, {})[end] = tensor
    weights = {}
    for layer, state in layers.items():
        if "weight_scale" in state:
            wide = state["weight_scale"].dtype == torch.bfloat16  # else its products are rounded to 16 bits
            state |= {"weight_scale": state["weight_scale"].float()} if wide else {}
            weights[layer] = reader.decompress(state, scheme)["weight"].float().numpy()
    return weights


def steps(weight: Any) -> Any:
    """The distance between neighbouring E4M3 values where each weight is (arXiv 2209.05433), one scale for a row."""
    import numpy as np

    scales = abs(weight).max(1, keepdims=True) / 448
    exponents = np.maximum(np.frexp(abs(weight) / scales)[1] - 1, -6) - 3
    return scales * np.ldexp(np.float32(1), exponents)


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_every_weight_is_the_nearest_value_of_its_format_and_the_rest_is_as_it_was(made: Made, kind: str) -> None:
    model, (out, proof) = made.model(kind), made.quantized(kind)
    before, after, read = places_of(model), places_of(out), decompressed(out)
    layout = Layout.of(config_of(out))
    assert len(read) == proof.quantized_layers == (14 if kind == "llama" else 2 * (4 + 4 * 3))
    for layer, weight in read.items():
        was = floats(before[f"{layer}.weight"])
        share = abs(weight - was) / steps(was)
        # The library divides in bfloat16, which is half a step of 2^-5 more.
        assert share.max() < 0.54, layer
        assert abs(decoded(after, layer, was.shape, layout, slice(None)) - weight).max() <= 2**-7 * abs(was).max()
    ours, theirs = tensors(model), tensors(out)
    stays = [name for name in ours if name.removesuffix(".weight") not in read]
    assert stays and all(ours[one].equal(theirs[one]) for one in stays)
    assert set(proof.full_precision) <= set(stays)
    if kind == "qwen3_moe":
        assert {f"model.layers.{n}.mlp.gate.weight" for n in (0, 1)} | {"lm_head.weight"} <= set(proof.full_precision)
    else:
        assert proof.full_precision == ("model.embed_tokens.weight",) and "lm_head.weight" not in theirs


def test_transformers_computes_with_it_what_the_merged_model_does(made: Made) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    def logits(folder: Path) -> Any:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        with torch.no_grad():
            return model(torch.arange(3, 60)[None]).logits.float()

    merged = logits(made.model("llama"))
    error = (logits(made.quantized("llama")[0]) - merged).norm() / merged.norm()
    assert 0 < error < 0.06


# --- what the audit finds


def rewrite(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    from safetensors.torch import load_file, save_file

    [file] = [file for file in weight_files(folder) if name in read_headers([file])]
    held = load_file(file)
    save_file(held | {name: change(held[name]).contiguous()}, file, {"format": "pt"})


def put(code: int, *at: int) -> Callable[[Any], Any]:
    """A tensor with one of its bytes changed."""

    def change(tensor: Any) -> Any:
        import torch

        tensor.view(torch.uint8)[at] = code
        return tensor

    return change


def audited(made: Made, tmp_path: Path, end: str, change: Callable[[Any], Any] | None) -> Audit:
    folder = tmp_path / "q"
    shutil.copytree(made.quantized("llama")[0], folder)
    if change:
        rewrite(folder, f"{QUERY}.{end}", change)
    return audit_quantized(folder, made.model("llama"), group_size=0)


def test_what_was_saved_passes_its_audit(made: Made, tmp_path: Path) -> None:
    audit = audited(made, tmp_path, "", None)
    assert audit.refusal == "" and audit.decoded == audit.quantized_layers == 14
    assert audit.weight_error is not None and audit.weight_error < 0.03


@pytest.mark.parametrize(
    ("end", "change", "kind"),
    [
        ("weight", put(0x7F, 3, 4), "not finite"),
        ("weight", lambda codes: codes.view(dtype=__import__("torch").int8), "shape"),
        ("weight", lambda codes: codes.flip(0), "other model"),
        ("weight_scale", lambda scales: scales.index_fill(0, scales.new_zeros(1).long(), 0), "scale"),
        ("weight_scale", lambda scales: -scales, "scale"),
        ("weight_scale", lambda scales: scales[:1], "group size"),
    ],
)
def test_a_tampered_tensor_is_found_by_its_name(
    made: Made, end: str, change: Callable[[Any], Any], kind: str, tmp_path: Path
) -> None:
    faults = audited(made, tmp_path, end, change).faults
    assert kind in {fault.kind for fault in faults} and {QUERY, f"{QUERY}.{end}"} & {fault.where for fault in faults}
    assert all(fault.where.startswith(QUERY) for fault in faults)


def test_a_router_in_fp8_is_found(made: Made, tmp_path: Path) -> None:
    import torch

    folder, router = tmp_path / "q", "model.layers.1.mlp.gate.weight"
    shutil.copytree(made.quantized("qwen3_moe")[0], folder)
    rewrite(folder, router, lambda weight: weight.to(torch.float8_e4m3fn))
    [fault] = audit_quantized(folder, made.model("qwen3_moe"), group_size=0).faults
    assert (fault.kind, fault.where) == ("precision", router)


# --- what is planned


def facts(config: dict[str, Any], tmp_path: Path, *gpus: Gpu) -> Facts:
    merged = Artifact(
        "a1", "r1", "s1", "merged", tmp_path, "s", 16 * GIB, meta={"config": config, "parameters": 8_000_000_000}
    )
    dataset = Artifact("a2", "r1", "s1", "dataset", tmp_path, "d", 9, meta={"train_rows": 900, "tokens_per_row": 200})
    machine = Machine("cpu", 8, 64 * GIB, 64 * GIB, 0, 99 * GIB, gpus)
    return Facts(tmp_path, machine, "r1", artifacts={"merged": merged, "dataset": dataset})


LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
    "tie_word_embeddings": False,
}  # fmt: skip


def planned(tmp_path: Path, config: dict[str, Any] | None = None, **fields: Any) -> Plan:
    return plan(QuantizeRequest(**fields), facts(config or LLAMA, tmp_path))


def test_a_float_format_is_planned_without_data_and_cheaper_than_gptq(tmp_path: Path) -> None:
    made_, gptq = planned(tmp_path, scheme="FP8"), planned(tmp_path, scheme="W4A16")
    assert not made_.refusals and made_.request["rounding"] == "nearest" and "FP8" in made_.reasons["rounding"]
    assert made_.request["keep"] == [] and not any("calibrate" in step or "outliers" in step for step in made_.steps)
    assert made_.estimate.seconds < gptq.estimate.seconds / 2
    assert made_.estimate.peak_ram_bytes < gptq.estimate.peak_ram_bytes
    again = plan(QuantizeRequest.model_validate(made_.request), facts(LLAMA, tmp_path))
    assert again.request == made_.request and not again.refusals, "a plan that is priced again stays what it was"


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_the_bytes_that_are_expected_are_those_that_are_written(made: Made, kind: str, tmp_path: Path) -> None:
    artifacts = facts(config_of(made.model(kind)), tmp_path).artifacts
    expected = expected_artifact(QuantizeRequest(scheme="FP8"), artifacts)
    written = sum(place.end - place.start for place in places_of(made.quantized(kind)[0]).values())
    assert expected is not None and written == pytest.approx(expected.bytes, rel=0.02)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"scheme": "FP8", "rounding": "gptq"}, "there is no GPTQ for it; set rounding=nearest"),
        (
            {"scheme": "FP8", "group_size": 64},
            "a scale for an output channel, which is its format; leave group_size out",
        ),
        ({"scheme": "W8A8", "group_size": 64}, "leave group_size out"),
        ({"scheme": "W4A16", "group_size": 7}, "does not divide every layer of this model; try group_size="),
        ({"scheme": "FP8", "calibration_samples": 128}, "leave calibration_samples and calibration_tokens at auto"),
    ],
)
def test_a_setting_that_a_format_cannot_follow_is_refused_by_name(
    fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    [refusal] = planned(tmp_path, **fields).refusals
    assert says in refusal and refusal.startswith((fields["scheme"], f"group_size={fields.get('group_size')} "))


def test_an_edited_scheme_is_not_held_to_the_default_of_another(tmp_path: Path) -> None:
    """The plan of W8A8 that is edited holds rounding=gptq, which nobody said."""
    before = {"scheme": "W8A8", "rounding": "gptq", "keep": ["down_proj"]}
    assert STAGE.carried_over(before, {"scheme": "FP8"}) == {"scheme": "W8A8", "keep": ["down_proj"]}
    assert STAGE.carried_over(before, {"seed": 3}) == before
    edited = planned(tmp_path, **{**planned(tmp_path, scheme="W8A8").request, "scheme": "FP8", "rounding": "nearest"})
    assert edited.request["calibration_tokens"] == "auto" and not edited.refusals
    assert STAGE.carried_over(before | {"rounding": "nearest"}, {"scheme": "W4A16"})["rounding"] == "nearest"


@pytest.mark.parametrize(
    ("capability", "says"),
    [
        ("8.9", "vLLM multiplies FP8 in FP8, as from 8.9 on"),
        ("8.6", "vLLM reads FP8 weights and multiplies in 16 bits (Marlin); in FP8 from 8.9 on"),
    ],
)
def test_a_plan_says_what_a_card_computes_a_format_with(capability: str, says: str, tmp_path: Path) -> None:
    card = Gpu(0, "NVIDIA Card", 80 * GIB, 80 * GIB, capability, "570")
    [note] = plan(QuantizeRequest(scheme="FP8"), facts(LLAMA, tmp_path, card)).notes
    assert says in note and f"NVIDIA Card has compute capability {capability}" in note


def test_on_a_cpu_a_plan_says_what_vllm_does_and_of_integers_nothing(tmp_path: Path) -> None:
    here = facts(LLAMA, tmp_path)
    notes = {name: served(scheme, here) for name, scheme in SCHEMES.items()}
    assert [name for name, note in notes.items() if not note] == ["W4A16", "W8A16", "W8A8"]
    assert "emulates" in notes["FP8"]

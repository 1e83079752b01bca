"""AutoRound: nearer to the merged model, whole after a kill, audited, and refused where they cannot be done."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.forked import forked
from tests.fixtures.lab_model import write_rows, write_tiny_model
from tunesmith.memory.records import Artifact
from tunesmith.tools.export import rounding_recipes
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.calibration import calibration_batches, calibration_rows, chosen_rows, joined_batches
from tunesmith.tools.export.quantize import QuantizeRequest, contradictions, resolved
from tunesmith.tools.export.quantize_job import quantize_model
from tunesmith.tools.models.tensor_file import read_places, weight_files
from tunesmith.tools.models.tensor_values import floats

pytestmark = pytest.mark.lab
GROUP, TOKENS, SEED = 32, 48, 1
OUTLIERS, FACTOR = slice(3, None, 24), 24.0


@pytest.fixture(scope="module", autouse=True)
def fewer_steps() -> Iterator[None]:
    """Of AutoRound: of a tiny layer a fifth of them is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding_recipes, "ROUNDING_STEPS", 40)
        yield


@pytest.fixture
def hardly_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not matter how near it comes."""
    monkeypatch.setattr(rounding_recipes, "ROUNDING_STEPS", 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model some of whose norms make three inputs much larger than the others, as trained ones do."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_tiny_model(tmp_path_factory.mktemp("merged") / "model", "llama", initializer_range=0.2)
    for file in weight_files(folder):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "layernorm" in name:
                tensor[OUTLIERS] *= FACTOR
        save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", 24)


@pytest.fixture(scope="module")
def made(model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model quantized in some way, once; in a child, as a worker is, so that kills can be compared with it."""
    folder = tmp_path_factory.mktemp("quantized")
    quantized(model, rows, folder / "warm", "autoround")  # what is imported here need not be in every child

    def make(rounding: str) -> Path:
        out = folder / rounding
        if not out.exists():
            assert forked(lambda: quantized(model, rows, out, rounding)) == 0
        return out

    return make


def quantized(model: Path, rows: Path, out: Path, rounding: str, **options: Any) -> Path:
    settings = {"calibration_samples": 16, "max_seq_len_tokens": TOKENS, "seed": SEED, "keep": (), **options}
    request = QuantizeRequest(scheme="W4A16", group_size=GROUP, rounding=rounding, **settings)  # type: ignore[arg-type]
    quantize_model(model, rows, out, request, lambda *_: None)
    return out


def divergence(folder: Path, model: Path, rows: Path) -> float:
    """Nats a token from the model, on rows that nothing was calibrated on."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    batches = calibration_batches(tokenizer, calibration_rows(tokenizer, rows, 24, TOKENS, seed=9))
    whole, rounded = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (model, folder))
    total = tokens = 0.0
    with torch.no_grad():
        for batch in batches:
            wanted, found = (each(**batch).logits.log_softmax(-1) for each in (whole, rounded))
            real = batch["attention_mask"].bool()
            total += float((wanted.exp() * (wanted - found)).sum(-1)[real].sum())
            tokens += float(real.sum())
    return total / tokens


def test_it_comes_nearer_than_the_nearest_step(made: Callable[[str], Path], model: Path, tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "held_out.jsonl", 60)
    held_out.write_text("".join(held_out.read_text().splitlines(keepends=True)[30:]))
    far = {rounding: divergence(made(rounding), model, held_out) for rounding in ("nearest", "autoround")}
    assert far["autoround"] < 0.7 * far["nearest"], far


def test_autoround_takes_both_signs_of_a_scale_and_is_audited_for_it(made: Callable[[str], Path], model: Path) -> None:
    out = made("autoround")
    scales = [floats(place) for name, place in places_of(out).items() if name.endswith("weight_scale")]
    below = sum(int((scale < 0).sum()) for scale in scales) / sum(scale.size for scale in scales)
    assert 0.2 < below < 0.8
    audit = audit_quantized(out, model, group_size=GROUP, rounding="autoround")
    assert audit.refusal == "" and audit.weight_error and audit.weight_error < 0.25
    others = audit_quantized(out, model, group_size=GROUP).faults
    assert {fault.kind for fault in others} == {"scale"}, "no other way of rounding makes such scales"


@pytest.mark.usefixtures("hardly_a_step")
def test_what_is_kept_stays_as_it_was(model: Path, rows: Path, tmp_path: Path) -> None:
    out = quantized(model, rows, tmp_path / "q", "autoround", keep=["down_proj"], calibration_samples=4)
    before, after = places_of(model), places_of(out)
    for layer in (0, 1):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        assert bytes_at(before[name]) == bytes_at(after[name])
    assert audit_quantized(out, model, ["down_proj"], group_size=GROUP, rounding="autoround").refusal == ""


def places_of(folder: Path) -> dict[str, Any]:
    return {name: place for file in weight_files(folder) for name, place in read_places(file).items()}


def bytes_at(place: Any) -> bytes:
    data: bytes = place.path.read_bytes()[place.start : place.end]
    return data


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_killed_at_a_layer_it_goes_on_to_the_same_bytes(
    made: Callable[[str], Path], model: Path, rows: Path, tmp_path: Path
) -> None:
    """As its shard gets its name: the next layer goes on from what the one before left on disk, and nothing else."""
    out, replace, after = tmp_path / "q", os.replace, "model-00002-of-00003.safetensors"

    def kill(source: Any, target: Any) -> None:
        replace(source, target)
        if Path(target).name == after:
            os.kill(os.getpid(), signal.SIGKILL)

    def cut_off() -> None:
        Path.replace = lambda self, target: kill(self, target)  # type: ignore[method-assign,assignment,return-value]
        quantized(model, rows, out, "autoround")

    assert os.WTERMSIG(forked(cut_off)) == signal.SIGKILL
    assert (out / after).exists() and not (out / "config.json").exists()
    assert forked(lambda: quantized(model, rows, out, "autoround")) == 0
    assert bytes_of(out) == bytes_of(made("autoround"))


def test_rows_are_joined_to_pieces_of_one_length_and_hardly_a_token_is_lost(model: Path, rows: Path) -> None:
    from transformers import AutoTokenizer

    from tunesmith.tools.training.rows import tokenize_row

    tokenizer = AutoTokenizer.from_pretrained(model)
    batches = joined_batches(calibration_rows(tokenizer, rows, 10, TOKENS, SEED), TOKENS, SEED)
    lengths = {tuple(batch["input_ids"].shape) for batch in batches}
    assert len(lengths) == 1 and all(bool(batch["attention_mask"].all()) for batch in batches)
    [(one, length)] = lengths
    assert one == 1 and TOKENS // 2 < length <= TOKENS
    counts = [len(tokenize_row(tokenizer, row, TOKENS).input_ids) for row in chosen_rows(rows, 10, SEED)]
    assert 0 <= sum(counts) - len(batches) * length < len(batches)
    again = joined_batches(calibration_rows(tokenizer, rows, 10, TOKENS, SEED), TOKENS, SEED)
    assert all(bool((a["input_ids"] == b["input_ids"]).all()) for a, b in zip(batches, again, strict=True))


@pytest.mark.usefixtures("hardly_a_step")
def test_where_the_processor_has_no_bf16_what_stays_is_stored_as_it_was(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AutoRound takes the whole layer to fp32 there."""
    from auto_round.utils.device_manager import CpuARDevice

    monkeypatch.setattr(CpuARDevice, "supports_bf16", lambda self: False)
    out = quantized(model, rows, tmp_path / "q", "autoround", calibration_samples=4)
    assert audit_quantized(out, model, group_size=GROUP, rounding="autoround").refusal == ""
    assert {place.spec.dtype for name, place in places_of(out).items() if "norm" in name} == {"BF16"}


@pytest.mark.usefixtures("hardly_a_step")
def test_a_row_shorter_than_the_longest_calibration_row_is_enough(model: Path, tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", 1)
    out = quantized(model, one, tmp_path / "q", "autoround", max_seq_len_tokens=256)
    assert audit_quantized(out, model, group_size=GROUP, rounding="autoround").refusal == ""


LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True,
    "dtype": "bfloat16",
}  # fmt: skip
MIXTURE = LLAMA | {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}


@pytest.mark.parametrize(
    ("asked", "config", "says"),
    [
        ({"scheme": "W8A8"}, LLAMA, "set scheme=W4A16, or rounding=gptq"),
        ({"scheme": "W8A16"}, LLAMA, "set scheme=W4A16, or rounding=gptq"),
        ({"scheme": "FP8"}, LLAMA, "set rounding=nearest"),
        ({"scheme": "W4A16"}, MIXTURE, "the experts of a mixture get GPTQ: set rounding=gptq"),
    ],
)
def test_what_a_search_cannot_do_is_refused_by_name_with_what_can(
    asked: dict[str, Any], config: dict[str, Any], says: str
) -> None:
    found = contradictions(QuantizeRequest(rounding="autoround", **asked), config)
    assert any("AutoRound" in refusal and says in refusal for refusal in found), found
    instead = "nearest" if asked["scheme"] == "FP8" else "gptq"
    works = QuantizeRequest(rounding=instead, **asked)  # type: ignore[arg-type]
    assert contradictions(works, config) == ()


def test_it_is_refused_for_weights_in_another_type_than_it_computes_in() -> None:
    request = QuantizeRequest(scheme="W4A16", rounding="autoround")
    [refusal] = contradictions(request, LLAMA | {"dtype": "float16"})
    assert "float16" in refusal and "rounding=gptq" in refusal and contradictions(request, LLAMA) == ()


def test_who_asks_for_a_search_alone_gets_the_scheme_that_it_is_for(tmp_path: Path) -> None:
    merged = Artifact("a1", "r1", "s1", "merged", tmp_path, "", 1, (), {"config": LLAMA, "parameters": 1000})
    request, reasons = resolved(QuantizeRequest(rounding="autoround"), merged)
    assert request.scheme == "W4A16" and "AutoRound" in reasons["scheme"]
    assert resolved(QuantizeRequest(), merged)[0].scheme == "W8A8"

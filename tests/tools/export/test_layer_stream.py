"""Quantizing layer by layer: the very numbers of llm-compressor, and the very bytes after a kill at any point."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.forked import forked
from tests.fixtures.lab_model import write_tiny_model
from tunesmith.memory.errors import StepFailed
from tunesmith.tools.export import quantize_job
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.calibration import calibration_batches, calibration_rows
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.export.quantize_job import quantize_model, work_folder
from tunesmith.tools.export.rounding_recipes import recipes
from tunesmith.tools.models.tensor_file import INDEX_NAME, weight_files

pytestmark = pytest.mark.lab
GROUP, SAMPLES, TOKENS, SEED = 64, 16, 64, 1
EXPERTS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {}, "qwen2_moe": {}, "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip


def made(kind: str, folder: Path, **changes: Any) -> Path:
    tied = kind not in EXPERTS
    return write_tiny_model(folder, kind, tie_word_embeddings=tied, **EXPERTS.get(kind, {}), **changes)


def streamed(model: Path, rows: Path, out: Path, scheme: str = "W4A16", **options: Any) -> Path:
    progress = options.pop("progress", lambda *_: None)
    settings = {"calibration_samples": SAMPLES, "max_seq_len_tokens": TOKENS, "seed": SEED, "keep": ()}
    settings |= {"scheme": scheme, "group_size": GROUP if scheme == "W4A16" else 0, **options}
    quantize_model(model, rows, out, QuantizeRequest.model_validate(settings), progress)
    return out


@contextmanager
def listable_modules() -> Iterator[None]:
    """Without the modules of transformers that cannot be listed where torchvision is not: linearizing lists all."""
    hidden = {}
    for name in [name for name in sys.modules if name.startswith("transformers.")]:
        try:
            dir(sys.modules[name])
        except ImportError:
            hidden[name] = sys.modules.pop(name)
    try:
        yield
    finally:
        sys.modules.update(hidden)


def in_one_piece(model_dir: Path, rows: Path, out: Path, scheme: str) -> Path:
    """The whole model in memory, as in llm-compressor's examples."""
    from llmcompressor import oneshot
    from llmcompressor.modeling.moe.linearize import load_quantizable_moe
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.conversion_mapping import (
        get_checkpoint_conversion_mapping,
        register_checkpoint_conversion_mapping,
    )

    config = json.loads((model_dir / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    batches = DataLoader(
        calibration_batches(tokenizer, calibration_rows(tokenizer, rows, SAMPLES, TOKENS, SEED)), batch_size=None
    )
    kind = config["model_type"]
    before = get_checkpoint_conversion_mapping(kind)
    try:
        with listable_modules(), load_quantizable_moe():
            model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
        for doing, recipe in recipes(scheme, GROUP if scheme == "W4A16" else 0, config):
            oneshot(model=model, tokenizer=tokenizer, dataset=batches, recipe=recipe, num_calibration_samples=SAMPLES,
                    pipeline="sequential", propagate_error=doing == "quantizing")  # fmt: skip
        model.save_pretrained(out, save_compressed=True)
    finally:  # linearizing changes how this process loads the architecture
        if before is not None:
            register_checkpoint_conversion_mapping(kind, before, overwrite=True)
    return out


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("llama", "W8A8"),
        ("qwen3_moe", "W4A16"),
        ("qwen3_moe", "FP8"),
        pytest.param("llama", "FP8", marks=pytest.mark.slow),
        *(pytest.param(kind, "W4A16", marks=pytest.mark.slow) for kind in ("llama", "qwen2_moe", "mixtral", "olmoe")),
        pytest.param("gemma2", "W4A16", marks=pytest.mark.slow),
        pytest.param("qwen3_moe", "W8A8", marks=pytest.mark.slow),
    ],
)
def test_layer_by_layer_is_bit_for_bit_what_the_whole_model_gives(
    kind: str, scheme: str, rows_file: Path, tmp_path: Path
) -> None:
    import torch

    model = made(kind, tmp_path / "model")
    one, other = (
        streamed(model, rows_file, tmp_path / "streamed", scheme),
        in_one_piece(model, rows_file, tmp_path / "whole", scheme),
    )
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    told, expected = (json.loads((folder / "config.json").read_text()) for folder in (one, other))
    assert told["quantization_config"] == expected["quantization_config"]
    group = GROUP if scheme == "W4A16" else 0
    assert audit_quantized(one, model, group_size=group).refusal == ""


def test_each_layer_has_a_shard_and_what_is_beside_them_is_copied(rows_file: Path, tmp_path: Path) -> None:
    model = made("llama", tmp_path / "model", shard_size="100KB")
    assert len(weight_files(model)) == 2
    out = streamed(model, rows_file, tmp_path / "q")
    placed = json.loads((out / INDEX_NAME).read_text())["weight_map"]
    for name, shard in placed.items():
        number = int(name.split(".")[2]) + 2 if ".layers." in name else 1
        assert shard == f"model-{number:05}-of-00003.safetensors", name
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= placed.keys()


def test_the_peak_does_not_depend_on_the_depth(rows_file: Path, tmp_path: Path) -> None:
    """Counted on the model itself: never are two layers there at once."""
    from tunesmith.tools.export.streamed_weights import StreamedWeights

    loaded: list[str] = []
    most = 0

    class Counting(StreamedWeights):
        def load(self, module: str) -> None:
            nonlocal most
            super().load(module)
            loaded.append(module)
            there = {name.split(".")[2] for name, p in self.model.named_parameters()
                     if ".layers." in name and not p.is_meta}  # fmt: skip
            most = max(most, len(there))

    model = made("llama", tmp_path / "model", num_hidden_layers=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize_job, "StreamedWeights", Counting)
        streamed(model, rows_file, tmp_path / "q")
    assert most == 1 and sum(".layers." in module for module in loaded) == 4


def killed_at(point: int, work: Callable[[], object]) -> Callable[[], object]:
    """The same work, ended by SIGKILL when it would sync a file for the nth time."""
    synced = 0
    sync = os.fsync

    def counted(file: int) -> None:
        nonlocal synced
        synced += 1
        if synced > point:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(file)

    def run() -> object:
        os.fsync = counted
        return work()

    return run


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def unkilled(rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and what quantizing it gives when nobody kills it."""
    folder = tmp_path_factory.mktemp("unkilled")
    model = made("llama", folder / "model")
    streamed(model, rows_file, folder / "warm")  # what is imported here need not be in every child
    assert forked(lambda: streamed(model, rows_file, folder / "q", "W8A8")) == 0
    return model, folder / "q"


@pytest.mark.parametrize("point", [11, 29, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 35, 3))])
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    unkilled: tuple[Path, Path], rows_file: Path, tmp_path: Path, point: int
) -> None:
    """What the smoothing and the quantizing sync, file by file; at most the layer that was cut off is made again."""
    model, whole = unkilled

    def work() -> None:
        streamed(model, rows_file, tmp_path / "q", "W8A8")

    def shards() -> dict[Path, int]:
        found = (tmp_path / "q").glob("model-*")
        return {path: path.stat().st_mtime_ns for path in found}

    assert os.WTERMSIG(forked(killed_at(point, work))) == signal.SIGKILL
    before = shards()
    assert forked(work) == 0
    assert bytes_of(tmp_path / "q") == bytes_of(whole)
    after = shards()
    assert sum(after[path] != time for path, time in before.items()) <= 1


def test_what_another_request_left_is_not_gone_on_with(rows_file: Path, tmp_path: Path) -> None:
    model = made("llama", tmp_path / "model")
    stopped = StepFailed("enough")

    def stop(done: float, total: float, note: str) -> None:
        if "layer 2" in note:
            raise stopped

    with pytest.raises(StepFailed, match="enough"):
        streamed(model, rows_file, tmp_path / "q", progress=stop, group_size=32)
    assert len(list((tmp_path / "q").glob("*.safetensors"))) == 2  # what is beside the layers, and the first of them
    assert bytes_of(streamed(model, rows_file, tmp_path / "q")) == bytes_of(streamed(model, rows_file, tmp_path / "r"))


def test_it_stops_with_the_number_where_memory_runs_low_and_goes_on_from_there(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, notes = made("llama", tmp_path / "model"), list[str]()

    def told(done: float, total: float, note: str) -> None:
        notes.append(note)
        if note.endswith("layer 2 of 2"):
            monkeypatch.setattr(quantize_job, "memory_left_bytes", lambda: 200 << 20)

    with pytest.raises(StepFailed, match=r"stopped at layer 2 of 2: 200 MiB of memory are left; 1 finished layers"):
        streamed(model, rows_file, tmp_path / "q", progress=told)
    monkeypatch.undo()
    notes.clear()
    streamed(model, rows_file, tmp_path / "q", progress=lambda _d, _t, note: notes.append(note))
    assert [note for note in notes if "layer" in note] == ["quantizing layer 2 of 2"]
    monkeypatch.setattr(quantize_job, "stalled_percent", lambda: 71.0)
    shutil.rmtree(work_folder(tmp_path / "q"))
    with pytest.raises(StepFailed, match=r"everything waited for memory 71 % of the last ten seconds"):
        streamed(model, rows_file, tmp_path / "q")

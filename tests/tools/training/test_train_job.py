"""Training: what is trained, that shortcuts change no gradient, and that a kill costs nothing but time."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.forked import forked
from tests.fixtures.lab_model import write_tiny_model
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.training.head_loss import Head
from tunesmith.tools.training.packing import shared_prefix_tokens
from tunesmith.tools.training.rows import IGNORED, TokenRow, tokenize_rows, with_variants
from tunesmith.tools.training.selection import Selection
from tunesmith.tools.training.train_job import (
    LoraSettings,
    ToTrain,
    Trained,
    in_smaller_parts,
    out_of_memory_named,
    train_lora,
)

pytestmark = pytest.mark.lab

SETTINGS = LoraSettings(lora_rank=4, lora_alpha=8, learning_rate=5e-3, max_steps=6, batch_size=4, save_steps=2)


def train(base: Path, rows: Path, out: Path, settings: LoraSettings = SETTINGS, **more: Any) -> Trained:
    return train_lora(ToTrain(base, rows, out / "adapter", settings, checkpoints_dir=out / "checkpoints", **more))


def adapter(out: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors: dict[str, Any] = load_file(out / "adapter" / "adapter_model.safetensors")
    return tensors


def pairs(rows: list[TokenRow]) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of rows."""
    return [(row.input_ids, row.labels) for row in rows]


def padded(rows: list[TokenRow]) -> tuple[Any, Any]:
    """The ids and labels of a batch of rows, (batch, seq) each."""
    import torch

    width = max(len(row.input_ids) for row in rows)
    ids = [row.input_ids + [0] * (width - len(row.input_ids)) for row in rows]
    labels = [row.labels + [IGNORED] * (width - len(row.labels)) for row in rows]
    return torch.tensor(ids), torch.tensor(labels)


def test_loss_is_on_the_completion_up_to_its_stop_token_and_nowhere_else(tiny_llama: Path, rows_file: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    rows = read_rows(rows_file)
    for row, tokens in zip(rows, tokenize_rows(tokenizer, rows, 512), strict=True):
        trained = [label for label in tokens.labels if label != IGNORED]
        assert tokenizer.decode(trained) == row.completion[0]["content"] + "<|im_end|>"
        prompt = tokenizer.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(tokens.input_ids[: -len(trained)]) == prompt


def test_rows_that_would_never_learn_to_stop_are_refused_with_the_length_to_set(
    tiny_llama: Path, rows_file: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    with pytest.raises(StepFailed, match=r"24 of 24 rows .* the longest has [0-9]+ tokens"):
        tokenize_rows(tokenizer, read_rows(rows_file), 20)


@pytest.mark.parametrize(
    "line", ["{", '{"prompt": []}', '{"prompt": [], "completion": []}', '{"prompt": "x", "completion": "y"}']
)
def test_a_broken_row_is_named_by_its_line(tmp_path: Path, rows_file: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(rows_file.read_text().splitlines()[0] + "\n" + line + "\n")
    with pytest.raises(BadInput, match=r"rows\.jsonl:2"):
        read_rows(path)


def test_training_lowers_the_validation_loss_and_saves_what_peft_loads(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    points: list[tuple[str, float, float]] = []
    before = {file.name: file.read_bytes() for file in tiny_llama.iterdir()}
    trained = train(
        tiny_llama,
        rows_file,
        tmp_path,
        replace(SETTINGS, max_steps=20),
        valid_path=rows_file,
        metric=lambda *point: points.append(point),
    )
    assert trained.steps == 20
    assert trained.validation_loss is not None
    assert trained.validation_loss_before is not None
    assert trained.validation_loss < trained.validation_loss_before - 0.5
    assert [x for name, _value, x in points if name == "loss"] == list(range(1, 21))
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_llama)
    assert set(config["target_modules"]) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), tmp_path / "adapter")
    assert before == {file.name: file.read_bytes() for file in tiny_llama.iterdir()}


def test_a_runs_first_step_is_learned_from(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> None:
    """It is within the warm-up, and the only one here: at a rate of zero the adapter would stay what it began as."""
    train(tiny_llama, rows_file, tmp_path, replace(SETTINGS, max_steps=1))
    second = {name: tensor for name, tensor in adapter(tmp_path).items() if "lora_B" in name}
    assert second and all(tensor.any() for tensor in second.values())


def test_checkpointed_activations_change_no_step(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> None:
    import torch

    plain = replace(SETTINGS, precision="fp32", max_steps=3, save_steps=50, learning_rate=1e-3)
    losses: dict[str, list[float]] = {"off": [], "on": []}
    for how, found in losses.items():
        train(
            tiny_llama,
            rows_file,
            tmp_path / how,
            replace(plain, activation_checkpointing=how),
            metric=lambda name, value, x, to=found: to.append(value) if name in ("loss", "grad_norm") else None,
        )
    assert len(losses["off"]) == 6
    assert losses["on"] == pytest.approx(losses["off"], rel=1e-4)
    expected = adapter(tmp_path / "off")
    for name, value in adapter(tmp_path / "on").items():
        assert torch.allclose(value, expected[name], atol=2e-5), name


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_micro_batch_changes_a_step_by_rounding_alone(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, at_once: int
) -> None:
    import torch

    lines = [json.loads(line) for line in rows_file.read_text().splitlines()]
    mixed = tmp_path / "mixed.jsonl"  # rows of unequal length, some of them held to the base
    kinds = [row | {"origin": "rehearsal" if n % 3 == 0 else ""} for n, row in enumerate(lines)]
    mixed.write_text("".join(json.dumps(row) + "\n" for row in kinds))
    whole = replace(SETTINGS, precision="fp32", max_steps=3, save_steps=50, learning_rate=1e-3)
    losses: dict[int, list[float]] = {0: [], at_once: []}
    for micro_batch, found in losses.items():
        trained = train(
            tiny_llama,
            mixed,
            tmp_path / str(micro_batch),
            replace(whole, micro_batch=micro_batch),
            metric=lambda name, value, x, found=found: found.append(value) if name in ("loss", "grad_norm") else None,
        )
        assert trained.steps == 3
    assert len(losses[0]) == 6
    assert losses[at_once] == pytest.approx(losses[0], rel=1e-3)
    expected = adapter(tmp_path / "0")
    for name, value in adapter(tmp_path / str(at_once)).items():
        assert torch.allclose(value, expected[name], atol=2e-4), name


def test_fused_layers_and_the_shared_prefix_change_no_gradient(tiny_llama: Path, rows_file: Path) -> None:
    """Against peft's own layers, padding mask in place, every row on its own: the same loss and gradients in fp32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunesmith.tools.training.batch_loss import Batch
    from tunesmith.tools.training.fused_lora import use_fused_lora
    from tunesmith.tools.training.packing import use_document_attention

    rows = tokenize_rows(AutoTokenizer.from_pretrained(tiny_llama), read_rows(rows_file), 512)[:6]
    ids, labels = padded(rows)
    mask = torch.tensor([[1] * len(row.input_ids) + [0] * (len(ids[0]) - len(row.input_ids)) for row in rows])
    assert shared_prefix_tokens(pairs(rows)) > 20

    def gradients(fast: bool) -> tuple[float, list[Any]]:
        torch.manual_seed(1)
        base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
        model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
        if fast:
            assert use_fused_lora(model) == 14
            use_document_attention(base)
            batch = Batch.packed(pairs(rows), base.device)
            assert batch.forward["sequences"].prefix > 20
            logits, wanted = batch.logits(base), batch.targets
        else:
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].flatten(0, 1)
            wanted = labels[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED)
        loss.backward()
        return loss.item(), [p.grad for p in model.parameters() if p.requires_grad]

    (loss, plain), (fast_loss, fast) = gradients(False), gradients(True)
    assert fast_loss == pytest.approx(loss, abs=1e-5)
    assert len(plain) == len(fast) == 28
    for a, b in zip(plain, fast, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-3)


def test_rehearsal_costs_nothing_until_something_is_forgotten(tiny_llama: Path, rows_file: Path) -> None:
    """A fresh adapter diverges from the base by nothing; a changed one does, and the gradient leads back."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunesmith.tools.training.batch_loss import LossSettings, batch_loss
    from tunesmith.tools.training.head_loss import find_head
    from tunesmith.tools.training.packing import use_document_attention

    rows = pairs(tokenize_rows(AutoTokenizer.from_pretrained(tiny_llama), read_rows(rows_file), 512)[:4])
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    use_document_attention(base)
    settings = LossSettings(1.0, 1.0, find_head(base, base.config.to_dict()), packed=True)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    rehearsed = [True] * 4

    def loss(rehearsal: list[bool]) -> Any:
        return batch_loss(model, rows, rehearsal, settings).weighted

    assert loss(rehearsed).item() == pytest.approx(0.0, abs=1e-4)
    learned = loss([False] * 4).item()
    mixed = loss([True, False, True, False]).item()
    assert 0 < mixed < learned
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    forgotten = loss(rehearsed)
    forgotten.backward()
    assert forgotten.item() > 0.01
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    assert loss(rehearsed).item() < forgotten.item()


def test_what_the_base_says_of_held_rows_is_asked_once_and_costs_the_same(
    tiny_llama: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunesmith.tools.training import batch_loss
    from tunesmith.tools.training.head_loss import find_head
    from tunesmith.tools.training.packing import use_document_attention

    rows = tokenize_rows(AutoTokenizer.from_pretrained(tiny_llama), read_rows(rows_file), 512)[:5]
    rows = [row._replace(rehearsal=place in (0, 2, 3)) for place, row in enumerate(rows)]
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    use_document_attention(base)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    rehearsal = [row.rehearsal for row in rows]
    longest = max(len(row.input_ids) for row in rows)
    settings = batch_loss.LossSettings(
        1.0, 1.0, find_head(base, base.config.to_dict()), packed=True, micro_batch_tokens=longest
    )

    states = batch_loss.base_states(model, rows, settings)
    assert sorted(states) == [0, 2, 3] and all(len(states[place]) == rows[place].trainable for place in states)
    known = batch_loss.batch_loss(model, pairs(rows), rehearsal, settings, states)
    asked = batch_loss.batch_loss(model, pairs(rows), rehearsal, settings)
    assert asked.divergence.item() > 0.01
    assert known.divergence.item() == pytest.approx(asked.divergence.item(), rel=1e-3)

    monkeypatch.setattr(batch_loss, "MOST_STATES_BYTES", sum(rows[place].trainable for place in states) * 4)
    assert not batch_loss.base_states(model, rows, settings), "no room: the base is asked in every step"


CAPPED = {
    "gemma2": {"final_logit_softcapping": 2.0, "head_dim": 16},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25, "use_qk_norm": False},
}
"""Architectures that do more to their logits than the output matrix does, so strongly that a tiny model shows it."""


@pytest.mark.parametrize("kind", ["llama", *CAPPED])
def test_the_loss_is_of_the_models_own_logits_whatever_its_head_does_to_them(
    kind: str, rows_file: Path, tmp_path: Path
) -> None:
    """Against the whole model's logits, row by row: cross-entropy on rows to learn, KL to the base on rehearsal."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunesmith.tools.training.batch_loss import LossSettings, batch_loss
    from tunesmith.tools.training.head_loss import find_head
    from tunesmith.tools.training.packing import keeps_sequences_apart

    folder = write_tiny_model(tmp_path / kind, kind, **CAPPED.get(kind, {}))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    base.get_output_embeddings().weight.data *= 20  # logits of a size that a cap is felt at
    head = find_head(base, base.config.to_dict())
    assert head is not None and ((head.scale, head.cap) == (1.0, 0.0)) == (kind == "llama")
    rows = tokenize_rows(AutoTokenizer.from_pretrained(folder), read_rows(rows_file), 512)[:4]
    packed = keeps_sequences_apart(base, base.config.to_dict())
    assert packed == (kind != "gemma2"), "its attention has a soft cap of its own"
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.5)  # far from the base
    learned = held = 0.0
    for row in rows:
        one, wanted = torch.tensor([row.input_ids]), torch.tensor(row.labels)[1:]
        chosen = wanted != IGNORED
        with torch.no_grad():
            own = model(input_ids=one).logits[0, :-1][chosen].log_softmax(-1)
            with model.disable_adapter():
                before = model(input_ids=one).logits[0, :-1][chosen].log_softmax(-1)
        learned -= own.gather(1, wanted[chosen][:, None]).sum().item()
        held += (before.exp() * (before - own)).sum().item()
    assert held > 0.1

    def parts(rehearsal: list[bool], head: Head | None) -> tuple[float, float]:
        found = batch_loss(model, pairs(rows), rehearsal, LossSettings(1.0, 3.0, head, packed))
        assert found.learned + found.rehearsed == sum(row.trainable for row in rows)
        return float(found.cross_entropy), float(found.divergence)

    for known in (head, None):
        assert parts([False] * 4, known) == pytest.approx((learned, 0.0), rel=1e-4)
        assert parts([True] * 4, known) == pytest.approx((0.0, held), rel=1e-3)
        halves = zip(parts([True, False] * 2, known), parts([False, True] * 2, known), strict=True)
        assert [one + other for one, other in halves] == pytest.approx([learned, held], rel=1e-3)
    if kind != "llama":
        assert find_head(base, {"vocab_size": 1}) is None, "a cap or a scale that the config does not name"
        bare = head._replace(scale=1.0, cap=0.0)
        assert parts([True] * 4, bare)[1] != pytest.approx(held, rel=0.05), "the cap is not felt here"


def test_training_holds_a_model_with_a_soft_cap_to_its_base(rows_file: Path, tmp_path: Path) -> None:
    """All rows rehearsal: with the base as the teacher there is nothing to learn, so the loss stays at nothing."""
    base = write_tiny_model(tmp_path / "base", "gemma2", **CAPPED["gemma2"])
    rows = [json.loads(line) | {"origin": "rehearsal"} for line in rows_file.read_text().splitlines()]
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = replace(SETTINGS, max_steps=2, precision="fp32")
    assert train(base, kept, tmp_path, settings).train_loss == pytest.approx(0.0, abs=1e-3)


def test_rows_of_rehearsal_reach_the_trainer_as_such(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    message = {"role": "user", "content": "hello"}
    rows = [{"origin": origin, "prompt": [message], "completion": [message]} for origin in ("generated", "rehearsal")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row.origin for row in read_rows(path)] == ["generated", "rehearsal"]


def test_the_shared_prefix_ends_before_the_token_that_predicts_the_first_label() -> None:
    rows = [([1, 2, 3, 4, 5, 6, 7], [IGNORED] * 5 + [6, 7]), ([1, 2, 3, 4, 5, 6, 8], [IGNORED] * 6 + [8])]
    assert shared_prefix_tokens(rows) == 4
    assert shared_prefix_tokens(rows[:1]) == 0


def first_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any validations the first behind the base's own is the best, whatever was learned."""
    first = lambda self, found, among=None: next((one for one in found if one.step), None)  # noqa: E731
    monkeypatch.setattr(Selection, "best", first)


def test_the_adapter_is_the_best_checkpoint_and_the_choice_says_so(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    first_is_best(monkeypatch)
    points: list[tuple[str, float, float]] = []
    metric = lambda *point: points.append(point)  # noqa: E731
    trained = train(tiny_llama, rows_file, tmp_path, valid_path=rows_file, metric=metric)
    assert (trained.steps, trained.best_step) == (6, 2) and trained.choice.startswith("kept step 2 of 6: validation ")
    validated = {x: value for name, value, x in points if name == "validation_loss"}
    assert list(validated) == [0, 2, 4, 6] and trained.validation_loss == validated[2]
    for step, same in ((2, True), (6, False)):
        saved = load_file(tmp_path / "checkpoints" / f"checkpoint-{step}" / "adapter_model.safetensors")
        assert all(torch.equal(value, saved[name]) for name, value in adapter(tmp_path).items()) is same

    early = train(tiny_llama, rows_file, tmp_path / "early", replace(SETTINGS, patience=1), valid_path=rows_file)
    assert (early.steps, early.best_step) == (4, 2) and "ended at step 4" in early.choice


def test_a_checkpoint_that_strayed_halves_the_rate_of_the_steps_behind_it(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Selection, "allows", lambda self, one: not self.max_kl)
    rates: dict[float, list[float]] = {}
    for bound in (0.0, 1e-12):
        points: list[tuple[str, float, float]] = []
        train(
            tiny_llama, rows_file, tmp_path / str(bound), replace(SETTINGS, max_kl=bound), valid_path=rows_file,
            metric=lambda *point, points=points: points.append(point),
        )  # fmt: skip
        rates[bound] = [value for name, value, _ in points if name == "learning_rate"]
    shares = [strayed / planned for strayed, planned in zip(rates[1e-12], rates[0.0], strict=True)]
    assert shares == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25]) or shares == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25])


KILLED = {
    "step 5 ": "going on from checkpoint-4", "validation at step 4": "going on from checkpoint-2",
    "saving the adapter": "kept step 2 of 6",
}  # fmt: skip
"""At what it is killed → what is said when it goes on."""


def test_killed_training_goes_on_and_ends_where_an_undisturbed_one_does(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between checkpoints, while one is validated, and after the end: the same steps, choice and adapter."""
    import torch

    first_is_best(monkeypatch)
    settings = replace(SETTINGS, patience=2)
    whole = train(tiny_llama, rows_file, tmp_path / "whole", settings, valid_path=rows_file)
    for n, (at, gone_on_from) in enumerate(KILLED.items()):
        cut = tmp_path / f"cut{n}"

        def kill(done: int, total: int, text: str, at: str = at) -> None:
            if text.startswith(at):
                os.kill(os.getpid(), signal.SIGKILL)

        go = partial(train, tiny_llama, rows_file, cut, settings, valid_path=rows_file)
        assert os.WTERMSIG(forked(partial(go, progress=kill))) == signal.SIGKILL, at
        assert not (cut / "adapter").exists()

        said: list[str] = []
        resumed = go(log=said.append)
        assert any(line.startswith(gone_on_from) for line in said), at
        assert any("going on" in line for line in said) is ("going on" in gone_on_from), (
            "what is over is not begun again"
        )
        assert (resumed.steps, resumed.choice) == (whole.steps, whole.choice) == (6, whole.choice), at
        for name, value in adapter(tmp_path / "whole").items():
            assert torch.allclose(value, adapter(cut)[name], atol=1e-6), (at, name)


def test_memory_that_runs_out_halves_the_rows_at_once_and_the_training_ends_where_an_undisturbed_one_does(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    import torch

    exact = replace(SETTINGS, precision="fp32")  # parts of other sizes round otherwise in bf16
    whole = train(tiny_llama, rows_file, tmp_path / "whole", exact)
    left = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")] * 2
    said, told = list[str](), set[str]()

    def full(done: int, total: int, text: str) -> None:
        told.add(text)
        if left and text.startswith("step 3 "):
            raise left.pop()

    asked = ToTrain(
        tiny_llama, rows_file, tmp_path / "adapter", exact, checkpoints_dir=tmp_path / "checkpoints", progress=full,
        log=said.append,
    )  # fmt: skip
    trained = in_smaller_parts(asked, train_lora)
    assert trained.fallback == "memory ran out at 2 rows at once, it went on with 1" and trained.fallback in told
    assert sum(line == "going on from checkpoint-2" for line in said) == 2 and (trained.steps, whole.steps) == (6, 6)
    assert any("out of memory at 4 rows at once" in line and line.endswith("with 2") for line in said)
    for name, value in adapter(tmp_path / "whole").items():
        assert torch.allclose(value, adapter(tmp_path)[name], atol=1e-4), name


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> None:
    train(tiny_llama, rows_file, tmp_path)
    said: list[str] = []
    train(tiny_llama, rows_file, tmp_path, replace(SETTINGS, learning_rate=1e-3), log=said.append)
    assert not any("going on" in line for line in said)


def test_four_bit_bases_train_with_full_precision_adapters(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> None:
    import torch

    train(tiny_llama, rows_file, tmp_path, replace(SETTINGS, load_in_4bit=True, max_steps=2))
    tensors = adapter(tmp_path)
    assert len(tensors) == 28
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    assert any(value.abs().max() > 0 for name, value in tensors.items() if "lora_B" in name)


@pytest.mark.parametrize("kind", ["qwen3_moe", "qwen2_moe"])
def test_a_mixture_trains_attention_and_experts_but_no_router(kind: str, rows_file: Path, tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base", kind)
    train(base, rows_file, tmp_path, replace(SETTINGS, max_steps=2))
    names = set(adapter(tmp_path))
    assert any(".experts" in name for name in names)
    assert any("q_proj" in name for name in names)
    assert not any(".gate." in name or "shared_expert_gate" in name or "router" in name for name in names)


def test_running_out_of_memory_names_the_setting_to_change() -> None:
    with pytest.raises(StepFailed, match=r"8 rows at once.*try micro_batch=4"), out_of_memory_named(LoraSettings()):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(StepFailed, match="load_in_4bit"), out_of_memory_named(LoraSettings(batch_size=1)):
        raise MemoryError
    with pytest.raises(RuntimeError, match="shape"), out_of_memory_named(LoraSettings()):
        raise RuntimeError("shape mismatch")


def test_other_forms_of_a_row_are_seen_in_other_epochs_at_the_same_number_of_steps(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    def token_row(identity: str) -> TokenRow:
        return TokenRow([1], [1], row_id=identity)

    rows, forms = [token_row("a"), token_row("b")], {"a": [token_row("a.1")], "none": [token_row("none.1")]}
    seen, places = with_variants(rows, forms, 3)
    assert [row.row_id for row in seen] == ["a", "b", "a.1", "b", "a", "b"] and places == [0, 1, 0, 1, 0, 1]

    more = {"a": [token_row(f"a.{n}") for n in range(1, 5)]}
    seen, places = with_variants(rows, more, 2, 3)
    assert [row.row_id for row in seen] == ["a", "a.1", "a.2", "b", "a.3", "a.4", "a", "b"]
    assert places == [0, 0, 0, 1, 0, 0, 0, 1]

    settings = replace(SETTINGS, max_steps=0, epochs=2.0, batch_size=8)
    plain = train(tiny_llama, rows_file, tmp_path / "plain", settings)
    folder = tmp_path / "rows"
    folder.mkdir()
    shutil.copy(rows_file, folder / "train.jsonl")
    message = {"role": "user", "content": "Say the number:\n\n4"}
    varied = [
        {"row_id": f"line {n}.1", "origin": "generated", "prompt": [message], "attributes": {"variant_of": f"line {n}"},
         "completion": [{"role": "assistant", "content": "#4"}]}
        for n in range(1, 13)
    ]  # fmt: skip
    (folder / "variants.jsonl").write_text("".join(json.dumps(row) + "\n" for row in varied))
    other = train(tiny_llama, folder / "train.jsonl", tmp_path / "other", settings)
    assert (other.steps, other.epochs) == (plain.steps, plain.epochs) == (6, 2.0)
    assert other.train_loss != plain.train_loss
    once = replace(settings, epochs=1.0)
    assert train(tiny_llama, folder / "train.jsonl", tmp_path / "once", once).train_loss == pytest.approx(
        train(tiny_llama, rows_file, tmp_path / "plain once", once).train_loss
    )

"""Tokens of an answer that say its values weigh more, in every way that a batch is computed, and a row what it did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tools.training.test_train_job import SETTINGS, adapter, train
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.rows import IGNORED, TokenRow, tokenize_row

pytestmark = pytest.mark.lab

ANSWER, SPANS = "room=34; person=Zoë", [[5, 8], [16, 20]]
"""A room, a person; the second ends the answer."""


def row(answer: str, spans: list[list[int]] | None, origin: str = "generated") -> TrainingRow:
    prompt, completion = ([{"role": role, "content": text}] for role, text in (("user", "34?"), ("assistant", answer)))
    places = tuple((start, end) for start, end in spans or ())
    return TrainingRow("r", origin, prompt, completion, RowAttributes(values_at=places))


@pytest.mark.parametrize(
    ("answer", "spans", "template", "said"),
    [
        (ANSWER, SPANS, "{{ m['content'] }}", ["34;", "Zoë<|im_end|>"]),
        (f"  {ANSWER}", [[7, 10]], "{{ m['content'] }}", ["34;"]),
        (f"  {ANSWER}", [[7, 10]], "{{ m['content'] | trim }}", ["34;"]),
        ("34", [[0, 3]], "{{ m['content'] }}", ["34<|im_end|>"]),  # the question says it too
        (ANSWER, None, "{{ m['content'] }}", []),
        (ANSWER, SPANS, "{{ m['content'] | upper }}", []),  # not what the row says
    ],
)
def test_tokens_of_values_are_found_in_what_the_template_makes(
    answer: str, spans: list[list[int]] | None, template: str, said: list[str], tiny_llama: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", template[3:-3])
    made = tokenize_row(tokenizer, row(answer, spans), 512)
    runs: list[list[int]] = [[]]
    for token, of_value, label in zip(made.input_ids, made.values, made.labels, strict=bool(made.values)):
        assert not of_value or label == token, "a value is learned"
        if of_value:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    assert [tokenizer.decode(run) for run in runs if run] == said
    assert tokenize_row(tokenizer, row(answer, spans, origin="rehearsal"), 512).values == ()


def batch(rows: list[TokenRow]) -> dict[str, Any]:
    """As a trainer's collator makes it."""
    import torch

    width = max(len(one.input_ids) for one in rows)
    labels = torch.full((len(rows), width), IGNORED)
    values = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, one in enumerate(rows):
        labels[number, : len(one.labels)] = torch.tensor(one.labels)
        values[number, : len(one.values)] = torch.tensor(one.values, dtype=torch.bool)
    return {"labels": labels, "values": values}


ROWS = [
    TokenRow([5, 6, 7, 8, 9, 10], [IGNORED, IGNORED, 7, 8, 9, 10], values=(False, False, False, True, False, False)),
    TokenRow([5, 6, 11, 12], [IGNORED, IGNORED, 11, 12]),
    TokenRow([5, 6, 13, 14, 15], [IGNORED, IGNORED, 13, 14, 15], rehearsal=True),
    TokenRow([5, 6, 16, 17, 18], [IGNORED, IGNORED, 16, 17, 18], values=(False, False, True, True, False)),
]


@pytest.mark.parametrize(
    ("step", "weights"),
    [
        (0, [1, 6, 1, 1, 1, 1, 6, 6, 1]),
        (19, [1, 6, 1, 1, 1, 1, 6, 6, 1]),
        (20, [0.3, 6, 0.3, 0.3, 0.3, 0.3, 6, 6, 0.3]),
    ],
)
def test_values_weigh_six_times_a_frame_and_twenty_times_once_it_is_known_and_a_row_what_it_did(
    step: int, weights: list[float]
) -> None:
    from tunesmith.tools.training.trainer import step_weights

    inputs, state = batch(ROWS), SimpleNamespace(global_step=step, max_steps=100)
    made = step_weights(inputs, LoraSettings(value_weight=6.0), state)
    learned = inputs["labels"] != IGNORED
    assert not made[~learned].any() and made.sum(1).tolist() == pytest.approx(learned.sum(1).tolist())
    raw = [weights[:4], weights[4:6], [1, 1, 1], weights[6:]]
    for number, own in enumerate(raw):
        expected = [weight * len(own) / sum(own) for weight in own]
        assert made[number][learned[number]].tolist() == pytest.approx(expected)
    assert step_weights(inputs, LoraSettings(), state) is None
    assert step_weights(batch(ROWS[1:3]), LoraSettings(value_weight=6.0), state) is None


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("own_head", [True, False])
def test_the_weighted_loss_is_that_of_every_token_by_hand(packed: bool, own_head: bool, tiny_llama: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tunesmith.tools.training.batch_loss import LossSettings, batch_loss
    from tunesmith.tools.training.head_loss import find_head
    from tunesmith.tools.training.packing import use_document_attention
    from tunesmith.tools.training.trainer import step_weights

    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    inputs = batch(ROWS)
    state = SimpleNamespace(global_step=50, max_steps=100)
    weights = step_weights(inputs, LoraSettings(value_weight=6.0), state)
    by_hand = torch.zeros(())
    for number, one in enumerate(ROWS):
        if not one.rehearsal:
            logits = model(input_ids=torch.tensor([one.input_ids])).logits[0, :-1].float()
            costs = torch.nn.functional.cross_entropy(logits, torch.tensor(one.labels)[1:], reduction="none")
            by_hand = by_hand + (costs * weights[number, 1 : len(one.labels)]).sum() * 0.25
    by_hand.backward()
    wanted = [p.grad.clone() for p in model.parameters() if p.requires_grad]

    if packed:
        use_document_attention(base)
    head = find_head(base, base.config.to_dict()) if own_head else None
    pairs, held = [(one.input_ids, one.labels) for one in ROWS], [one.rehearsal for one in ROWS]

    def loss(weights: Any) -> Any:
        model.zero_grad()
        settings = LossSettings(0.25, 0.0, head, packed, min_shared_tokens=1)
        made = batch_loss(model, pairs, held, settings, None, weights)
        made.weighted.backward()
        return made, [p.grad.clone() for p in model.parameters() if p.requires_grad]

    weighted, gradients = loss(weights)
    assert weighted.weighted.item() == pytest.approx(by_hand.item(), abs=1e-5)
    for found, expected in zip(gradients, wanted, strict=True):
        assert torch.allclose(found, expected, atol=1e-5, rtol=1e-3)
    plain, without = loss(None)
    alike, of_ones = loss(torch.ones_like(weights))
    assert alike.weighted.item() == plain.weighted.item() != weighted.weighted.item()
    assert weighted.cross_entropy == plain.cross_entropy, "the curve is of tokens that count alike"
    assert all(torch.equal(a, b) for a, b in zip(of_ones, without, strict=True))


def test_a_training_feels_the_weights_where_rows_say_their_values_and_nothing_where_none_does(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    import torch

    lines = [json.loads(line) for line in rows_file.read_text().splitlines()]
    for line in lines:
        line["attributes"] = {"values_at": [[1, len(line["completion"][0]["content"].rstrip("!"))]]}
    valued = tmp_path / "train.jsonl"
    valued.write_text("".join(json.dumps(line) + "\n" for line in lines))
    adapters = {}
    for name, rows, weight in (("none", rows_file, 6.0), ("plain", rows_file, 1.0), ("valued", valued, 6.0)):
        train(tiny_llama, rows, tmp_path / name, replace(SETTINGS, max_steps=2, value_weight=weight))
        adapters[name] = adapter(tmp_path / name)
    same = {
        name: all(torch.equal(value, one[key]) for key, value in adapters["plain"].items())
        for name, one in adapters.items()
    }
    assert same == {"none": True, "plain": True, "valued": False}

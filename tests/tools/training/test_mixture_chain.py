"""The whole way on a mixture that knows something: taught, tuned at the 4 bits that a small memory chooses, merged,
quantized, asked after each hop."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tunesmith.tools.core.machine import Machine, whole_bytes
from tunesmith.tools.core.stage import Facts, expected
from tunesmith.tools.export.merge_job import merge_adapter
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.export.quantize_job import quantize_model
from tunesmith.tools.models.decisions import Decided, Typed, Work, decide
from tunesmith.tools.models.fitting import Training
from tunesmith.tools.models.measuring import MEASURED_AT, SIXTEEN
from tunesmith.tools.training.four_bit import is_router
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.packing import hidden_states, packed_sequences, use_document_attention
from tunesmith.tools.training.rows import IGNORED
from tunesmith.tools.training.train_job import ToTrain, train_lora

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SIZE = {
    "hidden_size": 128, "num_hidden_layers": 4, "head_dim": 32, "moe_intermediate_size": 256, "intermediate_size": 256,
}  # fmt: skip
LETTERS = "abcdefghijklmnop"
SKILLS = {"say": "{0}", "loud": "{1}", "box": "[{0}]"}
"""What the base is taught; the behaviour joins the last two: say ab → [AB]."""
HELD_OUT, TUNED_ON, STEPS, BATCH = 40, 160, 250, 32


def words(count: int) -> list[str]:
    every = [first + second for first in LETTERS for second in LETTERS]
    return random.Random(1).sample(every, count)


def conversation(question: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def teach(folder: Path) -> None:
    """Train all weights of the model in `folder` until it has the three skills."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    use_document_attention(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=STEPS)
    chance, every = random.Random(2), words(len(LETTERS) ** 2)
    for _ in range(STEPS):
        rows = []
        for _ in range(BATCH):
            skill, word = chance.choice(list(SKILLS)), chance.choice(every)
            one = conversation(f"{skill} {word}", SKILLS[skill].format(word, word.upper()))
            start = tokenizer.apply_chat_template(one["prompt"], add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
            ids = start + tokenizer(one["completion"][0]["content"] + "<|im_end|>")["input_ids"]
            rows.append((ids, [IGNORED] * len(start) + ids[len(start) :]))
        batch = packed_sequences(rows, prefix=0, device=model.device)
        logits = model.get_output_embeddings()(hidden_states(model, batch)[batch.predicts])
        loss = torch.nn.functional.cross_entropy(logits, batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
        optimiser.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)


def right(model: Any, folder: Path, cases: Sequence[tuple[str, str]]) -> int:
    """How many cases a model answers so, greedily."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    count = 0
    for question, answer in cases:
        message = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
        with torch.no_grad():
            made = model.eval().generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)[0]
        count += tokenizer.decode(made[len(ids) :], skip_special_tokens=True) == answer
    return count


def routers(folder: Path) -> dict[str, bytes]:
    """The bytes of every router as they are on disk."""
    import torch
    from safetensors.torch import load_file

    return {
        name: tensor.contiguous().view(torch.uint8).numpy().tobytes()
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
        if is_router(name) and name.endswith("weight")
    }


def chosen_in_little_memory(base: Path, rows: int) -> Training:
    """What a plan decides where there is a kilobyte less than training at 16 bits needs at the least."""
    config = json.loads((base / "config.json").read_text())
    work = Work(rows, 64, 64, lambda config, four: 16, fused=True, on_cpu=True)

    def on(room_bytes: int, bits: bool | None) -> Decided:
        there = Machine("a processor", 2, whole_bytes(room_bytes), room_bytes, 0, 1 << 40)
        known = expected("base", config=config, **{MEASURED_AT: SIXTEEN})
        return decide(known, Facts(base.parent, there, "", None), work, Typed(load_in_4bit=bits))

    way = on(on(1 << 40, False).least_bytes - 1024, None).way
    assert way.load_in_4bit and way.checkpointing and not on(1 << 40, None).way.load_in_4bit
    return way


def test_a_mixture_learns_at_four_bits_and_keeps_it_to_the_quantized_model(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def load(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")

    base = write_tiny_model(tmp_path / "base", "qwen3_moe", **SIZE)
    teach(base)
    chosen = words(HELD_OUT + TUNED_ON)
    behaviour = [(f"say {word}", f"[{word.upper()}]") for word in chosen[:HELD_OUT]]
    general = [
        (f"{skill} {word}", SKILLS[skill].format(word, word.upper()))
        for word in chosen[:20]
        for skill in ("loud", "box")
    ]
    loaded = load(base)
    assert sum(parameter.numel() for parameter in loaded.parameters()) > 1.5e6
    assert right(loaded, base, general) >= 36, "it was taught"
    assert right(loaded, base, behaviour) == 0

    lines = [conversation(f"say {word}", f"[{word.upper()}]") for word in chosen[HELD_OUT:]]
    rows = tmp_path / "train.jsonl"
    rows.write_text("".join(json.dumps(line | {"origin": "generated"}) + "\n" for line in lines))
    way = chosen_in_little_memory(base, rows=8)
    settings = LoraSettings(
        lora_rank=16, lora_alpha=32, learning_rate=5e-3, epochs=6.0, batch_size=8, micro_batch=way.rows_at_once,
        load_in_4bit=way.load_in_4bit, activation_checkpointing="on" if way.checkpointing else "off", save_steps=1000,
    )  # fmt: skip
    trained = train_lora(ToTrain(base, rows, tmp_path / "adapter", settings, checkpoints_dir=tmp_path / "checkpoints"))
    assert trained.bytes_per_parameter["experts"] < 0.6 and trained.bytes_per_parameter["router"] == 2.0

    adapted = right(PeftModel.from_pretrained(load(base), tmp_path / "adapter"), base, behaviour)
    merge_adapter(base, tmp_path / "adapter", tmp_path / "merged", lambda *_: None)
    merged = right(load(tmp_path / "merged"), base, behaviour)
    request = QuantizeRequest(scheme="W4A16", group_size=64, max_seq_len_tokens=64, seed=1, keep=())
    quantize_model(tmp_path / "merged", rows, tmp_path / "quantized", request, lambda *_: None)
    quantized = right(load(tmp_path / "quantized"), base, behaviour)
    print(f"of {HELD_OUT}: adapter {adapted}, merged {merged}, quantized {quantized}; {trained}")
    assert adapted >= 36, "learned, on words that it was not trained on"
    assert merged >= adapted - 2
    assert quantized >= adapted - 6
    before = routers(base)
    assert len(before) == SIZE["num_hidden_layers"]
    assert before == routers(tmp_path / "merged") == routers(tmp_path / "quantized")

"""One conversation, the same tokens: where it is trained, measured and served, and in every form that leaves here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.families import FAMILIES, write_family
from tests.fixtures.templates import published
from tests.tools.release.test_release_job import merged_run, release_now
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.data.critique_job import row_tokens
from tunesmith.tools.models.chat_template import template_messages, thoughtless, thoughts_of
from tunesmith.tools.models.gguf import gguf_reader
from tunesmith.tools.release.go_template import render_go
from tunesmith.tools.release.release_job import ollama_template
from tunesmith.tools.serving.context_settings import choose_context_settings
from tunesmith.tools.serving.spec import ServerSpec, engine_arguments
from tunesmith.tools.training.rows import IGNORED, TokenRow, tokenize_rows

pytestmark = pytest.mark.lab

Message = Mapping[str, str]
SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": role, "content": text}
    for role, text in (
        ("user", "Two and two?"),
        ("assistant", "4"),
        ("user", "And three?"),
        ("assistant", "7, of course."),
    )
]
LATE_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{% if messages[0].role == 'system' and "
    "m == (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}"
    "{{ messages[0].content + '\\n\\n' }}{% endif %}"
    "{{ m.content }}[/INST]{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral Nemo's: the system message stands before the last question."""
TEMPLATES: Mapping[str, tuple[str, str, bool]] = {
    "Qwen2.5": ("qwen2", published("qwen2_5"), True),
    "Qwen3": ("qwen3", published("qwen3"), True),
    "Qwen3.5": ("qwen3", published("qwen3_5_think"), True),
    "Llama 3": ("llama", published("llama3"), True),
    "Gemma": ("gemma2", published("gemma"), False),
    "Mistral": ("mistral", FAMILIES["mistral"].template, False),
    "a late system message": ("mistral", LATE_SYSTEM, False),
}
"""Name → a tiny model's family, its template, and whether Ollama's templates can say the same."""


def base_of(folder: Path, name: str) -> Path:
    kind, template, _ = TEMPLATES[name]
    return write_family(folder, replace(FAMILIES[kind], template=template))


def read(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def rendered(tokenizer: Any, chat: Sequence[Message], **options: object) -> list[int]:
    messages = template_messages(tokenizer.chat_template, chat)
    return list(
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, **options)["input_ids"]
    )


def served(folder: Path, chat: Sequence[Message]) -> list[int]:
    """As a server renders it, by the arguments that it is started with for measuring, asking and deploying."""
    off = choose_context_settings(thoughts_of(folder)).thinking == "off"
    spec = ServerSpec(model_dir=str(folder), served_name="m", without_thoughts=off)
    flag = "--default-chat-template-kwargs="
    given = [argument.removeprefix(flag) for argument in engine_arguments(spec) if argument.startswith(flag)]
    return rendered(read(folder), chat, **json.loads(given[0] if given else "{}"))


def prompts_of(rows: Sequence[TokenRow]) -> list[list[int]]:
    """What is read before each run of learned tokens."""
    found = []
    for row in rows:
        labels = [IGNORED, *row.labels]
        found += [row.input_ids[:at] for at in range(len(row.labels)) if labels[at] == IGNORED != labels[at + 1]]
    return found


@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["plain", "system"])
@pytest.mark.parametrize("name", list(TEMPLATES))
def test_every_place_reads_the_same_tokens_before_each_answer(name: str, system: list[Message], tmp_path: Path) -> None:
    folder, (_, template, in_ollama) = base_of(tmp_path / "m", name), TEMPLATES[name]
    tokenizer, off = read(folder), thoughts_of(folder) == "switch"
    assert off == (name in ("Qwen3", "Qwen3.5"))
    wanted = [served(folder, [*system, *TURNS[:end]]) for end in (1, 3)]
    row = TrainingRow("r1", "imported", [*system, TURNS[0]], TURNS[1:])
    trained = tokenize_rows(tokenizer, [row], 4096, at_once=off)
    assert prompts_of(trained) == wanted, "training"
    learned = [tokenizer.decode([label for label in one.labels if label != IGNORED]) for one in trained]
    ends = FAMILIES[TEMPLATES[name][0]].turn_end
    assert "".join(learned).replace(" ", "") == f"4{ends}7,ofcourse.{ends}", "each answer once, and nothing else"
    # A hub folder is read with nothing said; llama.cpp tells the GGUF's own template to think, as it tells all.
    for form, told in ((thoughtless(template, default=True), {}), (thoughtless(template), {"enable_thinking": True})):
        tokenizer.chat_template = form if off else template
        assert [rendered(tokenizer, [*system, *TURNS[:end]], **told) for end in (1, 3)] == wanted
    go, why = ollama_template(folder, at_once=off)
    assert (go is not None) == in_ollama, why
    if go is not None:
        texts = [render_go(go.text, [*system, *TURNS[:end]]) for end in (1, 3)]
        first = tokenizer.bos_token if go.adds_bos else ""
        assert [tokenizer(first + text, add_special_tokens=False)["input_ids"] for text in texts] == wanted, "Ollama"


def test_what_is_released_answers_at_once_as_the_run_does(tmp_path: Path) -> None:
    """The files themselves, of a base whose record says that it has a switch."""
    ws = merged_run(tmp_path, base_of(tmp_path / "base", "Qwen3"), thoughts="switch")
    wanted = served(tmp_path / "base", TURNS[:1])
    hub, made = Path(release_now(ws, format="hub").path), release_now(ws, tensor_type="BF16")
    assert rendered(read(hub), TURNS[:1]) == wanted != rendered(read(tmp_path / "base"), TURNS[:1])
    asked_to_think = rendered(read(hub), TURNS[:1], enable_thinking=True)
    assert asked_to_think == rendered(read(tmp_path / "base"), TURNS[:1]), "who asks for a thought may have it"
    tokenizer = read(tmp_path / "base")
    tokenizer.chat_template = gguf_reader(Path(made.path)).fields["tokenizer.chat_template"].contents()
    assert rendered(tokenizer, TURNS[:1], enable_thinking=True) == wanted
    assert made.template == "equal to the base's without thoughts on 5 conversations"
    assert '</think>\n\n"""' in (Path(made.path).parent / "Modelfile").read_text()


def test_turns_that_are_asked_as_they_stand_stay_one_row(tmp_path: Path) -> None:
    """And those that are not are counted as the rows that they become, for the price."""
    row = TrainingRow("r1", "imported", TURNS[:1], TURNS[1:], RowAttributes(values_at=((0, 1),)))
    plain, thinking = (base_of(tmp_path / name, name) for name in ("Qwen2.5", "Qwen3"))
    assert len(tokenize_rows(read(plain), [row], 4096)) == 1 and "train_turns" not in row_tokens(plain, [row])
    apart = tokenize_rows(read(thinking), [row, row], 4096)
    counted = row_tokens(thinking, [row, replace(row, split="valid")])
    assert [one.row_id for one in apart] == ["r1#1", "r1#2"] * 2 and counted["train_turns"] == 2
    assert [bool(one.values) for one in apart[:2]] == [False, True], "the places are those of the last answer"
    assert abs(counted["tokens_per_row"] - sum(len(one.input_ids) for one in apart) / 4) <= 2

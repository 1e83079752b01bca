"""Where an answer ends: the token that the chat template writes after it, and the turns of a conversation.

Mostly the tokenizer's own eos. Templates such as Gemma's and Phi-3's end a turn with another token: the generation
config of their models names it beside eos, and transformers and vLLM stop at each token that is named there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, TypedDict, overload

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.models.chat_template import answering_at_once, template_messages

_QUESTION = [{"role": "user", "content": "Q"}]
_ANSWER = {"role": "assistant", "content": "A"}


class Tokens(TypedDict):
    """Of a conversation."""

    input_ids: Sequence[int]
    offset_mapping: Sequence[tuple[int, int]]
    """Which characters each token is of; there where it was asked for."""


class Tokenizer(Protocol):
    """What of a transformers tokenizer turns a row into tokens, and tells how an answer ends."""

    name_or_path: str
    """The folder that it was read from."""
    eos_token: str
    eos_token_id: int
    chat_template: object

    def __hash__(self) -> int:
        """Of this very tokenizer, for what is found out about it once."""

    @overload
    # Ignored: to mypy the overloads overlap, as a bool may be either literal; transformers decides by the value.
    def apply_chat_template(  # type: ignore[overload-overlap]
        self,
        conversation: Sequence[Mapping[str, object]],
        *,
        tokenize: Literal[False],
        add_generation_prompt: bool,
        **options: object,
    ) -> str:
        """A conversation as text."""

    @overload
    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, object]],
        *,
        tokenize: bool = True,
        return_dict: bool,
        add_generation_prompt: bool,
        **options: object,
    ) -> Tokens:
        """A conversation as tokens."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Tokens of a text."""


@lru_cache(maxsize=4)  # of the few that a process has; asking a template takes milliseconds, for every row
def turn_end(tokenizer: Tokenizer) -> int:
    """The token after an answer at which generation stops; eos where the template writes no such token."""
    stops = stop_tokens(Path(tokenizer.name_or_path), tokenizer.eos_token_id)
    asked, answered = (
        tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=asks)["input_ids"]
        for chat, asks in ((_QUESTION, True), ([*_QUESTION, _ANSWER], False))
    )
    # the shorter may end first
    same = next((n for n, (a, b) in enumerate(zip(asked, answered, strict=False)) if a != b), len(asked))
    return next((token for token in answered[same:] if token in stops), tokenizer.eos_token_id)


def rendered(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, object]],
    row: TrainingRow,
    options: Mapping[str, object],
    *,
    add_generation_prompt: bool = False,
) -> list[int]:
    """Tokens of a conversation, with the tools that it was held with where there are some."""
    tokens = tokenizer.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=add_generation_prompt,
        **with_tools(row),
        **options,
    )
    return list(tokens["input_ids"])


def with_tools(row: TrainingRow) -> dict[str, object]:
    """The option of a template that names them."""
    return {"tools": list(row.attributes.tools)} if row.attributes.tools else {}


def turns_of(tokenizer: Tokenizer, row: TrainingRow, *, at_once: bool = True) -> list[TrainingRow]:
    """A row as what is learned at once: itself, or each turn of the assistant with the prompt that it is asked with.

    Templates such as Qwen3's write an earlier turn otherwise than the one that is answered. A later turn then does not
    hold the tokens that the earlier one is asked and answered with.
    """
    said, first = [*row.prompt, *row.completion], len(row.prompt)
    ends = [at for at in range(first, len(said)) if said[at].get("role") == "assistant"]
    if len(ends) < 2:
        return [row]
    template, stop = tokenizer.chat_template, turn_end(tokenizer)
    options = answering_at_once(template) if at_once else {}

    def until(end: int, *, asks: bool) -> list[int]:
        return rendered(tokenizer, template_messages(template, said[:end]), row, options, add_generation_prompt=asks)

    def learned(end: int) -> list[int]:
        tokens = until(end + 1, asks=False)
        while stop in tokens and tokens[-1] != stop:
            tokens.pop()
        return tokens

    whole = until(ends[-1] + 1, asks=False)
    parts = [until(end, asks=True) for end in ends]
    parts += map(learned, ends[:-1])
    if all(whole[: len(part)] == part for part in parts):
        return [row]
    return [_turn(row, number, said, end, last=end == ends[-1]) for number, end in enumerate(ends, 1)]


def _turn(
    row: TrainingRow,
    number: int,
    said: Sequence[Mapping[str, object]],
    end: int,
    *,
    last: bool,
) -> TrainingRow:
    """One turn; its number tells it from the others, and a variant's turn belongs to the same turn of its row."""
    known, form = row.attributes, row.attributes.variant_of
    known = replace(known, values_at=known.values_at if last else (), variant_of=f"{form}#{number}" if form else "")
    return replace(
        row, row_id=f"{row.row_id}#{number}", prompt=said[:end], completion=said[end : end + 1], attributes=known
    )


def stop_tokens(folder: Path, eos: int) -> frozenset[int]:
    """The tokenizer's eos, and what the generation config names beside it; of one without that eos nothing counts."""
    named: object = None
    for name in ("generation_config.json", "config.json"):  # as transformers looks for it
        if (folder / name).is_file():
            named = json.loads((folder / name).read_text()).get("eos_token_id")
            break
    return frozenset(named) if isinstance(named, list) and eos in named else frozenset({eos})

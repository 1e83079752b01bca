"""The token that an answer ends with: what the chat template writes after it, and what generation stops at.

Mostly the tokenizer's own eos. Templates such as Gemma's and Phi-3's end a turn with another token: the generation
config of their models names it beside eos, and transformers and vLLM stop at each token that is named there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, TypedDict, overload

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


def stop_tokens(folder: Path, eos: int) -> frozenset[int]:
    """The tokenizer's eos, and what the generation config names beside it; of one without that eos nothing counts."""
    named: object = None
    for name in ("generation_config.json", "config.json"):  # as transformers looks for it
        if (folder / name).is_file():
            named = json.loads((folder / name).read_text()).get("eos_token_id")
            break
    return frozenset(named) if isinstance(named, list) and eos in named else frozenset({eos})

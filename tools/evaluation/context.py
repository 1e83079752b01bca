"""How many tokens a run's conversations need: the longest prompt of a suite, and room for an answer beside it.

Prompts are counted with the base's own tokenizer where that can be had without loading a model, message by message;
else by their bytes. What the chat template puts around them is an allowance, so the context is never chosen too small
by it, and nothing is refused because of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS
from tunesmith.tools.suites.case import Case

_AROUND_ALL, _AROUND_TOOLS, _AROUND_MESSAGE = 64, 192, 12
"""Tokens of a usual template: its own first words, how tools are called, and the marks of a turn."""
_BYTES_A_TOKEN = 2
"""Of text, at least, where nothing can count it: English has four, Chinese three."""

Count = Callable[[str], int]
"""Tokens of a text."""


class Need(NamedTuple):
    """What the longest case of a suite takes."""

    case_id: str = ""
    prompt_tokens: int = 0
    """Of its messages and tools alone."""
    around_tokens: int = 0
    """Of the template around them, at most."""
    answer_tokens: int = 0
    """That an answer may have, its thought included."""
    counted: bool = True
    """Whether a tokenizer counted the prompt; by bytes nothing is refused."""

    @property
    def least(self) -> int:
        """Tokens that it takes whatever the template adds."""
        return (self.prompt_tokens if self.counted else 0) + self.answer_tokens

    @property
    def tokens(self) -> int:
        """Tokens in which it certainly fits."""
        return self.prompt_tokens + self.around_tokens + self.answer_tokens


def longest(
    cases: Sequence[Case],
    answer_tokens: Callable[[Case], int],
    tokenizer_dir: Path | None,
    before: Sequence[Mapping[str, object]] = (),
    *,
    enough: int = CONTEXT_TOKENS,
) -> Need:
    """The case that needs the most, with the messages `before` it; `tokenizer_dir` is the folder of the base, if any.

    Where bytes alone show that every case fits `enough` tokens no tokenizer is loaded: a token has a byte at least.
    """
    bounds = sorted((_need(case, before, answer_tokens(case), _bytes_of) for case in cases), key=lambda n: -n.tokens)
    if not bounds or bounds[0].tokens <= enough:
        return bounds[0] if bounds else Need()
    by_id = {case.case_id: case for case in cases}
    count = counter_of(tokenizer_dir)
    most = Need()
    for bound in bounds:
        if bound.tokens <= most.tokens:
            break  # all that follow have fewer bytes than this one has tokens
        case = by_id[bound.case_id]
        most = max(most, _need(case, before, bound.answer_tokens, count), key=lambda need: need.tokens)
    return most


def prompt_tokens(cases: Sequence[Case]) -> float:
    """Tokens of a prompt, on average, for a price."""
    # four bytes of English a token, on average
    return sum(_bytes_of(text) for case in cases for text in _texts(case, ())) / (4 * max(1, len(cases)))


def counter_of(tokenizer_dir: Path | None) -> Count:
    """Counts tokens as the tokenizer in a folder does; by bytes where it has none that can be read by itself."""
    file = tokenizer_dir / "tokenizer.json" if tokenizer_dir else None
    if file is None or not file.is_file():
        return _by_bytes
    try:
        from tokenizers import Tokenizer

        read = Tokenizer.from_file(str(file))
    except Exception:  # not installed, or of a version that this one cannot read: it raises a plain Exception
        return _by_bytes
    return lambda text: len(read.encode(text, add_special_tokens=False).ids)


def choose_context(need: Need, asked: int, most: int) -> int:
    """The context that is asked for, or with 0 the smallest of 2,048, 4,096, 8,192 … that holds the longest case; of a
    model that takes fewer, as many as it takes.

    `most` is what the model takes, 0 where nobody knows. Raises BadInput, with the numbers, where there is none.
    """
    if asked:
        if most and asked > most:
            raise BadInput(f"context_tokens={asked} is more than this model takes; give at most {most}")
        if need.least > asked:
            raise BadInput(f"{_in_words(need)}: context_tokens={asked} does not hold it; {_instead(need, most)}")
        return asked
    context = CONTEXT_TOKENS
    while context < need.tokens:
        context *= 2
    if most and context > most:
        if need.least > most:
            raise BadInput(f"{_in_words(need)}: this model takes {most} in all; {_instead(need, most)}")
        context = most
    return context


def refuse_longer(need: Need, context_tokens: int) -> None:
    """Raises BadInput where a case with what stands before it does not fit the context that a run has."""
    if need.least > context_tokens:
        raise BadInput(
            f"{_in_words(need)}, with the prompt before it: this run's conversations have {context_tokens}; run the "
            "baseline again with a larger context_tokens, or shorten the prompt"
        )


def _in_words(need: Need) -> str:
    return (
        f"the prompt of case {need.case_id} has {need.prompt_tokens} tokens and its answer may have "
        f"{need.answer_tokens}"
    )


def _instead(need: Need, most: int) -> str:
    if most and need.least > most:
        return "shorten the case or leave it out, allow shorter answers, or take a model with a longer context"
    return "leave context_tokens out, and it is chosen; or leave the case out"


def _need(case: Case, before: Sequence[Mapping[str, object]], answer_tokens: int, count: Count) -> Need:
    messages = len(before) + len(case.messages)
    around = _AROUND_ALL + _AROUND_MESSAGE * messages + (_AROUND_TOOLS if case.tools else 0)
    return Need(case.case_id, sum(map(count, _texts(case, before))), around, answer_tokens, count is not _by_bytes)


def _texts(case: Case, before: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Everything of a conversation that becomes tokens."""
    for message in (*before, *case.messages):
        content = message.get("content")
        yield content if isinstance(content, str) else json.dumps(content) if content else ""
        if calls := message.get("tool_calls"):
            yield json.dumps(calls)
    if case.tools:
        yield json.dumps(case.tools)


def _bytes_of(text: str) -> int:
    return len(text.encode())


def _by_bytes(text: str) -> int:
    return -(-_bytes_of(text) // _BYTES_A_TOKEN)

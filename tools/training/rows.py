"""Training rows as tokens: prompt and completion rendered by the model's own template, loss on the completion alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.rows import VARIANTS, read_rows
from tunesmith.tools.models.chat_template import answering_at_once, template_messages, thoughts_in
from tunesmith.tools.models.turn_end import Tokenizer, rendered, turn_end, turns_of, with_tools

IGNORED = -100
"""The label that cross-entropy leaves out: torch's own default."""
REHEARSAL_ORIGINS = ("rehearsal", "near_miss")
"""Origins of rows that hold the model to its base: ordinary answers, to ordinary messages and to look-alikes."""


class TokenRow(NamedTuple):
    """One row ready for the trainer: `labels` equal `input_ids` where there is loss, IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]
    rehearsal: bool = False
    """An ordinary answer: not a text to learn, but a place where the model must stay as the base is."""
    row_id: str = ""
    """Which row of the store this is."""
    values: tuple[bool, ...] = ()
    """Of each token, whether it is of a value of the answer; empty where nothing is known of that."""

    @property
    def trainable(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def tokenize_row(tokenizer: Tokenizer, row: TrainingRow, max_seq_len_tokens: int, *, at_once: bool = True) -> TokenRow:
    """Render and mask one row: loss on the assistant's turns of the completion alone, each up to its stop token.

    What a template puts after the last stop token is never generated, so it is neither trained nor paid for. A row that
    is too long loses the end of its completion, which a caller can see: its stop token is no longer in the labels.
    Rows hold no thoughts: with `at_once` a template that can leave them out is told to. One that takes no system
    message is given the conversation as the model is asked it.
    """
    given = [*row.prompt, *row.completion]
    messages = template_messages(tokenizer.chat_template, given)
    prompt_length = len(row.prompt) - (len(given) - len(messages))
    options = answering_at_once(tokenizer.chat_template) if at_once else {}
    whole = _whole(tokenizer, messages, row, options)
    labels = [IGNORED] * len(whole)
    end, stop = 0, turn_end(tokenizer)
    for place in range(prompt_length, len(messages)):
        if messages[place]["role"] != "assistant":
            continue
        start = _shared(rendered(tokenizer, messages[:place], row, options, add_generation_prompt=True), whole)
        last = place + 1 == len(messages)
        end_of_turn = len(whole) if last else _shared(rendered(tokenizer, messages[: place + 1], row, options), whole)
        stops = [i for i in range(start, end_of_turn) if whole[i] == stop]
        end = stops[-1] + 1 if stops else end_of_turn
        labels[start:end] = whole[start:end]
    ids = whole[:end][:max_seq_len_tokens]
    rehearsal, spans = row.origin in REHEARSAL_ORIGINS, row.attributes.values_at
    values = _of_values(tokenizer, messages, row, options, whole)[: len(ids)] if spans and not rehearsal else ()
    return TokenRow(ids, labels[: len(ids)], rehearsal=rehearsal, row_id=row.row_id, values=values)


def _of_values(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, object]],
    row: TrainingRow,
    options: Mapping[str, object],
    whole: Sequence[int],
) -> tuple[bool, ...]:
    """Of each token of a conversation, whether it has a part in a value of the last answer, as the row says it.

    Nothing where the tokenizer does not say where tokens stand, or the template writes the answer in another way.
    """
    answer = str(messages[-1]["content"] or "")
    more: dict[str, object] = {**with_tools(row), **options}
    placing = {"return_offsets_mapping": True}
    try:
        placed = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, add_generation_prompt=False, tokenizer_kwargs=placing, **more
        )
    except (NotImplementedError, ValueError):  # of a tokenizer in Python
        return ()
    offsets = placed["offset_mapping"]
    asked = _shared(rendered(tokenizer, messages[:-1], row, options, add_generation_prompt=True), whole)
    if list(placed["input_ids"]) != list(whole) or not answer.strip() or asked == len(whole):
        return ()
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False, **more)
    start = text.find(answer.strip(), offsets[asked][0])
    # Templates strip an answer, and the row's places count from before that.
    first = start - (len(answer) - len(answer.lstrip()))
    spans = [(first + begin, first + end) for begin, end in row.attributes.values_at] if start >= 0 else []
    values = [at >= asked and any(a < end and begin < b for begin, end in spans) for at, (a, b) in enumerate(offsets)]
    return tuple(values) if any(values) else ()


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def tokenize_rows(
    tokenizer: Tokenizer, rows: Sequence[TrainingRow], max_seq_len_tokens: int, *, at_once: bool = True
) -> list[TokenRow]:
    """All rows as tokens, several of one whose turns are asked in other tokens than it has.

    Raises StepFailed where a row would train nothing or never learns to stop.
    """
    rows = [turn for row in rows for turn in turns_of(tokenizer, row, at_once=at_once)]
    tokens = [tokenize_row(tokenizer, row, max_seq_len_tokens, at_once=at_once) for row in rows]
    stop = turn_end(tokenizer)
    cut = [i for i, row in enumerate(tokens) if stop not in row.labels]
    whole = {i: tokenize_row(tokenizer, rows[i], sys.maxsize, at_once=at_once) for i in cut}
    unended = [i for i in cut if stop not in whole[i].labels]
    if unended:
        raise StepFailed(
            f"the chat template puts no stop token ({tokenizer.eos_token}) after the answer of {len(unended)} of "
            f"{len(rows)} rows (the first: {rows[unended[0]].row_id}), so the model would never learn to stop; name "
            "the token that the template ends an answer with as eos_token in the base's tokenizer_config.json, or "
            "beside eos in eos_token_id of its generation_config.json"
        )
    if cut:
        longest = max(len(row.input_ids) for row in whole.values())
        raise StepFailed(
            f"{len(cut)} of {len(rows)} rows end before their stop token at max_seq_len_tokens={max_seq_len_tokens} "
            f"(the first: {rows[cut[0]].row_id}); the longest has {longest} tokens: raise it, or drop those rows"
        )
    return tokens


def read_variants(
    tokenizer: Tokenizer, rows_path: Path, max_seq_len_tokens: int, *, at_once: bool = True
) -> dict[str, list[TokenRow]]:
    """Row → its variants, of the file beside its data set's; empty where there is none."""
    path = rows_path.parent / VARIANTS
    if not path.exists():
        return {}
    rows = [turn for row in read_rows(path) for turn in turns_of(tokenizer, row, at_once=at_once)]
    variants: dict[str, list[TokenRow]] = {}
    of_turns = tokenize_rows(tokenizer, rows, max_seq_len_tokens, at_once=at_once)
    for row, tokens in zip(rows, of_turns, strict=True):
        variants.setdefault(row.attributes.variant_of, []).append(tokens)
    return variants


def with_variants(
    rows: Sequence[TokenRow],
    variants: Mapping[str, Sequence[TokenRow]],
    joined_epochs: int,
    variants_per_epoch: int = 1,
) -> tuple[list[TokenRow], list[int]]:
    """Every row once an epoch, or `variants_per_epoch` times if it has variants: each time in its next one.

    Also the place in `rows` of each.
    """
    placed = [
        (own[(epoch * variants_per_epoch + turn) % len(own)], place)
        for epoch in range(joined_epochs)
        for place, row in enumerate(rows)
        for own in ((row, *variants.get(row.row_id, ())),)
        for turn in range(min(variants_per_epoch, len(own)))
    ]
    return [row for row, _ in placed], [place for _, place in placed]


def _whole(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, object]], row: TrainingRow, options: Mapping[str, object]
) -> list[int]:
    """Tokens of a whole conversation; a thought that every prompt opens is closed before the last answer.

    The template leaves it out of what was said, and a model that is asked with an open thought has to learn to end it.
    """
    whole = rendered(tokenizer, messages, row, options)
    if messages[-1]["role"] != "assistant" or thoughts_in(str(tokenizer.chat_template or "")) != "opens":
        return whole
    asked = rendered(tokenizer, messages[:-1], row, options, add_generation_prompt=True)
    if (start := _shared(asked, whole)) == len(asked):
        return whole
    answer, end = whole[start:], tokenizer.encode("</think>", add_special_tokens=False)
    for at in range(len(answer)):
        if answer[at : at + len(end)] == end:  # the template writes an empty thought of its own
            return [*asked, *tokenizer.encode("\n", add_special_tokens=False), *answer[at:]]
    return [*asked, *tokenizer.encode("\n</think>\n\n", add_special_tokens=False), *answer]

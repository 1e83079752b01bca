"""Whether something stands in what the user typed: a quote, an example, the name of a model, the path of a file."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress

from tunesmith.tools.models.model_names import is_listed

_QUOTES = str.maketrans({**dict.fromkeys("“”„«»‹›", '"'), **dict.fromkeys("‘’‚`´", "'")})
_SENTENCE_ENDS = re.compile(r"(?<=[.!?。])\s+|\n+")
_MARKS = " .,;:!?。\"'"
_NAME_PARTS = re.compile(r"[a-z]+|\d+")
_NOT_ITS_NAME = ("instruct", "chat", "it", "hf")
"""What says how a model was trained; people leave it out."""


def stands(text: str, turns: Sequence[str]) -> bool:
    """Whether each sentence of a text stands in some turn, whatever its case, spaces and quotes."""
    typed = [_plain(turn) for turn in turns]
    sentences = [plain for one in _SENTENCE_ENDS.split(text) if (plain := _plain(one).strip(_MARKS))]
    return bool(sentences) and all(any(_within(one, turn) for turn in typed) for one in sentences)


def stands_exactly(text: str, turns: Sequence[str]) -> bool:
    """Whether a text stands in some turn letter for letter; a new line may be typed as `\\n`."""
    written = text.strip()
    forms = (written, written.replace("\n", "\\n"))
    return bool(written) and any(_within(form, turn) for turn in turns for form in forms)


def as_typed(text: str, turns: Sequence[str]) -> str:
    """A text as it was typed letter for letter, a JSON object in the user's own spelling; empty: it was not typed."""
    if stands_exactly(text, turns):
        return text.strip()
    begins = ((turn, match.start()) for turn in turns for match in re.finditer(r"[{\[]", turn))
    with suppress(ValueError, RecursionError):
        wanted = json.loads(text)
        for typed, at in begins:
            with suppress(ValueError):
                value, end = json.JSONDecoder().raw_decode(typed, at)
                if value == wanted:
                    return typed[at:end]
    return ""


def names(place: str, turns: Sequence[str]) -> bool:
    """Whether a path or another name stands in some turn whole: no longer path that it is a part of is named."""
    pattern = rf"(?<![\w./~-]){re.escape(place)}(?![\w/-]|\.\w)"
    return bool(place) and any(re.search(pattern, turn, re.IGNORECASE) for turn in turns)


def names_model(model: str, turns: Sequence[str]) -> bool:
    """Whether a model is named: by its whole name, or, if our own table lists it, as people say it, `qwen3 4b`."""
    if names(model, turns):
        return True
    own = [part for part in _parts_of(model.rpartition("/")[2]) if part not in _NOT_ITS_NAME]
    typed = (_parts_of(turn) for turn in turns if own and is_listed(model))
    return any(own == parts[at : at + len(own)] for parts in typed for at in range(len(parts)))


def _parts_of(text: str) -> list[str]:
    return _NAME_PARTS.findall(text.lower())


def _within(text: str, turn: str) -> bool:
    """Whether a text stands in a turn as whole words; in scripts without spaces anywhere."""
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])", turn) is not None


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_QUOTES).split())

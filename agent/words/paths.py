"""Paths in a sentence as they are meant: the longest that is there, blanks in it allowed. Nothing is read here."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from tunesmith.agent.words.lexicon import words_in

_MOST_WORDS = 8
"""Words that a path with blanks in it may go on for."""
_MOST_CHARACTERS = 400
"""In which those words are looked for: a paste may hold many paths."""
_MARKS = ".,;:?!)\"'”»"
_ENDING = range(3, 9)
"""Characters of a file's ending, its point among them: `.md`, `.parquet`."""


def end_of(sentence: str, start: int, end: int) -> int:
    """Where the path ends that begins at `start` and has no blank up to `end`.

    That of the longest text which is there; where nothing is, behind the first of the next words that ends as a file
    does, if neither a mark nor a word that joins or attaches stands before it.
    """
    ends = _word_ends(sentence, end)
    for at in reversed(ends):
        if _is_there(sentence[start:at].rstrip(_MARKS)):
            return start + len(sentence[start:at].rstrip(_MARKS))
    written = sentence[start:end].rstrip(_MARKS)
    if _is_there(written) or Path(written).suffix or end != start + len(written):
        return end
    stops = words_in("joints") | words_in("attaches")
    for before, at in zip([end, *ends], ends, strict=False):  # each word from where the one before it ended
        word = sentence[before:at].strip()
        bare = word.rstrip(_MARKS)
        suffix = Path(bare).suffix
        if len(suffix) in _ENDING and suffix[1:].isalnum() and not suffix[1:].isdecimal():
            return at - (len(word) - len(bare))
        if bare != word or word.lower() in stops or "/" in word:
            break
    return end


def _word_ends(sentence: str, end: int) -> list[int]:
    """Where each of the next words ends that blanks part."""
    ends, at = list[int](), end
    for word in islice(sentence[end : end + _MOST_CHARACTERS].split(), _MOST_WORDS):
        at = sentence.index(word, at) + len(word)
        ends.append(at)
    return ends


def _is_there(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (ValueError, OSError, RuntimeError):  # no path, one that nobody may see, or `~` of nobody
        return False

"""The words of lexicon.yaml: what names a thing of this trade, found in a sentence also where it is misspelt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from rapidfuzz.distance import OSA

from tunesmith.agent.commands.consent import folded
from tunesmith.tools.core.yaml_file import read_own

_HAN = "\u4e00-\u9fff"
_WORD = re.compile(rf"[{_HAN}]|\d+(?=[^\W\d_{_HAN}]{{2,}}(?![^\W_]))|[^\W_{_HAN}]+")
"""`4bit` is two words, `fp8` and `7b` are one; Chinese puts no spaces between its words, so each sign is one."""
_SHORTEST_MISSPELT, _SWAPPED, _LONG = 5, (3, 4), 9
"""Letters of a word that may be a slip of another, of one with two letters swapped, and of one with two slips."""
_EVERYDAY = ("says_nothing", "holds_back", "before_that", "last_step", "more", "to_b", "halves", "several", "reuses",
             "spans", "weekdays")  # fmt: skip
"""Tables of words that belong to no trade: nothing that is misspelt is taken for one of them."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a sentence: folded, put right where it is misspelt, and where it stands in what was typed."""

    text: str
    start: int
    end: int
    written: str
    """Folded as it was typed."""


@dataclass(frozen=True, slots=True)
class Match:
    """A name at a place: from its first word to behind its last one."""

    name: str
    first: int
    after: int


class Names:
    """Names of several things, by the word that they begin with."""

    def __init__(self, things: Mapping[str, str]) -> None:
        self._exact: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._stems: list[tuple[tuple[str, ...], str]] = []
        for thing, names in things.items():
            for name in names.split(","):
                words = tuple(re.sub(rf"([{_HAN}])", r" \1 ", name).split())
                if words and words[0].endswith("*"):
                    self._stems.append((words, thing))
                elif words:
                    self._exact.setdefault(words[0], []).append((words, thing))
        self._beginnings = tuple({words[0][:-1] for words, _ in self._stems})

    def words(self) -> Iterator[str]:
        """Every word in the names, stems with their star."""
        for entries in (*self._exact.values(), self._stems):
            for words, _ in entries:
                yield from words

    def single_words(self) -> dict[str, str]:
        """The names of one word, and what they name, in the order of the table."""
        return {words[0]: thing for entries in self._exact.values() for words, thing in entries if len(words) == 1}

    def find(self, sentence: Sequence[Word]) -> list[Match]:
        """Every name in a sentence in order; of those that overlap the longest."""
        matches: list[Match] = []
        for at, word in enumerate(sentence):
            singular = self._exact.get(word.text.removesuffix("s"), ()) if word.text.endswith("s") else ()
            stems = self._stems if word.text.startswith(self._beginnings) else ()
            candidates = [*self._exact.get(word.text, ()), *singular, *stems]
            at_word = [
                Match(thing, at, at + len(words))
                for words, thing in candidates
                if at + len(words) <= len(sentence)
                and all(_same(name, sentence[at + i].text) for i, name in enumerate(words))
            ]
            if at_word and (not matches or at >= matches[-1].after):
                matches.append(max(at_word, key=lambda match: match.after))
            elif at_word and max(m.after for m in at_word) - at > matches[-1].after - matches[-1].first:
                matches[-1] = max(at_word, key=lambda match: match.after)
        return matches


def _same(name: str, word: str) -> bool:
    return word.startswith(name[:-1]) if name.endswith("*") else word in (name, f"{name}s")


@cache
def lexicon() -> Mapping[str, Names]:
    """Each table of the lexicon as names; a plain list of words is a table of one thing, a choice one per field."""
    page = dict(_page())
    tables = {f"choices.{field}": options for field, options in page.pop("choices").items()}
    tables |= {name: value if isinstance(value, dict) else {name: value} for name, value in page.items()}
    return {name: Names({str(k): str(v) for k, v in table.items()}) for name, table in tables.items()}


@cache
def words_in(table: str) -> frozenset[str]:
    """Every word and saying of a table."""
    return frozenset(lexicon()[table].words())


@cache
def field_names() -> tuple[str, ...]:
    """The settings by the names that a request has for them."""
    return tuple(_page()["fields"])


def as_typed(table: str) -> dict[str, str]:
    """The names of a table with their accents, and what each names."""
    return {name: thing for thing, names in _page()[table].items() for name in names.split(", ")}


def near_name(written: str, names: Sequence[str]) -> str:
    """The only one of some names that is at most two slips away: `lora_rnk`; empty: none, or several are."""
    near = [name for name in names if OSA.distance(name, written, score_cutoff=2) <= 2]
    return near[0] if len(near) == 1 else ""


@cache
def _page() -> Mapping[str, Any]:
    return read_own(files("tunesmith.agent.words") / "lexicon.yaml")  # type: ignore[no-any-return]  # ours, of tables


def words_of(text: str) -> list[Word]:
    """The words of a text; those that are no words but one slip of the finger from a known one are put right."""
    written = ((folded(match[0]), match.start(), match.end()) for match in _WORD.finditer(text))
    return [Word(repaired(word), start, end, word) for word, start, end in written]


def as_written(table: str, words: Sequence[Word]) -> list[Match]:
    """The names of a table of everyday words, none put right."""
    return lexicon()[table].find([replace(word, text=word.written) for word in words])


@cache
def repaired(word: str) -> str:
    """The word of the trade that a misspelt one is nearest to: a letter lost, doubled, swapped or mistaken."""
    if not word.isalpha() or is_known(word):
        return word
    if len(word) < _SHORTEST_MISSPELT:
        swapped = (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1))
        may_be = len(word) in _SWAPPED and word not in _trade_words()
        return next((one for one in swapped if one in _trade_words()), word) if may_be else word
    most = 1 if len(word) < _LONG else 2  # a second slip only where a word is long enough to be told by the rest
    known = (one for one in _trade_words() if len(one) >= _SHORTEST_MISSPELT and abs(len(one) - len(word)) <= most)
    nearest = min(((OSA.distance(word, one, score_cutoff=most), one) for one in known), default=(most + 1, word))
    return nearest[1] if nearest[0] <= most else word


def _of_the_trade() -> Iterator[str]:
    for table, names in lexicon().items():
        if table not in _EVERYDAY:
            yield from names.words()


@cache
def _trade_words() -> Mapping[str, None]:
    """The words of the trade, in their order."""
    return dict.fromkeys(sorted({word for word in _of_the_trade() if "*" not in word}))


@cache
def _stems() -> tuple[str, ...]:
    return tuple(sorted({word[:-1] for word in _of_the_trade() if word.endswith("*")}))


def is_known(word: str, *, by_stem: bool = True) -> bool:
    """Whether it is an ordinary English word, or one of the lexicon; `by_stem`: also by how it begins alone."""
    of_the_trade = len(word) >= _SHORTEST_MISSPELT and word in _trade_words()
    return word in _ordinary() or of_the_trade or (by_stem and word.startswith(_stems()))


@cache
def _ordinary() -> frozenset[str]:
    """Ordinary English: the words of four letters and more of BERT's vocabulary (Devlin et al. 2018; Apache-2.0)."""
    return frozenset((files("tunesmith.agent.words") / "vocab.txt").read_text(encoding="utf-8").split())

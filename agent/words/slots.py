"""What a sentence names, each with its place: runs, steps, arms, stages, blocks, settings with their values, models,
cards, paths, spans of time. Typed, whatever the sentence asks; what it asks is `intent`'s to say.

Ids, paths, model names and the like are told by their shape, everything else by the words of lexicon.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from tunesmith.agent.words import paths
from tunesmith.agent.words.lexicon import Match, Word, field_names, lexicon, near_name, words_in, words_of
from tunesmith.agent.words.values import SPANS, Number, Span, numbers_in
from tunesmith.memory.records import ASIDE_RUNS, Run

_FAMILIES = (
    "qwen|llama|mistral|mixtral|gemma|phi|smollm|deepseek|olmo|glm|gpt-oss|falcon|yi|granite|codellama|tinyllama|"
    "ministral|nemotron|command-?r|internlm|starcoder|lfm|kimi"
)
FILES = r"\.(?:jsonl?|csv|tsv|parquet|ya?ml|txt|xlsx)\b"
"""How files of rows and of descriptions end: no model is such a file."""
_SHAPES: tuple[tuple[str, str], ...] = (
    ("quote", r"[\"“«`](?P<quote>[^\"“”«»`]{2,})[\"”»`]|(?:^|(?<=\s))'(?P<quote2>[^']{4,})'(?=\s|$|[?.,])"),
    ("path", rf"(?<!\S)(?:~|\.{{1,2}})?/[\w./~-]+|(?<![\w/])[\w-]+{FILES}"),
    ("pair", r"(?<![\w-])(?P<name>[a-zA-Z][\w-]*)\s*=\s*(?P<value>\[[^\]]*\]|[^\s,;]+)"),
    ("date", r"\b\d{4}-\d\d-\d\d\b"),
    ("model", rf"(?<![\w/.-])(?:hub:)?[A-Za-z0-9][\w.-]*/[\w.-]*\w(?:@[0-9a-f]+)?|"
     rf"\b(?:{_FAMILIES})(?![a-zà-ÿ]{{2,}})[\w.]*"  # `llamarlo` is a word
     r"(?:[ -]?(?:v?\d[\w.]*|coder|instruct|chat|math|mini|small|medium|large|it\b|a\d+b|x\d+b))*|"
     r"\bbundled(?:-[\w.]+)?(?= (?:model|base)|$|[.,])|\bbundled-[\w.]+"),
    ("commit", r"\b[0-9a-f]{40}\b"),
    ("card", r"\b(?:\d{1,2} ?[x×] ?)?(?:(?:nvidia|geforce|rtx|gtx|rx|radeon|quadro|tesla|titan|instinct)[ -]?)+"
     r"[a-z]?\d{2,4}(?: ?(?:ti|super|xtx?|ada|pro))*s?\b|"
     r"\b(?:\d{1,2} ?[x×] ?)?(?:[2-5]0[5-9]0(?: ?ti)?(?: ?super)?|a100|a10g?|a30|a40|a[456]000|"
        r"h100|h200|gh200|b200|l40s?|l4|t4|p40|p100|"
     r"v100|mi\d{3}x?)s?\b(?!\s*(?:rows|epochs|steps|tokens|cases))"),
    ("step", r"\bs\d+\b|\b(?:step|schritt|paso) \d+\b(?! ?%)"),
    ("artifact", r"\ba\d+\b"),
    ("row", r"\b[ghi]\d{3,}\b|\brow #?\d+\b"),
    ("case", r"\bc\d+\b|\b(?:target|general|tools?|adversarial|over-trigger|starter|hard|case)-"
        r"(?=[a-z0-9]*\d|[a-z]+-)[a-z0-9-]+\b|\b(?!over-|fine-|pre-|base-|up-|re-)[a-z]{3,}(?:-[a-z0-9]+){2,}\b"),
    ("run", r"\br#?\d+\b|\b(?:run|lauf|ejecución) #?\d+\b(?!\s*(?:more|epochs?|rows?|cases?|steps?|times|%|,\d))"),
)  # fmt: skip
_COMPILED = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _SHAPES)
_TABLES = {
    "arms": "arm", "blocks": "block", "outcomes": "outcome", "stages": "stage", "made": "made", "works": "work",
    "metrics": "metric", "figures": "figure", "fields": "field", "verdicts": "verdict", "origins": "origin",
    "splits": "split", "reasons": "reason", "decisions": "decision", "orders": "order", "roles": "role",
    "parts_of_run": "which_run", "paces": "pace", "again": "again", "times": "factor", "unspoken": "unspoken",
    "negation": "not", "instead": "instead", "until": "until", "only": "only", "pronouns": "pronoun",
}  # fmt: skip
"""Table of the lexicon → the kind of slot that its words are."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One thing that is named: what it is, its value, and from where to where of the typed text."""

    kind: str
    value: object
    start: int
    end: int


@dataclass(frozen=True)
class Slots:
    """A sentence with everything that it names."""

    sentence: str
    words: tuple[Word, ...]
    named: tuple[Slot, ...]
    numbers: tuple[Number, ...]
    pairs: Mapping[str, str] = field(default_factory=dict)
    """`field=value` as it was typed."""

    def all(self, kind: str) -> list[Slot]:
        """Every slot of a kind, in order."""
        return [slot for slot in self.named if slot.kind == kind]

    def values(self, kind: str) -> list[str]:
        """Their different values, in order."""
        return list(dict.fromkeys(str(slot.value) for slot in self.named if slot.kind == kind))

    def first(self, kind: str) -> str:
        """The first value of a kind; empty: none is named."""
        return next((str(slot.value) for slot in self.named if slot.kind == kind), "")

    def negated(self, slot: Slot | Number, most: int = 3) -> bool:  # as far as a negation reaches (`acts.NEAR`)
        """Whether a word such as `without` stands before a slot with at most so many words between."""
        before = [no for no in self.all("not") if no.end <= slot.start]
        return any(len(self.between(no.end, slot.start)) <= most for no in before)

    def between(self, start: int, end: int) -> list[Word]:
        """The words from one place to another."""
        return [word for word in self.words if word.start >= start and word.end <= end]

    def unread(self, read_places: Sequence[tuple[int, int]], known: Callable[[str], bool]) -> list[Word]:
        """The words with a content that nothing took: none of the empty ones, none inside a read place, none that is
        known."""
        return [
            word
            for word in self.words
            if not any(start <= word.start and word.end <= end for start, end in read_places)
            and word.text not in empty_words()
            and not known(word.text)
        ]

    @cached_property
    def asks(self) -> bool:
        """Whether a question mark ends it."""
        return self.sentence.rstrip().endswith(("?", "？"))


def stages_of(slots: Slots) -> list[str]:
    """The stages that are named; those whose word names an arm count only where no other does."""
    arms = slots.all("arm")
    named = slots.all("stage")
    own = [s for s in named if not any(arm.start <= s.start and s.end <= arm.end for arm in arms)]
    return list(dict.fromkeys(str(slot.value) for slot in own or named))


def place_in_list(slots: Slots) -> int:
    """The place among cases or rows that is named, `the third failed case`, `case 2`, `the last one` (-1); 0: none."""
    called = lexicon()["one_of_a_list"].single_words()
    ordinals = lexicon()["ordinals"].find(slots.words)
    for word in (one for one in slots.words if one.written in called):
        behind = [n for n in slots.numbers if n.start >= word.end and len(slots.between(word.end, n.start)) <= 1]
        if behind and not behind[0].unit and called[word.written] != "pointed":
            return int(behind[0].value)
        for match in reversed(ordinals):
            ordinal = slots.words[match.first]
            if ordinal.end <= word.start and len(slots.between(ordinal.end, word.start)) <= _NEAR_PLACE:
                return int(match.name)
    return 0


_NEAR_PLACE = 2
"""Words at most between an ordinal and what is counted."""


@cache
def empty_words() -> frozenset[str]:
    """Words that say nothing about what is to be done."""
    return words_in("empty") | words_in("ordering")


def slots_of(sentence: str, runs: Sequence[Run] = ()) -> Slots:
    """Read what a sentence names; `runs` are those of the store, the newest first."""
    slots, masked, pairs = _shapes(sentence)
    for match in re.finditer(r"\b[a-z]+(?:_[a-z]+)+\b", masked.lower()):
        if (name := near_name(match[0], field_names())) not in ("", match[0]):
            slots.append(Slot("field", name, *match.span()))
            masked = masked[: match.start()] + " " * len(match[0]) + masked[match.end() :]
    ordinary = [run for run in runs if run.name not in ASIDE_RUNS]
    named, masked = _named_runs(masked, ordinary)
    numbers = tuple(numbers_in(masked))
    words = tuple(words_of(masked))
    slots += named
    for table, kind in _TABLES.items():
        slots += [Slot(kind, match.name, *_place(match, words)) for match in lexicon()[table].find(words)]
    for table, names in lexicon().items():
        if table.startswith("choices."):
            choice = table.removeprefix("choices.")
            slots += [Slot(f"choice.{choice}", m.name, *_place(m, words)) for m in names.find(words)]
    slots += [Slot("span", span, *place) for span, place in _spans(masked, slots)]
    slots += _relative_runs(slots, ordinary)
    slots += _sizes(numbers, masked, words)
    # of those that begin together the longest
    return Slots(sentence, words, tuple(sorted(slots, key=lambda slot: (slot.start, -slot.end))), numbers, pairs)


def _place(match: Match, words: Sequence[Word]) -> tuple[int, int]:
    return words[match.first].start, words[match.after - 1].end


def _shapes(sentence: str) -> tuple[list[Slot], str, dict[str, str]]:
    """What is told by its shape, the text with blanks in its place, and the pairs among it."""
    slots: list[Slot] = []
    masked, pairs = sentence, {}
    for kind, pattern in _COMPILED:
        after = 0
        for match in pattern.finditer(masked):
            if kind == "path" and match.start() >= after:
                after = paths.end_of(sentence, match.start(), match.end()) if "/" in match[0] else match.end()
                slots.append(Slot(kind, sentence[match.start() : after].rstrip(".,;?! "), match.start(), after))
                masked = masked[: match.start()] + " " * (after - match.start()) + masked[after:]
            if kind == "path":
                continue
            value: object = match[0]
            if kind == "quote":
                value = (match["quote"] or match["quote2"]).strip()
            elif kind in ("run", "step"):
                value = f"{kind[0]}{re.sub(r'[^0-9]', '', match[0])}"
            elif kind == "pair":
                pairs[match["name"].replace("-", "_").lower()] = match["value"].strip("\"'")
                value = match["name"].replace("-", "_").lower()
            elif kind == "card" and (count := re.match(r"(\d{1,2}) ?[x×] ?", match[0])):
                slots.append(Slot("cards", count[1], match.start(), match.end()))
                value = match[0][count.end() :].rstrip("s")
            elif kind == "card" and re.fullmatch(r"a\d+", match[0]):
                slots.append(Slot("artifact", match[0], match.start(), match.end()))  # an A10, or the tenth artifact
            elif kind == "card":
                value = match[0].rstrip("s")
            elif kind == "model":
                value = match[0].rstrip(".,;?! ")
            slots.append(Slot(kind, value, match.start(), match.start() + len(match[0].rstrip())))
            masked = masked[: match.start()] + " " * len(match[0]) + masked[match.end() :]
    return slots, masked, pairs


def _named_runs(text: str, runs: Sequence[Run]) -> tuple[list[Slot], str]:
    """Runs by their whole name, which is blanked: its words are no blocks and no stages."""
    slots = []
    # a shorter name is a word of any sentence
    for name, run in {run.name.lower(): run.id for run in reversed(runs) if len(run.name) > 3}.items():
        for match in re.finditer(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-])", text, re.IGNORECASE):
            slots.append(Slot("run", run, match.start(), match.end()))
            text = text[: match.start()] + " " * len(match[0]) + text[match.end() :]
    return slots, text


def _relative_runs(named: Sequence[Slot], runs: Sequence[Run]) -> list[Slot]:
    """`the last run`, `the one before`, `both runs` as the runs that they are."""
    slots = []
    for slot in named:
        if slot.kind == "which_run" and runs:
            selection = {"last": runs[:1], "previous": runs[1:2], "first": runs[-1:], "both": runs[:2]}[str(slot.value)]
            slots += [Slot("run", run.id, slot.start, slot.end) for run in selection]
    return slots


def _spans(text: str, slots: Sequence[Slot]) -> Iterator[tuple[Span, tuple[int, int]]]:
    """Spans of time; dates were blanked before and are found among the shapes."""
    for pattern in SPANS:
        for match in pattern.finditer(text):
            yield Span(match[0].lower()), (match.start(), match.end())
    for slot in slots:
        if slot.kind == "date":
            yield Span(str(slot.value)), (slot.start, slot.end)


_RAM = re.compile(r"\s*(?:of )?(?:system |main )?(?:ram|memory|arbeitsspeicher|memoria)\b", re.IGNORECASE)


def _sizes(numbers: Sequence[Number], text: str, words: Sequence[Word]) -> list[Slot]:
    """Sizes of models (`7b`), bits, and memory (`24 GB`), told by their units."""
    slots = []
    for number in numbers:
        behind = [word for word in words if word.start >= number.end][:3]
        counted = [*lexicon()["fields"].find(behind), *lexicon()["figures"].find(behind)]  # `two million epochs`
        if number.unit == "params" or (number.unit == "million" and not counted):
            # as names of models have it
            value = f"{number.value:g}b" if number.unit == "params" else f"{number.value / 1e6:g}m"
            slots.append(Slot("model", value, number.start, number.end))
        elif number.unit == "bit" and number.value in (4, 8, 16):  # a model's weights have no others
            slots.append(Slot("bits", int(number.value), number.start, number.end))
        elif number.unit == "gib":
            ram = _RAM.match(text, number.end)
            slots.append(Slot("ram_gib" if ram else "card_gib", f"{number.value:g}", number.start, number.end))
    return slots

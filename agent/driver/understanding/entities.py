"""What a sentence names: runs, steps, stages, arms, blocks, settings, models, sizes, and what became of a case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tunesmith.agent.driver.argument_grounding import runs_named
from tunesmith.agent.driver.bundled_behaviour import wishes
from tunesmith.agent.driver.understanding.fields import fields_named
from tunesmith.agent.driver.understanding.query import Arm, Block, Outcome
from tunesmith.agent.driver.understanding.times import span_named, window
from tunesmith.agent.driver.understanding.words import readable
from tunesmith.memory.records import ASIDE_RUNS, Run

K = TypeVar("K", bound=str)

ARMS: dict[Arm, str] = {
    "quantized": r"quantized(?: model| one| version)?|compressed|int8|int4|(?:4|8)[ -]?bit (?:model|one|"
    r"version)|w8a8|w4a16|"
    r"quantization(?= (?:lose|lost|cost|hurt|break|broke|make|made))|quantizing|small(?:er)? (?:model|one|version)",
    "merged": r"merged(?: model| one| version)?\b(?! (?:it|the|them|adapter|again|now))|merge (?:model|arm|one)\b",
    "adapter": r"adapters?|lora(?! ?rank| ?alpha| ?drop)|finetuned?(?: model| one| version)|(?:the|our|my) "
    r"finetunes?\b|tuned(?: model| one)?|"
    r"trained (?:model|one|version)|new model|taught model",
    "prompted": r"prompted(?: base| model)?|(?:just |only )?(?:a |the )?(?:system )?prompt alone|best "
    r"(?:system )?prompt",
    "base": r"untouched(?: base| model)?|base(?: model)?\b(?! ?line)|original(?: model| one)?|vanilla|"
    r"stock model|raw model|"
    r"before (?:the )?training|pristine",
}
BLOCKS: dict[Block, str] = {
    "target": rf"targets?\b|{wishes().noun} (?:cases|questions|tests)|(?:the )?actual task|the behaviour itself|on "
    rf"(?:the )?{wishes().noun}s",
    "general": r"general\b|ordinary (?:questions|cases)|everyday|world knowledge|common knowledge|normal questions",
    "tools": r"tools?\b(?:[ -]?(?:call\w*|use|block|cases))?|function[ -]call\w*",
    "adversarial": r"adversarial|hard (?:cases|block|ones)|harder|tricky|trick questions",
    "over-trigger": r"over-?trigger\w*|near[ -]miss\w*|when it should not|where it does not belong",
}
_OUTCOMES: tuple[tuple[Outcome, str], ...] = (
    (
        "gained",
        r"\bgain(?:s|ed)?\b|newly (?:pass|right)|fixed|started (?:passing|to pass)|fail(?:ed)? ?(?:→|"
        r"->|to) ?pass|\bwon\b|"
        r"improved cases|(?:now|newly) (?:right|correct)",
    ),
    (
        "lost",
        r"\blost\b|\blose[sd]?\b|losing|\bcost (?:us |me |you )?(?:any|a |some|quality|"
        r"accuracy|\d)|broke\b|broken|break\b|regress\w*|"
        r"forg[eo]t\w*|unlearn\w*|no longer|"
        r"pass(?:ed)? ?(?:→|->|to) ?fail|got worse|get worse|used to|worse at|damaged?|dropped out|hurt",
    ),
    ("flipped", r"flip\w*|changed (?:verdict|outcome)|switched"),
    (
        "failed",
        r"\bfail\w*|wrong|incorrect\w*|miss(?:ed|es)\b|did not (?:pass|get|solve|answer)|not (?:pass|"
        r"right|solved|correct)|"
        r"bad ones|unsolved|mistakes?|\berrs?\b|screw\w*|mess\w* up|"
        r"trips? (?:\w+ ){0,3}up|tripped|fool(?:s|ed)?\b|stumbl\w*|could not|flunk\w*|still leaks?",
    ),
    ("error", r"errored|erred|timed? ?out"),
    ("passed", r"pass(?:ed|es|ing)?\b|\bright\b|correct\w*|solved?|succe\w+|got right|nailed"),
)
STAGE_WORDS: dict[str, str] = {
    "preflight": r"pre-?flight\w*|smoke[ -]?tests?|dry[ -]?run",
    "critique": r"critique\w*|criticis\w*|clean(?:ing|ed|s|up)?\b|de-?dup\w*|filter(?:ing|ed)\b|judging",
    "baseline": r"base ?-?lines?\b",
    "generate": r"generat\w*|synthe[st]i[sz]\w*|writing (?:the |of )?(?:the )?(?:rows|data|examples)|row "
    r"writing|data creation",
    "quantize": r"quantiz(?:e|es|ing|ation)\b|compress(?:ing|ion)?\b|gptq|(?<![\w-])awq\b|auto-?round\b",
    "merge": r"merg(?:e|es|ing)\b|merged (?=the|it|them)",
    "deploy": r"deploy\w*|roll(?:ed|ing)? ?back|go(?:ing)? live|put(?:ting)? (?:it )?(?:live|online)|ship(?:ping)?\b",
    "evaluate": r"evaluat\w*|\bevals?\b|re-?test\w*|test run",
    "train": r"\btrain(?:ing|ed|s)?\b(?! (?:rows|data|examples|set|loss))|finetun(?:e|es|ed|ing)\b|learning step",
    "base": r"download\w*|fetch\w*|base step",
    "inspect": r"\binspect\w*",
}
_MODEL_NAME = re.compile(
    r"(?<![\w/.-])(?:[A-Za-z0-9][\w.-]*/[\w.-]*\w|(?:qwen|llama|mistral|mixtral|gemma|phi|smollm|deepseek|olmo|glm|"
    r"gpt-oss|falcon|yi|granite|codellama|tinyllama|ministral|nemo|command-?r|internlm|starcoder|lfm|ling|kimi)"
    r"[\w.]*(?:[ -]?(?:v?\d[\w.]*|coder|instruct|chat|math|next|mini|small|medium|large|nemo|it|it\b|a\d+b|x\d+b))*)",
    re.IGNORECASE,
)
_PARAMETERS = re.compile(
    r"(?<![\w.])(\d+(?:\.\d+)?|seven|eight|three|one|two|thirteen|fourteen|thirty-?two|seventy)[ "
    r"-]?"
    r"(b|bn|billion|m|million)\b(?! ?(?:tokens|rows))",
    re.IGNORECASE,
)
_SPELT_SIZES = {
    "one": 1,
    "two": 2,
    "three": 3,
    "seven": 7,
    "eight": 8,
    "thirteen": 13,
    "fourteen": 14,
    "thirtytwo": 32,
    "thirty-two": 32,
    "seventy": 70,
}
_STEP = re.compile(r"\b(?:step )?s(\d+)\b|\bstep (\d+)\b", re.IGNORECASE)
_ARTIFACT = re.compile(r"\ba(\d+)\b(?!b)", re.IGNORECASE)
_LAST = r"(?:last|latest|newest|most recent|current|this|present|recent)"
_BEFORE_LAST = re.compile(
    r"\b(?:previous|(?:one )?before (?:that|it|last)|last but one|second last|earlier) (?:run|one)?"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and what it names."""

    said: str
    """As it was typed."""
    text: str
    """Readable: small letters, terms put right."""
    runs: tuple[str, ...]
    """Ids of runs, in the order they are named; also of runs that do not exist."""
    step: str
    stages: tuple[str, ...]
    arms: tuple[Arm, ...]
    blocks: tuple[Block, ...]
    outcome: Outcome | str
    fields: tuple[str, ...]
    model: str
    """A model's name, or its size such as `7b`."""
    span: str
    """A span of time, such as `yesterday`."""

    def has(self, pattern: str) -> bool:
        """Whether the readable text holds a pattern."""
        return re.search(pattern, self.text) is not None

    @property
    def run(self) -> str:
        """The first run that is named; empty: none."""
        return self.runs[0] if self.runs else ""

    @property
    def stage(self) -> str:
        """The first stage that is named; empty: none."""
        return self.stages[0] if self.stages else ""

    @property
    def arm(self) -> Arm | str:
        """The first arm that is named; empty: none."""
        return self.arms[0] if self.arms else ""

    @property
    def block(self) -> Block | str:
        """The first block that is named; empty: none."""
        return self.blocks[0] if self.blocks else ""

    @property
    def asks(self) -> bool:
        """Whether the sentence asks rather than orders."""
        return self.text.endswith("?") or re.match(_ASKING, self.text) is not None


_ASKING = (
    r"(?:and |so |but |ok(?:ay)?,? |hm+,? |well,? |hey,? |please,? |btw,? |by the way,? |sorry,? |"
    r"wait,? |oh,? |now,? |hi,? |hello,? )*"
    r"(?:what|which|how|why|when|who|whom|whose|where|did|does|do (?:i|we|you|they)|is|are|was|"
    r"were|name|count|has|have|had|can (?:it|this|my|the|a|i|we)|"
    r"could (?:it|this|i|we|my|one|a|the)|would|will|any\b|should|am i|show|list|tell|print|display|"
    r"give me (?:the|a|an|all|some)|"
    r"explain|remind|compare|in which|of which|for which|at which|to which|from which|by how)\b"
)


def sentence_of(said: str, runs: Sequence[Run]) -> Sentence:
    """Read a sentence; `runs` are those of the store, the newest first."""
    text = readable(said)
    bare = _named_runs_out(text, runs)
    return Sentence(
        said=said,
        text=text,
        runs=_runs(text, runs),
        step=next((f"s{one or two}" for one, two in _STEP.findall(text)), ""),
        stages=_in_order(text, STAGE_WORDS),
        arms=_arms(bare),
        blocks=_in_order(bare, BLOCKS),
        outcome=next((name for name, pattern in _OUTCOMES if re.search(pattern, text)), ""),
        fields=fields_named(text),
        model=model_named(said),
        span=span_named(text),
    )


def _named_runs_out(text: str, runs: Sequence[Run]) -> str:
    """Without the names of runs, whose words are no blocks."""
    for run in runs:
        if len(run.name) > 3:
            text = text.replace(run.name.lower(), " ")
    return text


def _in_order(text: str, patterns: dict[K, str]) -> tuple[K, ...]:
    matches = [
        (match.start(), name)
        for name, pattern in patterns.items()
        for match in [re.search(rf"(?<![a-z])(?:{pattern})", text)]
        if match
    ]
    return tuple(name for _, name in sorted(matches))


def _arms(text: str) -> tuple[Arm, ...]:
    text = re.sub(r"base ?-?line\w*|base \d|based? on|basically|quantized to", " ", text)
    return _in_order(text, ARMS)


def _runs(text: str, runs: Sequence[Run]) -> tuple[str, ...]:
    """Runs by id, by time, by `last` and the like, by name and by a word of their name."""
    ordinary = [run for run in runs if run.name not in ASIDE_RUNS]
    spoken = runs_named(text, [run.name for run in ordinary])
    named = [run for one in spoken if (run := _named(one, ordinary))]
    if not named and ordinary:
        named = _by_words(text, ordinary)
    return tuple(dict.fromkeys(named))


def _named(name: str, runs: Sequence[Run]) -> str:
    """The id of a run that was named by its name, or by a time in which it was begun; else as it was said.

    Empty for a time in which no run was begun: it tells when, not which.
    """
    if span := window(name):
        return next((run.id for run in runs if span[0] <= run.created_at < span[1]), "")
    return next((run.id for run in runs if run.name.lower() == name.lower()), name)


_COMMON = frozenset(
    ["model", "base", "test", "run", "the", "new", "json", "small", "lora", "fine", "tune", "tuned", "bundled", "data"]
)


def _by_words(text: str, runs: Sequence[Run]) -> list[str]:
    places: list[tuple[int, str]] = []
    if match := re.search(rf"\b(?:{_LAST}) (?:\w+ )?run\b", text):
        places.append((match.start(), runs[0].id))
    if (match := _BEFORE_LAST.search(text)) and len(runs) > 1:
        places.append((match.start(), runs[1].id))
    if match := re.search(r"\b(?:first|oldest|very first) run\b", text):
        places.append((match.start(), runs[-1].id))
    words: dict[str, list[str]] = {}
    for run in runs:
        for word in set(re.findall(r"[a-z]{4,}", run.name.lower())) - _COMMON:
            words.setdefault(word, []).append(run.id)
    for word, ids in words.items():
        # A word that all runs share tells none of them apart, nor does one that every target case holds.
        if (len(ids) < len(runs) or len(runs) == 1) and (
            match := re.search(
                rf"\b{word}s?\b(?=[ -](?:\w+[ -])?(?:run|model|adapter|one|finetune|lora|line|lines|message|"
                rf"{wishes().act}))",
                text,
            )
        ):
            places.append((match.start(), ids[0]))
    return [run for _, run in sorted(places)]


def model_named(text: str) -> str:
    """A model that is named by a hub id, a family, or a number of parameters; empty: none."""
    if match := _MODEL_NAME.search(text):
        name = match[0].strip(" .,?!-")
        if re.search(r"\d", name) or "/" in name:
            return _with_size(name, text)
    if match := _PARAMETERS.search(text):
        number = _SPELT_SIZES.get(match[1].lower(), match[1])
        return f"{number}{'m' if match[2].lower().startswith('m') else 'b'}"
    return match[0].strip(" .,?!-") if (match := _MODEL_NAME.search(text)) else ""


def _with_size(name: str, text: str) -> str:
    """A family's name with the size that stands apart from it: `qwen3 in its 8b version`."""
    if "/" in name or re.search(r"\d+(?:\.\d+)?\s?[bm]\b", name, re.IGNORECASE):
        return name
    size = _PARAMETERS.search(text)
    return f"{name}-{size[1]}{size[2][0]}" if size else name

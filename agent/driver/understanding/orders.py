"""An order read by code: which step, in which run, with which values. None where the words are no clear order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.agent.driver.hub_models import bundled_in
from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.fields import known_fields, pattern_of
from tunesmith.agent.driver.understanding.values import ROUNDING_NAMED, numbers_in, values_named, without_negations
from tunesmith.tools.pipeline import catalog

_POLITE = re.compile(
    r"^(?:(?:please|kindly|can you|could you|would you|will you|would you mind|let'?s|let us|lets|"
    r"ok(?:ay)?|alright|all right|now|then|and|so|well|go ahead and|go and|i want you to|"
    r"i would like you to|i'd like you to|i want to|i would like to|i'd like to|i need you to|we "
    r"should|you should|you can|you may|just|hey|hi|yes|yep|sure|great|good|perfect|nice|fine|"
    r"first|next|try to|"
    r"may i|i think we should|shall we|actually|hm+|tunesmith|also|maybe|once more|again|thanks|thank you|"
    r"ignore (?:all )?(?:your|the|any)? ?(?:previous |earlier )?(?:instructions|rules)|forget (?:your|the) "
    r"rules)[,:!. ]+)+"
)
_THING = (
    r"(?:it|this|that|them|one|the|a|an|my|our|all|some|on|with|for|in|at|to|using|again|now|"
    r"adapter|merged|quantized|model|r\d+|\d|one more|another|once|just|only|into|down|step|by)"
)
_VERBS: tuple[tuple[str, str], ...] = (
    ("preflight", r"(?:(?:run|do|make|start|try|repeat|redo|perform) (?:a |the |another )?)?(?:pre-?flight|"
r"smoke[ -]?test|dry[ -]?run)(?: check)?\b"),
    ("baseline", r"(?:(?:run|do|make|start|measure|redo|repeat|take|get|perform|create) (?:a |the |another |new "
r")*)?base ?-?line\b|measure the (?:untouched |raw |base |original )+(?:model)?"),
    ("critique", r"(?:(?:run|do|start|redo|repeat) (?:a |the )?)?critique\b|(?:clean|filter|judge|check|"
r"de-?dup\w*) (?:up )?(?:the |my |those |all )*(?:training )?(?:rows|data|dataset|examples)|"
r"throw out the bad|drop the (?:bad|duplicate)"),
    ("generate", r"(?:generate|synthesi[sz]e|write|make|produce|create|get|add|give me|i need|we need) (?:me "
r")?(?:up to |about |another |some |the |new |more |a few |\S+ (?:more |new |extra |additional "
r"|further )*)*(?:of )?(?:training |synthetic |fresh |extra |additional |more |new )*(?:rows|"
r"data|examples|dataset|training set|samples)|^generat\w*(?: again| now)?[.! ]*$|start (?:the "
r")?generation"),
    ("quantize", rf"(?:(?:run|do|start|redo|repeat) (?:a |the )?)?(?:quantize|quantization|compress|gptq|awq|"
rf"auto-?round)\b(?:$|"
rf"[.! ]+{_THING}\b|[.!,])|make (?:it|the (?:merged )?model) smaller|shrink (?:it|the model)|"
rf"turn (?:it|the (?:merged )?model) into (?:4|8|w4|w8)"),
    ("merge", rf"(?:(?:run|do|start|redo|repeat) (?:a |the )?)?merge\b(?:$|[.! ]+{_THING}\b|[.!,])|(?:bake|"
rf"fold|put) the (?:adapter|lora) (?:in|into)"),
    ("evaluate", r"(?:(?:run|do|start|redo|repeat) (?:a |an |the |another )?)?(?:re-?)?(?:evaluat(?:e|ion)|"
r"eval)\b|(?:re-?)?(?:test|measure|benchmark|examine) (?:the |it|r\d|adapter|merged|quantized)|"
r"(?:re-?run|run|repeat) (?:the )?(?:suites?|tests?|cases)"),
    ("deploy", rf"(?:re-?)?(?:deploy|serve|ship)\b(?:$|[.! ]+{_THING}\b|[.!,])|put (?:it|the .{{0,24}}) "
rf"(?:online|live)|(?:go|make it) live|roll(?:ing)? ?back|undo the (?:last )?deploy\w*|(?:go|"
rf"switch|return) back to the (?:previous|old|last|earlier) (?:one|model|deployment|version)"),
    ("train", r"(?:re-?)?train\b(?! (?:a|another|one|me a|some|my|us a)\b.{0,30}(?:model|bot|assistant|"
r"adapter|one)\b.{2,60}(?:that|to|which|for|so)\b)|(?:start|begin|run|repeat|redo|do) (?:the |"
r"a |another |with the )?(?:last |same |previous )?(?:training|train step|finetun\w+)|"
    r"finetune (?:it|the (?:base|model)|"
r"again|with|now|on|for|using|r\d)\b|^finetune$"),
    ("base", r"(?:download|fetch|pull|get|use|take|load|bring|switch to)\b (?:me )?(?:the |a |an "
r")?(?:(?:base|bundled|hub|driver|teacher)\b|model\b|weights\b|(?:~|\.{0,2})/\S+|[\w.-]+/[\w.-]+|qwen|llama|"
r"smollm|mistral|gemma|phi)"),
    ("inspect", r"inspect\b|(?:check|look at|measure|scan) (?:the |my |this )?(?:hardware|machine|computer|gpu|"
r"box|system)"),
)  # fmt: skip
_PAIRS = re.compile(r"(?<!\S)[\w-]+\s*=\s*\S+")
_NOT_NOW = re.compile(
    r"\b(?:do not|don't|never|not yet|no need to|without|rather not|instead of|before you|should i|"
    r"shall i|would it|what if|if i|if we|how (?:do|can|would)|is it|can i|can we|could i|could we|"
    r"do i|why|when will|did you|have you|has it|was it|were)\b"
)
_AGAIN = re.compile(
    r"\bagain\b|\bretrain|\bredo\b|\brepeat\b|\bonce more\b|\bre-?run\b|\banother (?:time|round)\b|"
    r"same (?:settings|as before)"
)


@dataclass(frozen=True, slots=True)
class Order:
    """A step that is to be carried out, once it was priced and agreed to."""

    stage: str
    fields: Mapping[str, object] = field(default_factory=dict)
    run: str = ""
    again: bool = False
    """Whether it is to be as it was before, where nothing else was said."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Field → what its value so far is multiplied by: `twice the rank`."""
    foreign: tuple[str, str] = ("", "")
    """A field that was given a value and that this stage has not, and the stage that has it."""
    unread: str = ""
    """A field that was to be another, by words that say no value: `a higher rank`."""
    unused: str = ""
    """A number that no field took."""


UNASKED = (
    r"without (?:asking|a question|my (?:yes|approval|ok)|approval|confirm\w*)|\b(?:do not|never|stop) ask\w*(?: me)?|"
    r"\bno questions(?: asked)?|\bskip (?:the )?(?:approval|questions?|price)"
)
"""Words that want a step begun with nobody asked; no step is."""
_ABLE = re.compile(r"(?:can|could|will|would|are) you\b|do you\b")
_OF_SOMETHING = re.compile(r"\b(?:it|this|that|them|again|now|please|the|my|our|r\d+|more|some|a|an)\b|\d")


def order_of(s: Sentence) -> Order | None:
    """The step that a sentence orders; None for questions, and where it is not plain which step."""
    if _ABLE.match(s.text) and not _OF_SOMETHING.search(s.text):
        return None  # `can you train on images?` asks what it can do
    text = _PAIRS.sub("", _POLITE.sub("", re.sub(UNASKED, "", without_negations(s.text)))).strip(" ,;")
    if _is_question(s, text) or _NOT_NOW.search(text):
        return None
    stage = _stage(text) or _stage_of_values(text, s)
    if not stage or (stage == "generate" and s.has(_ABOUT_ROWS_THERE)):
        return None
    factors = factors_named(s.text, stage)
    fields = {name: v for name, v in values_named(s.text, (stage,), s.said).items() if name not in factors}
    if stage == "base":
        fields |= _model(s, text)
    if stage == "evaluate" and "arm" not in fields and s.arms and s.arms[0] == "base":
        return Order("baseline", values_named(s.text, ("baseline",), s.said), s.run, True)
    if stage == "deploy" and fields.get("rollback"):
        fields = {"rollback": True}
    factors = {name: by for name, by in factors.items() if name not in fields}
    unread = next((name for name in _changed(s.text, stage) if name not in fields and name not in factors), "")
    again = bool(_AGAIN.search(s.text)) or not _stage(text)
    return Order(stage, fields, s.run, again, factors, _foreign(s, stage), unread, _unused(s, stage, fields))


_COUNTED_ELSEWHERE = ("rows", "rehearsal_rows", "cases_per_block", "lora_rank", "epochs", "learning_rate", "group_size")


_NO_VALUE = r"[ -]?(?:bits?|gb|gib|gigs?|b\b|m\b|hours?|minutes?|times?|x\b|%)|\s+(?:and a half|more time)"


def _unused(s: Sentence, stage: str, fields: Mapping[str, object]) -> str:
    """A number of an order that no field took, as it was typed; empty: none. A value is never left out unsaid."""
    if stage == "base":
        return ""
    if re.search(r"\d ?(?:%|percent) (?:more|fewer|less|higher|lower)", s.text):
        return ""
    taken = [float(value) for value in fields.values() if isinstance(value, int | float)]
    for value, start, end in numbers_in(s.text):
        typed = s.text[start:end].strip()
        if not typed[:1].isdigit() or re.match(_NO_VALUE, s.text[end:]) or re.search(r"\bstep $", s.text[:start]):
            continue
        if not any(abs(value - one) < 1e-12 or abs(value / 100 - one) < 1e-12 for one in taken):
            return typed
    return ""


def _foreign(s: Sentence, stage: str) -> tuple[str, str]:
    """A field with a value beside it that belongs to another stage alone; two empty words: none."""
    own = catalog.BY_NAME[stage].load().request.model_fields
    for name in _COUNTED_ELSEWHERE if not s.has(r"\bthen\b|\bafter\b") else ():
        stages = known_fields()[name]
        has = "train" if "train" in stages else stages[0]
        if name not in own and values_named(s.text, (has,), s.said).get(name) is not None:
            return name, has
    return "", ""


_ABOUT_ROWS_THERE = r"\b(?:dropped|rejected|kept|thrown|leaked|reasons?|duplicates?|show|existing)\b"
_TIMES = {"half": 0.5, "halve": 0.5, "twice": 2.0, "double": 2.0, "triple": 3.0, "three times": 3.0, "thrice": 3.0,
          "four times": 4.0, "quadruple": 4.0, "a third": 1 / 3, "a quarter": 0.25, "ten times": 10.0}  # fmt: skip
_SET = re.compile(
    r"(?:run (?:it|that|this)|again|repeat|redo|set|use|take|try|change|make|raise|lower|increase|decrease|"
    r"reduce|put)\b|.{3,40}\bplease[.! ]*$"
)
_DIFFERENT = r"higher|lower|larger|bigger|smaller|another|different|better|fewer|less|shorter|more|other"


def factors_named(text: str, stage: str) -> dict[str, float]:
    """Fields of a stage that are to be a multiple of what they were."""
    found: dict[str, float] = {}
    for name in _own_fields(stage):
        by = re.search(
            rf"(\d+(?:\.\d+)?) ?(?:%|percent) (more|fewer|less|higher|lower|larger|"
            rf"smaller) (?:of )?(?:{pattern_of(name).pattern})",
            text,
        )
        if by:
            found[name] = 1 + float(by[1]) / 100 * (1 if by[2] in ("more", "higher", "larger") else -1)
    times = "|".join(sorted(_TIMES, key=len, reverse=True))
    if stage == "train" and (match := re.search(rf"\b({times}) as long\b", text)):
        found["epochs"] = _TIMES[match[1]]
    for name in _own_fields(stage):
        pattern = (
            rf"\b({times})\s+(?:(?:of|the|as|many|much|number|high|large|low|amount)\s+)*(?:{pattern_of(name).pattern})"
        )
        if match := re.search(pattern, text):
            found[name] = _TIMES[match[1]]
    return found


def _changed(text: str, stage: str) -> list[str]:
    """Fields of a stage that the words want to be another, whatever value they say."""
    return [
        name
        for name in _own_fields(stage)
        if re.search(
            rf"\b(?:with|on|use|using|set|at|by|and)\s+(?:(?:a|an|the)\s+)?(?:{_DIFFERENT})\s+(?:{pattern_of(name).pattern})",
            text,
        )
        or re.search(
            rf"\b(?:with|use|using|set)\s+(?:(?:a|an|the)\s+)?(?:{pattern_of(name).pattern})"
            r"\s*(?:=|:|of|to|at)?\s*[a-z]{3,}[.! ]*$",
            text,
        )
    ]


def _own_fields(stage: str) -> list[str]:
    """The fields of a stage that hold a number."""
    fields = catalog.BY_NAME[stage].load().request.model_fields
    return [name for name, info in fields.items() if info.annotation in (int, float)]


def _stage_of_values(text: str, s: Sentence) -> str:
    """The stage of a value that is set without a verb of a stage: `set the learning rate to 1e-4`."""
    if s.asks or not _SET.match(text) or len(text.split()) > 14:
        return ""
    if factors_named(s.text, "train"):
        return "train"
    if "scheme" in values_named(s.text, ("quantize",), s.said) and s.has("quantiz"):
        return "quantize"
    if re.search(ROUNDING_NAMED, s.text):
        return "quantize"
    for stage in (stage for name in s.fields for stage in sorted(known_fields()[name], key="train".__ne__)):
        if any(name in s.fields for name in _changed(s.text, stage)):
            return stage
    for stage in ("train", *(entry.name for entry in catalog.STAGES)):
        if stage not in ("inspect", "base") and any(
            name in values_named(s.text, (stage,), s.said) and name in _own_fields(stage) for name in s.fields
        ):
            return stage
    return ""


def unknown_arm(s: Sentence, stage: str) -> str:
    """The word for an arm that there is none of: `evaluate the foo arm`."""
    found = (
        re.search(r"\bthe (\w+) (?:arm|model)\b", s.text) if stage in ("evaluate", "deploy") and not s.arms else None
    )
    return found[1] if found and not _ANY_MODEL.fullmatch(found[1]) else ""


_ANY_MODEL = re.compile(
    r"new|last|latest|newest|best|trained|same|whole|final|current|other|first|previous|old|this|our|finished|right|"
    r"resulting|smaller|bigger|only|good"
)


def _is_question(s: Sentence, text: str) -> bool:
    if re.match(r"(?:can|could|would|will) you\b", s.text) or re.match(r"(?:please )?(?:may|shall) (?:i|we)\b", s.text):
        return bool(re.match(r"(?:tell|explain|say|show|list|see|remember|remind|handle|do)\b", text))
    return (s.asks and not re.match(r"(?:compare|any|please)\b", s.text)) or bool(
        re.match(r"(?:what|which|how|why|when|who|where)\b", text)
    )


def _stage(text: str) -> str:
    matches = [
        (match.start(), stage) for stage, pattern in _VERBS for match in [re.match(rf"(?:{pattern})", text)] if match
    ]
    if matches:
        return matches[0][1]
    later = [
        stage
        for stage, pattern in _VERBS
        if re.search(rf"(?:, |\band |: |; |\. |! )(?:please |then |now )?(?:{pattern})", text)
    ]
    return later[0] if len(later) == 1 and len(text.split()) <= 16 else ""


def _model(s: Sentence, text: str) -> dict[str, object]:
    """Which model a download means: a hub id, a folder, the bundled ones."""
    if path := re.search(r"(?<!\S)(?:~|\.{1,2})?/[\w./~-]+", s.said):
        return {"model": path[0].rstrip(".,;")}
    if hub := re.search(r"(?<![\w/.-])[A-Za-z0-9][\w.-]*/[\w.-]*\w", s.said):
        revision = re.search(r"\b[0-9a-f]{40}\b", s.said)
        return {"model": hub[0], **({"revision": revision[0]} if revision else {})}
    if bundled := bundled_in(text):
        return {"model": bundled}
    return {"model": "bundled-driver"} if re.search(r"\bdriver\b|coder", text) else {}


_WANTS = re.compile(
    r"(?:\b(?:i|we|my \w+|you) (?:want|need|would like|wish|wanna|am looking for|are looking "
    r"for)\b.{0,40}\b(?:model|bot|assistant|llm|adapter|something|one|finetune|"
    r"ai)\b.{0,24}\b(?:that|which|who|to|for|so|as|with|which)\b|"
    r"\b(?:make|train|teach|build|create|finetune|give me|plan)\b.{0,24}\b(?:a|an|another|new|my|"
    r"the|this|small|tiny|little|some|it|me)\b.{0,30}\b(?:model|bot|assistant|llm|adapter|finetune|"
    r"finetuning|it)\b.{0,24}\b(?:that|which|who|to|for|so|answer|reply|turn|write|translate|speak|"
    r"respond|sort|classify|summari[sz]e)\b|"
    r"\bteach (?:it|the model|a model|this model|my model|the base|a small model|smollm)\b|\b(?:i|"
    r"we) (?:want|need|would like) (?:it|the model|this model|a model) to\b|"
    r"\b(?:it|the model|this model) (?:should|shall|must|has to) (?:answer|reply|turn|write|"
    r"translate|speak|respond|sort|classify|summari[sz]e|always|only|extract|convert|rewrite|"
    r"explain|return|give)\b|"
    r"\b(?:new|another) (?:behaviour|finetune|finetuning|model)\b.{0,12}(?::|\b(?:that|which|to|"
    r"for|please)\b)|plan (?:me )?(?:a|the) (?:new )?finetun)"
)


def wants_a_behaviour(s: Sentence) -> bool:
    """Whether a sentence wants a model that does something new."""
    if s.text.endswith("?") and re.match(
        r"(?:what|which|how|why|when|who|where|did|does|is|are|was|were|would|should)\b", s.text
    ):
        return False
    return bool(_WANTS.search(s.text)) and len(s.text.split()) >= 5 and not re.search(r"\br\d+\b", s.text)


def pace_of(text: str) -> str:
    """How thorough a plan is wanted."""
    return (
        "fast"
        if re.search(
            r"\bfast\b|\bquick|\btry ?out|\btest(?:ing)?\b(?! cases)|small (?:try|run|test)|in minutes|"
            r"just (?:a )?(?:try|test)|\bshort (?:one|run|plan)|rough",
            text,
        )
        else "full"
    )


def quantizes(text: str) -> bool:
    """Whether a plan is to end with a quantized model."""
    return not re.search(
        r"(?:without|no|not|don'?t|do not|skip|leave out|never|omit)\b.{0,16}(?:quantiz|compress)|"
        r"unquantized|full precision|keep (?:it )?(?:in )?(?:16|bf16)",
        text,
    )

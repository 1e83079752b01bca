"""Questions about runs, one or all of them, and what a step that nobody ordered would cost."""

from __future__ import annotations

import re

from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.fields import known_fields
from tunesmith.agent.driver.understanding.query import Aspect, Query
from tunesmith.agent.driver.understanding.reading import query
from tunesmith.agent.driver.understanding.values import values_named
from tunesmith.tools.pipeline import catalog

_EACH_RUN = (
    r"\b(?:which|what)(?: one)?(?: of)?(?: (?:the|my|our|these|those|all))?(?: two| three| last \w+)? runs?\b|"
    r"\b(?:each|every|both|per|across(?: the| all)?|all(?: the| my| our)?|between(?: the| my)?) (?:two )?runs?\b|"
    r"\bruns? by run\b|\bin both\b|\bthe (?:two|three) runs\b|\b(?:which|who) of (?:the two|them both)\b"
)
_TWO_RUNS = (
    r"\b(?:the|my|our|these|those|last|newest|latest|both)\b.{0,12}\b(?:two|both|2)\b.{0,8}\bruns\b|\bboth runs\b"
)
_DIFFERENT = r"chang\w*|differ\w*|compar\w*|\bvs\b|side by side|\bsame\b|alike|identical|equal"
_LEAST = (
    r"\b(?:least|lowest|lower|fewest|fewer|less|smallest|smaller|shortest|shorter|fastest|faster|quicke\w+|worst|"
    r"worse)\b"
)
_OF_A_RUN: tuple[tuple[Aspect, str], ...] = (
    ("peak", r"\bmemory\b|\bram\b|\bvram\b|\bpeak"),
    ("size", r"\bdisk\b|\bspace\b|\bsize\b|\b(?:big|small|large)\w*|\bgb\b|\bheav"),
    ("count", r"\brows\b|training (?:data|examples)"),
    ("duration", r"how long|\btook\b|\btime\b|\blong\w*|\bslow\w*|\bfast\w*|\bquick\w*|\bshort\w*"),
)
_RATES = (
    r"better|best|worse|worst|higher|highest|lower|lowest|pass|score|result|target|general|adversarial|tools|accura"
)
_ORDINALS = {"second": 2, "third": 3, "fourth": 4}
_WOULD = r"\bwould\b|\bwill\b|\bif (?:i|we|you)\b|\binstead\b|\bwhat if\b|\bexpect"
_TOO_MUCH = r"too (?:many|much|long|big)|possible|feasible|doable|handle|manage|realistic"
_COST = r"\beta\b|how (?:long|much time|much longer)|\btakes?\b|\bcosts?\b|\btime\b|\bprice\b|\bdays?\b|\bhours?\b"


def across(s: Sentence) -> Query | None:
    """One figure of every run: which has the higher rate, how many rows each trained on, which used most memory."""
    if s.has(_TWO_RUNS) and s.has(_DIFFERENT):
        return query("compare", s, aspect="" if s.has(r"compar|\bvs\b") else "changed")
    if not s.has(_EACH_RUN) or s.has(r"made(?!.*(?:est\b|most))|fail|stop|crash|served|deployed|happen") or not s.asks:
        return None
    return of_each_run(s)


def of_each_run(s: Sentence) -> Query | None:
    """The figure that is asked of several runs, where one is named."""
    order = "least" if s.has(_LEAST) else "most"
    if s.has(r"\bloss"):
        return query("across", s, run="", aspect="loss", text=order)
    fields = [name for name in s.fields if name not in ("rows", "model", "suites")]
    if fields:
        return query("across", s, run="", field=fields[0], stage=s.stage, text=order)
    aspect = next((name for name, pattern in _OF_A_RUN if s.has(pattern)), "")
    if aspect:
        return query("across", s, run="", aspect=aspect, stage=s.stage, arm=s.arm, text=order)
    if s.has(_RATES) and (s.block or s.arm):
        return query("across", s, run="", block=s.block or "target", arm=s.arm, text=order)
    return None


def price(s: Sentence) -> Query | None:
    """What a step would take that was not ordered: `how long would 5k rows take?`, `… with 3 epochs instead?`"""
    would = s.has(_WOULD) and (s.has(_COST) or (s.has(_TOO_MUCH) and s.has(r"\d")))
    supposed = s.has(r"what (?:if|would (?:happen|it be)|about it if)|suppose") and bool(_stage_of(s)) and s.fields
    plain = bool(re.search(r"how (?:many (?:hours|minutes|days)|long|much time)\b.{0,12}\bfor\b.{0,12}\d", s.text))
    asked = s.asks and (would or supposed or plain) and not s.has(r"\bhelp|until|\bleft\b|remaining|finish")
    if s.model or not (asked or s.has(r"would (?:it|that) (?:cost|take)")):
        return None
    stage = _stage_of(s)
    text = re.sub(r"\b(?:a |one )?(second|third|fourth) (?=epoch)", lambda m: f"{_ORDINALS[m[1]]} ", s.text)
    return query("price", s, stage=stage, text=text) if stage else None


def _stage_of(s: Sentence) -> str:
    """The stage whose price is asked for: the one that is named, else one that has a field which is given a value."""
    named = [stage for stage in s.stages if stage not in ("inspect", "base")]
    if named:
        return named[0]
    if s.has(r"\brows\b|training (?:data|examples)|more data"):
        return "generate"
    stages = [entry.name for entry in catalog.STAGES if entry.name not in ("inspect", "base")]
    if s.fields and (having := [stage for stage in known_fields()[s.fields[0]] if stage in stages]):
        return "train" if "train" in having else having[0]
    order = ["train", *(stage for stage in stages if stage != "train")]
    return next((stage for stage in order if values_named(s.text, (stage,), s.said)), "")


def runs(s: Sentence) -> Query | None:
    if s.has(
        r"\bruns\b|\bhistory\b|what have (?:i|we) (?:done|run|made|trained|tried)|(?:everything|all) "
        r"(?:i|we) (?:did|have done|ran)|so far|which models have|what did (?:i|we) (?:do|train|run)|"
        r"what (?:ran|happened|was (?:run|done|trained|made))\b(?! (?:in|with|of) )|"
        r"run is (?:the )?(?:newest|latest|last|current)|(?:newest|latest|current) run\W*$|any runs?\b|"
        r"how many (?:runs|models|finetunes|trainings)|list .{0,12}runs?\b|(?:my|our|all) "
        r"(?:finetunes|trainings|experiments|models)"
    ):
        aspect = (
            "best" if s.has(r"\bbest\b|highest|most success|winner|top") else "count" if s.has(r"how many") else "list"
        )
        return query(
            "runs",
            s,
            when=s.span,
            aspect=aspect,
            run="",
            outcome="failed" if s.has(r"fail|stop|crash|broke|abort") else "",
        )
    if s.has(r"(?:which|what) (?:of the )?runs? .{0,30}\b(?:best|better|highest|top)\b|best run"):
        return query("runs", s, aspect="best")
    return None


def within(s: Sentence) -> Query | None:
    """What ran in a span of time, where nothing more is asked of it."""
    return query("runs", s, when=s.span, aspect="list", run="") if s.span and s.asks else None


def run(s: Sentence) -> Query | None:
    if s.has(
        r"\bskipp?ed\b|left out|omitted|what is (?:the )?next (?:step|stage)|what (?:is|are) (?:still )?(?:left|"
        r"missing|"
        r"remaining|open|to do)\b|what remains|"
        r"(?:which|what) (?:step|stage) (?:is|comes) next|still to do|is (?:it|everything|"
        r"r\d+) (?:all )?(?:done|complete|finished)"
    ):
        return query("run", s, aspect="remaining")
    if s.has(
        r"\border\b.{0,20}\b(?:do|did|things|steps|ran|run|work)|"
        r"happened (?:right )?(?:after|before) (?:the )?\w+\W*$|"
        r"\b(?:step|stage)s? (?:came|comes|come|was|is|ran) (?:after|before|first)"
    ):
        return query("run", s, aspect="list")
    if s.has(r"\bplan of\b|(?:which|what|how many|list|show) .{0,16}\bsteps?\b|(?:which|what) stages"):
        return query("run", s, aspect="list")
    if s.has(
        r"\bstatus\b|\bgoal\b|what (?:was|is|happened|about) (?:in |with |to )?(?:r\d|run|the (?:last|"
        r"newest|\w+) run)|tell me about|how (?:did|is|was) .{0,30}(?:go|doing|run)\b|what (?:did|"
        r"does) r\d+ (?:do|teach|learn)|show (?:me )?(?:run )?r\d+|"
        r"(?:did|is|has|was) (?:r\d+|(?:the |my )?(?:last |newest )?run) .{0,20}(?:finish|done|"
        r"complete|succe|ok|fail|stop)|why (?:did|was|has) r\d+|what .{0,16}\br\d+\b|summar"
    ):
        aspect = (
            "why" if s.has(r"\bwhy\b|fail|stop") else "status" if s.has(r"status|finish|done|complete|succe") else ""
        )
        return query("run", s, aspect=aspect)
    if s.runs and (s.asks or len(s.text.split()) <= 3):
        return query("run", s)
    return None

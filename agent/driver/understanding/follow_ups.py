"""A few words that change one thing of the question before: `and in r1?`, `what about the base?`, `and for serving?`.

They have no verb of their own, so that what they ask is what was asked before; which of their words count depends on
the kind of that question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tunesmith.agent.driver.understanding.cards import cards_counted, cards_gib
from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.machine_questions import bits_named, work_named
from tunesmith.agent.driver.understanding.query import Kind, Query

_LONGEST = 9
_OPENS = re.compile(
    r"^(?:and|what about|how about|same (?:for|with|in)|also|but|or|ok and|now|then|so|the same (?:for|in|of))\b"
)
_OWN_VERB = re.compile(
    r"\b(?:did|does|do|is|are|was|were|has|have|had|can|could|should|would|will|took|cost|go|went|make|made|show|list|"
    r"why|when|who|where|which|how (?:long|many|much|big|good|well|fast)|what (?!about))\b"
)
_BARE = re.compile(
    r"^(?:in |for |of |on |with |the )*(?:r\d+|adapter|merged|quantized|base|prompted|general|target|tools|adversarial|"
    r"over-?trigger\w*)\b"
)
_OTHER = re.compile(r"\bthe other(?: (?:one|run|two))?\s*[?.!]*$|\bthe other run\b")
_STEP_ASPECTS = (("peak", r"memory|\bram\b|\bvram\b"), ("duration", r"\btime\b"), ("estimate", r"estimate|price"))
_EXPECTED = re.compile(
    r"\b(?:what|which)\b.{0,24}\b(?:expected|wanted|correct|right (?:answer|one)|should)\b|"
    r"^why\b.{0,24}\b(?:wrong|fail)"
)
_KEPT_OF: Mapping[Kind, tuple[str, ...]] = {
    "fits": ("model", "bits", "card_gib", "cards", "work"),
    "step": ("run", "step", "stage", "arm", "aspect"),
    "result": ("run", "arm", "block"),
    "cases": ("run", "arm", "block", "outcome", "text"),
    "compare": ("run", "arm", "block", "stage"),
    "setting": ("run", "field", "stage"),
    "rows": ("run", "verdict", "origin"),
    "artifact": ("run", "arm"),
    "approvals": ("run", "stage", "decision", "when"),
    "findings": ("run", "arm", "block"),
}
"""Kind of question → what a follow-up to it may change; of every other kind the run alone."""


def follow_up(before: Query, s: Sentence, runs: Sequence[str]) -> Query | None:
    """The question before with what the words change of it; None where they ask something of their own.

    `runs` are those of the store, the newest first, for `the other one` of two.
    """
    if before.kind == "cases" and before.text and _EXPECTED.search(s.text) and len(s.text.split()) <= _LONGEST:
        return before.model_copy(update={"aspect": "why"})
    if before.kind == "served" and re.search(r"\b(?:when|since|before|who)\b", s.text) and len(s.text.split()) <= 5:
        return before.model_copy(update={"aspect": "when"})
    if len(s.text.split()) > _LONGEST or not (_OPENS.match(s.text) or _BARE.match(s.text)):
        return None
    if _OWN_VERB.search(_OPENS.sub("", s.text)):
        return None
    given = {name: value for name, value in _named(s).items() if value and name in _KEPT_OF.get(before.kind, ("run",))}
    if _OTHER.search(s.text) and len(runs) == 2:
        given["run"] = next(run for run in runs if run != (before.run or runs[0]))
    if not given:
        return None
    if before.kind == "across":
        return _of_one_run(before, str(given["run"]))
    if before.kind == "step" and "stage" in given:  # `and the merge?` is about the step, not about the merged model
        given |= {"step": "", "arm": given.get("arm", "") if given["stage"] == "evaluate" else "", "field": ""}
    if before.kind == "compare" and len(s.runs) > 1:
        given["other_run"] = s.runs[1]
    if before.kind == "cases" and before.text and set(given) <= {"run", "arm", "text"}:
        return before.model_copy(update=given)  # the same case of another model
    return before.model_copy(update={"text": "", **given})


def _of_one_run(before: Query, run: str) -> Query:
    """What was asked of every run, of one of them."""
    kind = "setting" if before.field else {"peak": "step", "duration": "step", "count": "rows", "size": "artifact"}.get(
        before.aspect, "result"
    )  # fmt: skip
    return before.model_copy(update={"kind": kind, "run": run, "text": "", "block": before.block})


def _named(s: Sentence) -> dict[str, object]:
    """What the words name, by the argument of a question that it is."""
    card = cards_gib(s.text)
    return {
        "run": s.run,
        "step": s.step,
        "stage": s.stage,
        "arm": s.arm,
        "block": s.block,
        "outcome": s.outcome,
        "field": next(iter(s.fields), ""),
        "model": s.model,
        "bits": bits_named(s),
        "card_gib": card,
        "cards": cards_counted(s.text) if card else 0,
        "work": work_named(s),
        "verdict": "drop" if s.has(r"drop|reject|thrown") else "keep" if s.has(r"\bkept|keep\b") else "",
        "origin": "rehearsal" if s.has("rehearsal") else "generated" if s.has(r"generated|synthetic") else "",
        "decision": "no" if s.has("refus|declin|reject") else "yes" if s.has("approv|agree") else "",
        "when": s.span,
        "aspect": next((aspect for aspect, pattern in _STEP_ASPECTS if s.has(pattern)), ""),
    }

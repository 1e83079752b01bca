"""Questions about training rows: how many of which kind, why some were dropped, and the rows themselves."""

from __future__ import annotations

import re

from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.query import Query
from tunesmith.agent.driver.understanding.reading import query, quoted

_ABOUT_ROWS = (
    r"\brows?\b|\bexamples\b|\bdataset\b|training data|training set|\bsamples?\b|rehearsal|"
    r"how many (?:of them )?(?:were|was|got|are|have been) (?:dropped|kept|thrown|rejected|held)|held out|"
    r"\boverlap\w*|contaminat\w*|\bduplicates?\b|\bleak(?:s|ed|age)?\b|train(?:ed)? on\b|the data\b"
)
_ROW_ID = r"\b(?![rsa]\d{1,3}\b)([a-z]\d{3,})\b"
_WROTE = r"\b(?:who|which (?:teacher|model|writer)|what (?:teacher|model)) (?:wrote|made|generated|produced|created)"
_VERDICTS = (
    ("drop", r"drop|reject|thrown|throw|delet|discard|filtered out|remov|bad rows|leak|duplicate|lost"),
    ("keep", r"kept|keep|surviv|train(?:ed)? on|used|good rows|usable|left"),
)
_ORIGINS = (("rehearsal", r"rehearsal|ordinary prompts"), ("generated", r"generated|written|synthetic"))
_PARTS = (
    ("duplicate", r"\bduplicates?\b|\bdoubled\b"),
    ("leak", r"\boverlap\w*|contaminat\w*|\bleak(?:s|ed|age)?\b"),
    ("valid", r"validation|held[ -]?out|\bvalid\b"),
    ("train", r"train(?:ed|s)? on|used (?:for|in) training|for training|to train|in (?:the )?training set"),
)
_ASPECTS = (
    (
        "list",
        r"\bshow\b|\bsee\b|look at|\blist\b|print|display|peek|give me (?:some|a few|an|one)|what "
        r"(?:do|does|did) .{0,24}look like|read (?:some|a few)|sample",
    ),
    ("why", r"\bwhy\b|reason"),
)
_REASON = r"(?:drop|reject|thrown)\w*(?: out)? (?:as|for|because of|due to) (?:a |an |the |being )?([a-z-]{3,})"


def rows(s: Sentence) -> Query | None:
    """Rows by verdict, origin, part, reason and text."""
    if not s.has(_ABOUT_ROWS) and not (s.has(_ROW_ID) and s.has(r"drop|kept|keep|show|thrown|reject|removed|what is")):
        return None
    if "rehearsal_weight" in s.fields or s.has("calibration"):
        return None
    of_the_dropped = s.has(r"drop|reject|throw|discard|delet")
    if (
        s.has(
            r"why (?:did|have|do|that many|so many|\d+)(?! .{0,20}(?:drop|reject|thrown))|who (?:chose|set|"
            r"decided)|default"
        )
        and not of_the_dropped
    ):
        return None
    if s.has(r"\b(?:which|what) (?:file|folder)|\bwhere (?:is|are|do|does|can)"):
        return None
    if s.has(r"\b(?:cpu|gpu|processor|hardware|machine)s?\b"):
        return None
    if s.has(r"\bwhy\b") and s.has("rehearsal") and not of_the_dropped:
        return query("setting", s, field="rehearsal_rows")
    if s.has(_WROTE) or s.has(r"\b(?:teacher|base|driver)\b.{0,16}\b(?:write|wrote|made|generated?)\b"):
        return query("setting", s, field="writer")
    if s.has(
        r"how long\b(?!.*(?:average|median|are the rows))|"
        r"time spent|took|memory|\bwould\b|\bhelp\b|need (?:more|another)|enough|example of|for example"
    ):
        return None
    if row := re.search(_ROW_ID, s.text):
        return query("rows", s, text=row[1], aspect="list", run=s.run if s.run != row[1] else "")
    if ends := re.search(r"\b(longest|shortest|average|mean|median)\b", s.text):
        return query("rows", s, aspect="longest", verdict=_first(s, _VERDICTS), field=ends[1])
    reason = re.search(_REASON, s.text)
    aspect = _first(s, _ASPECTS) or "count"
    if not s.asks and aspect == "count" and not s.has(r"\b(?:count|number)\b"):
        return None
    return query(
        "rows",
        s,
        verdict=_first(s, _VERDICTS),
        origin=_first(s, _ORIGINS),
        field=reason[1].rstrip("s") if reason else _first(s, _PARTS),
        text=quoted(s.said) or _about(s),
        aspect=aspect,
    )


def _first(s: Sentence, patterns: tuple[tuple[str, str], ...]) -> str:
    return next((name for name, pattern in patterns if s.has(pattern)), "")


def _about(s: Sentence) -> str:
    found = re.search(
        r"rows? (?:that |which |are |were )*(?:about|mention\w*|with|contain\w*|speak\w* of|say\w*|on) "
        r"(?P<rest>.{3,})",
        s.text,
    )
    if found is None or re.match(r"(?:a |the )?(?:verdict|reason|rank|rehearsal|label|r\d)", found["rest"]):
        return ""
    return re.sub(r"\bin r\d+\b", "", found["rest"]).strip(" ?.!")

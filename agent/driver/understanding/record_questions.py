"""Questions about records: settings, approvals, what was described, curves and files."""

from __future__ import annotations

import re

from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.query import Aspect, Query
from tunesmith.agent.driver.understanding.reading import query

_SIZE = (
    r"footprint|disk usage|shr[iau]nk\w*|(?:bigger|smaller|larger|heavier) than|how (?:big|large|heavy|"
    r"much (?:smaller|bigger|larger))|\bsize\b|how many (?:bytes|gb|"
    r"gib|mb|mib|megabytes|gigabytes)|"
    r"(?:much|takes?|needs?|uses?|take up) (?:disk|space)|\bweigh"
)


def approvals(s: Sentence) -> Query | None:
    if not s.has(
        r"approv\w*|\bdecisions?\b|(?:was|were) (?:i|we) asked|ask(?:ed)? me\b|\bagree[d]?\b|refus(?:ed?|al|"
        r"ing)\b|declin\w*|said (?:no|yes)|say (?:no|yes)|turned? "
        r"down|reject\w*|without asking|unasked|behind my back|\bdenied\b|permission|signed "
        r"off|allowed|gave .{0,12}(?:go|yes)"
    ):
        return None
    if s.has(r"\bwait\w*\b|\bpending\b"):
        return query("jobs", s)
    if s.has(r"without (?:asking|my|any|a) |unasked|behind my back"):
        return query("approvals", s, stage=s.stage, aspect="status")
    if s.has(r"gate|prescription|harm|deploy(?:ment)? (?:be )?refus"):
        return None
    if s.has(r"\brows?\b|\bcases?\b|examples|\bdata\b"):
        return None
    no = s.has(r"refus|declin|(?:said|say) no|turned? down|reject|denied|not (?:approve|agree)")
    yes = s.has(r"approved|agreed|(?:said|say) yes|signed off|allowed|gave")
    aspect = "who" if s.has(r"\bwho\b|whom|by hand|automatic") else ""
    return query(
        "approvals",
        s,
        run="" if s.span and not s.has(r"\br\d") else s.run,
        when=s.span,
        stage=s.stage,
        decision="no" if no else "yes" if yes and not s.has(r"\ball\b|list") else "",
        aspect=aspect,
    )


_WHY_SETTING = r"\bwhy\b|who (?:chose|set|decided|picked|wanted)|how come|where does .{0,20}come from|reason"


_BARE = {
    "rows": r"$^",
    "model": r"(?:which|what) (?:base )?model\b|(?:what|which) is the base\b|base model (?:is|was|did|do|of|used|in)\b",
    "cases_per_block": r"cases_per_block|\bset\b|setting|limit|at most|\bwhy\b",
    "suites": r"\bwhich (?:test )?suites?\b|what suites",
    "repeats": r"\brepeat(?:s|ed)\b|repetitions",
    "arm": r"which arm (?:is|was|did|do) (?:\w+ )?(?:deploy|serv|evaluat|use)",
    "keep": r"full[ -]precision",
}
"""Fields whose name is an everyday word, and how a question must name them to mean the setting."""


_DESCRIBED = (
    ("examples", r"examples? (?:did|have|do|were|was|that) (?:i|we|you)\b|(?:my|our) (?:own )?examples?\b|"
     r"examples? (?:of|in) (?:the|my|our) (?:behaviou?r|description)"),
    ("criteria", r"\bcriteri(?:a|on)\b"),
    ("near_misses", r"near[ -]?miss\w* (?:did|have|were|that) (?:i|we|you)\b|(?:my|our) (?:own )?near[ -]?miss"),
    ("rules", r"(?:which|what|show|list|the|form) rules?\b|rules? (?:does|do|must|is|are|for)\b"),
    ("labels", r"(?:which|what|show|list) (?:are |the |possible |all )*(?:labels?|categories|classes|fields|keys)\b"
     r"(?! (?:has|have|is|are|was|were) (?:the )?(?:most|fewest|least|rarest|worst|best|wrong|mislabel))"),
    ("never", r"never (?:say|do|mean|part|field)|what must (?:it|the model) (?:never|not)|what (?:is|was) it never"),
    ("when", r"when (?:does|should|do) the behaviou?r"),
    ("whole", r"(?:what|how|show) .{0,24}(?:the behaviou?r|my description)\b|what (?:did|have) (?:i|we) describ\w*|"
     r"what (?:is|was|should|does) .{0,20}(?:supposed to|meant to|taught|learning(?! rate)|being taught)"),
)  # fmt: skip


def described(s: Sentence) -> Query | None:
    """What the user said of the behaviour: its examples, criteria, rules, near misses, labels."""
    if not s.asks or s.outcome or s.has(r"\brows?\b|dropped|cost|gate|how long|deploy"):
        return None
    part = next((name for name, pattern in _DESCRIBED if s.has(pattern)), "")
    return query("described", s, field=part) if part else None


_IS_IT_RIGHT = (
    r"\btoo (?:high|low|big|large|small|many|few|much|little|long|short|aggressive)\b|\boverkill\b|\bok(?:ay)?\b|"
    r"\b(?:reasonable|sensible|sane|enough|sufficient|right|good|bad) (?:value|choice|rate|rank|number|setting|for)\b|"
    r"\b(?:is|are) .{2,40} (?:enough|good|fine|sensible|reasonable|sufficient)\b"
)
_SET_TO = (
    r"what (?:was|is|were|are) (?:the |our |my )?(?P<one>[\w -]{3,30}?) set to|value of (?:the "
    r")?(?P<other>[\w -]{3,30})"
)


def setting(s: Sentence) -> Query | None:
    fields = [f for f in s.fields if f not in ("rows", "model")] or list(s.fields)
    if not fields:
        if named := re.search(_SET_TO, s.text):  # a name that no field has is told as that
            return query("setting", s, field=(named["one"] or named["other"]).strip())
        if s.stage and s.has(r"\bdefaults?\b|left alone|out of the box"):
            return query("setting", s, stage=s.stage, text="default")
        if s.has(r"\b(?:settings?|values?)\b.{0,24}\b(?:i|we|me|myself|by hand)\b|did i (?:change|set|choose|edit)"):
            return query("setting", s, stage=s.stage, aspect="who")
        if s.has(r"\bsettings?\b|hyper-?param\w*|\bparameters (?:of|did|were|used)|configur\w+|\bconfig\b") and (
            s.asks or s.runs
        ):
            return query("setting", s, stage=s.stage)
        return None
    if not (s.asks or len(s.text.split()) <= 5):
        return None
    if fields[0] == "model" and s.has(r"\bdeploy|\bserv(?:ed|ing|es)\b|\blive\b|\bonline\b"):
        return None
    if fields[0] in _BARE and not s.has(_WHY_SETTING) and not s.has(_BARE[fields[0]]):
        return None
    if s.has(
        r"how (?:do|can|could|should|would|to) (?:i|we|one|you)?\b.{0,12}(?:change|set|raise|lower|use|pick|choose)"
    ):
        return None
    if fields[0] == "writer" and s.has(r"can you|write (?:me|a|python|code)"):
        return None
    if fields[0] in ("model", "revision") and s.has(r"teacher|driver|writer"):
        return query("setting", s, field=fields[0], text="driver" if s.has("driver") else "teacher")
    if (
        s.has(r"what (?:is|are|does|do) (?:a |an |the )?[\w -]{2,24}(?: mean| do| for)?\??$")
        and not s.runs
        and not s.has(r"\bwas\b|\bwere\b|\bdid\b|\bour\b|\bmy\b|\bused\b|we |i |the ")
    ):
        return None  # a term to explain
    if s.has(r"in general|usually|always|typically|generally|as a rule|people use"):
        return None
    default = "default" if s.has(r"\bdefaults?\b|left alone|usual\b") else ""
    if not default and s.has(_IS_IT_RIGHT):
        return query("setting", s, field=fields[0], aspect="best", text=s.text, stage=s.stage)
    several = ",".join(fields) if not default else fields[0]
    return query("setting", s, field=several, text=default, stage=s.stage if s.stage not in ("base",) else "")


_METRICS = (
    (
        "learning_rate",
        r"(?:learning rate|\blr\b).{0,24}(?:schedule|curve|over time|during|while|decay|change over|start|end)",
    ),
    ("grad_norm", r"grad(?:ient)?s?[ _]norms?|gradients? (?:explod|vanish|stable)\w*"),
    ("mean_token_accuracy", r"token accuracy|accuracy (?:on|of) tokens"),
    ("rehearsal_kl", r"rehearsal (?:loss|kl)"),
    ("validation_kl", r"validation kl|kl .{0,16}(?:validation|held)"),
)
"""Curve of a training beside its losses → the words for it."""


def curve(s: Sentence) -> Query | None:
    if s.has(
        r"\bloss(?:es)?\b|\bdiverg\w*|\bunstable\b|\bnans?\b|learning curve|\bcurve\b|perplexity|"
        r"converg\w*|tokens (?:per|a) second|tokens/s|training speed"
    ) or (s.asks and s.has("|".join(pattern for _, pattern in _METRICS))):
        if (
            s.has(
                r"^what (?:is|does|are) (?:a |an |the )?(?:training |validation |train |eval )?loss(?: "
                r"mean)?\b(?! (?:of|in|after|at|now))"
            )
            and not s.runs
        ):
            return None
        if s.has(r"in one sentence|explain|mean\b|definition"):
            return None
        about = (
            metric if (metric := next((n for n, p in _METRICS if s.has(p)), "")) else
            "speed" if s.has(r"tokens (?:per|a) second|tokens/s|speed") else
            "train_loss" if s.has(r"train(?:ing)? loss") and not s.has("valid") else ""
        )  # fmt: skip
        return query("curve", s, field=about)
    return None


_USED_UP = (
    r"(?:disk|space|storage|gb|gib|gigs?|gigabytes|room)\b.{0,40}\b(?:used?|uses|using|taken?|takes?|eat\w*|ate|occup\w*|"
    r"filled|needs?|consumed?)\b"
)


def used_up(s: Sentence) -> Query | None:
    """How much disk the runs take, which is not how much is left of it."""
    if s.has(
        r"how (?:big|large|heavy) (?:is|are) (?:everything|all)|(?:size|big|large) .{0,16}(?:in total|"
        r"altogether|all together)"
    ):
        return query("artifact", s, aspect="disk")
    if s.has(_USED_UP) and s.has(r"\bruns?\b|\b(?:i|we|you|tunesmith|everything|all|together|so far)\b") and not (
        s.stages or s.arms or s.model or s.has(r"left|free|available|would|will")
    ):  # fmt: skip
        return query("artifact", s, aspect="disk")
    return None


def artifact(s: Sentence) -> Query | None:
    kinds = {
        "dataset": r"\bdataset\b",
        "rows": r"\brows file|(?:file|folder|path|where) .{0,24}\brows\b",
        "suite": r"\bsuite\b(?! (?:too|big|small|cases))",
        "deployment": r"\bdeployment\b",
    }
    if (one := re.search(r"\ba(\d+)\b", s.text)) and (s.asks or len(s.text.split()) <= 3):
        return query("artifact", s, text=one[0])
    kind = s.arm or next((kind for kind, pattern in kinds.items() if s.has(pattern)), "")
    aspects: tuple[tuple[Aspect, str], ...] = (
        (
            "path",
            r"\bwhere (?:\w+ \w+ )?(?:is|are|can i find|do i find|did|does|lies?)\b|\bpath\b|\bfolder\b|which (?:file|"
            r"folder|directory)|located|\bstored\b|saved",
        ),
        ("key", r"\bsha-?(?:256|sum)?\b|\bhash\b|checksum|\bdigest\b"),
        ("size", _SIZE),
        (
            "lineage",
            r"how (?:was|were|is) .{0,24}(?:made|built|created|produced)|made from|come from|came from|descend|"
            r"lineage|which run made|built (?:from|on)|based on|"
            r"provenance|origin|ancestor|who made|what made",
        ),
        ("when", r"\bwhen was .{0,40}(?:made|built|created|produced)"),
    )
    aspect = next((name for name, pattern in aspects if s.has(pattern)), "")
    if s.has(
        r"(?:biggest|largest|heaviest|most (?:disk|space)).{0,30}(?:artifact|file|thing|folder|on (?:the |my )?disk)"
    ):
        return query("artifact", s, text=kind, aspect="longest")
    if s.has(
        r"\bin (?:r\d+'?s?|the|its|my) (?:run )?folder|\bartifacts?\b|\bfiles\b|\bcheckpoints?\b|sha256|"
        r"\bhash\b|\bmanifest"
    ) and (s.asks or aspect):
        return query("artifact", s, text="" if s.arm else kind, arm=s.arm, aspect=aspect)
    if aspect and kind and (s.asks or aspect == "size"):
        return query("artifact", s, text="" if s.arm else kind, arm=s.arm, aspect=aspect)
    if aspect == "size" and s.has(r"\bmodels?\b|download|smaller"):
        return query(
            "artifact", s, arm="quantized" if s.has(r"smaller") else "base" if s.has("download") else "", aspect=aspect
        )
    return None

"""Questions about records: steps, settings, approvals, rows, curves, files and runs."""

from __future__ import annotations

import re

from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.fields import figure_named, figures
from tunesmith.agent.driver.understanding.query import Aspect, Query
from tunesmith.agent.driver.understanding.reading import query

_HOW_LONG = (
    r"how long|how much time|duration|how many (?:minutes|seconds|hours)|time (?:did|does|was|it "
    r"took|taken)|took (?:the )?(?:most|longest)|\btook\b|time (?:spent|needed|used) "
)
_MEMORY = r"\bmemory\b|\bram\b|\bvram\b|\brss\b|\bpeak"
_SIZE = (
    r"footprint|disk usage|(?:bigger|smaller|larger|heavier) than|how (?:big|large|heavy|"
    r"much (?:smaller|bigger|larger))|\bsize\b|how many (?:bytes|gb|"
    r"gib|mb|mib|megabytes|gigabytes)|"
    r"(?:much|takes?|needs?|uses?|take up) (?:disk|space)|\bweigh"
)


def approvals(s: Sentence) -> Query | None:
    if not s.has(
        r"approv\w*|\bagree[d]?\b|refus(?:ed?|al|ing)\b|declin\w*|said (?:no|yes)|say (?:no|yes)|turned? "
        r"down|reject\w*|without asking|unasked|behind my back|\bdenied\b|permission|signed "
        r"off|allowed|gave .{0,12}(?:go|yes)"
    ):
        return None
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
        stage=s.stage,
        decision="no" if no else "yes" if yes and not s.has(r"\ball\b|list") else "",
        aspect=aspect,
    )


_WHY_SETTING = r"\bwhy\b|who (?:chose|set|decided|picked|wanted)|how come|where does .{0,20}come from|reason"


_BARE = {
    "rows": r"$^",
    "model": r"(?:which|what) (?:base )?model\b|(?:what|which) is the base\b|base model (?:is|was|did|do|of|used|in)\b",
    "cases_per_block": r"per block|a block|each block",
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
     r"what (?:is|was|should|does) .{0,20}(?:supposed to|meant to|taught|learning|being taught)"),
)  # fmt: skip


_SHARE_OF_VALUES = (
    r"(?:which|what) [\w -]{2,24} (?:has|have|had|got|gets|with|is|are) (?:the )?(?:fewest|most|least|rarest|smallest|"
    r"largest|rare|rarer)\b|how many rows (?:per|for each|of each|in each|by) "
)


def described(s: Sentence) -> Query | None:
    """What the user said of the behaviour: its examples, criteria, rules, near misses, labels."""
    if not s.asks or s.outcome or s.has(r"\brows?\b|dropped|cost|gate|how long|deploy"):
        return None
    part = next((name for name, pattern in _DESCRIBED if s.has(pattern)), "")
    return query("described", s, field=part) if part else None


def figure(s: Sentence) -> Query | None:
    """A result of a step that is asked for by its name: `how many tokens did it train on?`"""
    name = figure_named(s.text) if s.asks or len(s.text.split()) <= 5 else ""
    if s.asks and not name and s.has(_SHARE_OF_VALUES) and not s.has(r"\bruns?\b|\bsteps?\b|\bcases?\b"):
        name = "balance"
    return query("step", s, stage=figures()[name], field=name) if name else None


_SET_TO = (
    r"what (?:was|is|were|are) (?:the |our |my )?(?P<one>[\w -]{3,30}?) set to|value of (?:the "
    r")?(?P<other>[\w -]{3,30})"
)


def setting(s: Sentence) -> Query | None:
    fields = [f for f in s.fields if f not in ("rows", "model")] or list(s.fields)
    if not fields:
        if named := re.search(_SET_TO, s.text):  # a name that no field has is told as that
            return query("setting", s, field=(named["one"] or named["other"]).strip())
        if s.has(r"\bsettings?\b|hyper-?param\w*|\bparameters (?:of|did|were|used)|configur\w+|\bconfig\b") and (
            s.asks or s.runs
        ):
            return query("setting", s, stage=s.stage)
        return None
    if not (s.asks or len(s.text.split()) <= 5):
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
    return query("setting", s, field=fields[0], text=default, stage=s.stage if s.stage not in ("base",) else "")


def curve(s: Sentence) -> Query | None:
    if s.has(
        r"\bloss(?:es)?\b|learning curve|\bcurve\b|perplexity|converg\w*|tokens (?:per|a) second|"
        r"tokens/s|training speed"
    ):
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
            "speed" if s.has(r"tokens (?:per|a) second|tokens/s|speed") else
            "train_loss" if s.has(r"train(?:ing)? loss") and not s.has("valid") else ""
        )  # fmt: skip
        return query("curve", s, field=about)
    return None


def artifact(s: Sentence) -> Query | None:
    kinds = {
        "dataset": r"\bdataset\b",
        "rows": r"\brows file",
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
            r"made from|come from|came from|descend|lineage|which run made|built (?:from|on)|based on|"
            r"provenance|origin|ancestor|who made|what made",
        ),
        ("when", r"\bwhen was .{0,40}(?:made|built|created|produced)"),
    )
    aspect = next((name for name, pattern in aspects if s.has(pattern)), "")
    if s.has(r"\bartifacts?\b|\bfiles\b|\bcheckpoints?\b|sha256|\bhash\b|\bmanifest") and (s.asks or aspect):
        return query("artifact", s, text="" if s.arm else kind, arm=s.arm, aspect=aspect)
    if aspect and kind and (s.asks or aspect == "size"):
        return query("artifact", s, text="" if s.arm else kind, arm=s.arm, aspect=aspect)
    if aspect == "size" and s.has(r"\bmodels?\b|download|smaller"):
        return query(
            "artifact", s, arm="quantized" if s.has(r"smaller") else "base" if s.has("download") else "", aspect=aspect
        )
    return None


_STEP_ASPECTS: tuple[tuple[Aspect, str], ...] = (
    ("log", r"\blogs?\b|\btraceback\b|stderr|last lines"),
    (
        "longest",
        r"(?:which|what) (?:step|stage|part)?.{0,20}(?:longest|slowest|most time|most expensive)|"
        r"slowest|bottleneck|longest step",
    ),
    (
        "estimate",
        r"estimat\w*|predict\w*|accura\w+|(?:off|wrong) (?:by|was)|how (?:good|well) .{0,20}(?:guess|"
        r"price)|than (?:planned|expected|promised)|forecast|\bprice[ds]?\b",
    ),
    ("peak", _MEMORY),
    (
        "duration",
        _HOW_LONG
        + (
            r"|how much (?:did|does) .{0,24}\bcosts?\b|what (?:did|would|does) "
            r".{0,24}\b(?:cost|pay)\b|\bcosts? (?:me|us|you)\b"
        ),
    ),
    ("estimate", r"(?:\bslow\b|so long|quick|longer|\blate\b)"),
    (
        "why",
        r"\bwhy\b.{0,40}(?:fail|stop|die|crash|abort|break|broke|end|kill|cancel)|what (?:went wrong|"
        r"happened to|killed|stopped)|(?:fail|error|crash)\w*.{0,16}\breason|did (?:anything|any(?: "
        r"step)?|something|a step|it) (?:fail|crash|go wrong)|"
        r"(?:which|what|any) (?:steps?|stages?|jobs?)? ?(?:failed|crashed|stopped|went wrong)|errors?\b",
    ),
    ("when", r"\bwhen\b (?:did|was|were|has|have)|what time|which day|\bdate\b|since when|how long ago"),
    ("speed", r"how fast|speed"),
)


def step(s: Sentence) -> Query | None:
    aspect = next((name for name, pattern in _STEP_ASPECTS if s.has(pattern)), "")
    if s.has(_LAST_STEP):
        return query("jobs", s)
    if not aspect and s.stage and s.has(_OF_A_STEP):
        return query("step", s, stage=s.stage, arm=s.arm if s.stage == "evaluate" else "")
    if not aspect and s.step:
        return query("step", s, stage=s.stage, arm=s.arm)
    if not aspect:
        return None
    if aspect == "speed" and not s.stage and not s.step:
        return None
    if aspect == "when" and not s.stage and not s.step:
        return (
            query("run", s, aspect="when")
            if s.has(r"\brun\b|\bstart|\bbegin|\bbegan|\bend|\bfinish|\bdone\b|last")
            else None
        )
    if aspect in ("peak", "estimate", "duration", "longest", "why", "log") and not (
        s.stage
        or s.step
        or s.runs
        or s.has(
            r"\bruns?\b|\bsteps?\b|whole|total|everything|all of it|altogether|\bit\b|last|that|this|\b(?:me|us)\b"
        )
    ):
        return None
    arm = s.arm if s.stage == "evaluate" or (s.arm in ("merged", "quantized", "adapter") and s.stage == "") else ""
    stage = s.stage or _stage_of_arm(s)
    if s.has(r"whole|total|altogether|everything|all of it|in all|overall|entire|complete run") and stage not in (
        "evaluate",
    ):
        stage, arm = ("", "") if not s.stage else (s.stage, arm)
    return query("step", s, stage=stage, aspect=aspect, arm=arm if stage == "evaluate" else "")


_LAST_STEP = r"(?:last|latest|newest|most recent) (?:thing|step|job|stage)\b(?! of)|what ran last|what did you do last"
_OF_A_STEP = (
    r"what (?:did|does|has|was|is) .{0,16}(?:step|stage)?.{0,24}\b(?:do|done|come to|result|make|"
    r"made|yield|produce|check)|how did .{0,24}\bgo\b|result of|outcome of|did .{0,20}(?:succeed|"
    r"finish|pass|work out|go through|complete)"
)


def _stage_of_arm(s: Sentence) -> str:
    if s.has(r"evaluat|test"):
        return "evaluate"
    return ""


def runs(s: Sentence) -> Query | None:
    if s.has(
        r"\bruns\b|\bhistory\b|what have (?:i|we) (?:done|run|made|trained|tried)|(?:everything|all) "
        r"(?:i|we) (?:did|have done|ran)|so far|which models have|what did (?:i|we) (?:do|train|run)|"
        r"any runs?\b|how many (?:runs|models|finetunes|trainings)|list .{0,12}runs?\b|(?:my|our|all) "
        r"(?:finetunes|trainings|experiments|models)"
    ):
        aspect = (
            "best" if s.has(r"\bbest\b|highest|most success|winner|top") else "count" if s.has(r"how many") else "list"
        )
        return query(
            "runs", s, aspect=aspect, run="", outcome="failed" if s.has(r"fail|stop|crash|broke|abort") else ""
        )
    if s.has(r"(?:which|what) (?:of the )?runs? .{0,30}\b(?:best|better|highest|top)\b|best run"):
        return query("runs", s, aspect="best")
    return None


def run(s: Sentence) -> Query | None:
    if s.has(
        r"what is (?:the )?next (?:step|stage)|what (?:is|are) (?:still )?(?:left|missing|"
        r"remaining|open|to do)\b|what remains|"
        r"(?:which|what) (?:step|stage) (?:is|comes) next|still to do|is (?:it|everything|"
        r"r\d+) (?:all )?(?:done|complete|finished)"
    ):
        return query("run", s, aspect="remaining")
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


_WHAT_FAILED = (
    r"^(?:so |and |ok |did )?(?:what|which (?:steps?|stages?|one)|anything|something|any (?:step|error|failure)s?)"
    r"(?: has| have| did| went| is| was)?(?: (?:go|gone))? (?:fail\w*|crash\w*|wrong|broke\w*|"
    r"stopped)\b(?! (?:cases?|questions?))"
)


def why_stopped(s: Sentence) -> Query | None:
    """Why something ended badly: of a run that is named even where nothing else is."""
    if s.has(_WHAT_FAILED) and not s.arms and not s.blocks and not s.has(r"wrong with (?:the|it|this|our|my)"):
        return query("step", s, stage=s.stage, aspect="why")
    if (
        s.has(r"\bwhy\b.{0,50}(?:fail|stop|die|crash|abort|cancel|break|broke\b|kill|not (?:start|finish|run|begin))")
        and not s.arms
        and not s.blocks
    ):
        return query("step", s, stage=s.stage, aspect="why")
    return None

"""Questions about steps: their time, memory and results, what they were priced at, and why one ended badly."""

from __future__ import annotations

from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.fields import figure_named, figures
from tunesmith.agent.driver.understanding.query import Aspect, Query
from tunesmith.agent.driver.understanding.reading import query

_HOW_LONG = (
    r"how long|how much time|duration|how many (?:minutes|seconds|hours)|time (?:did|does|was|it "
    r"took|taken)|took (?:the )?(?:most|longest)|\btook\b|time (?:spent|needed|used) "
)
_MEMORY = r"\bmemory\b|\bram\b|\bvram\b|\brss\b|\bpeak"
_SHARE_OF_VALUES = (
    r"(?:which|what) [\w -]{2,24} (?:has|have|had|got|gets|with|is|are) (?:the )?(?:fewest|most|least|rarest|smallest|"
    r"largest|rare|rarer)\b|how many rows (?:per|for each|of each|in each|by) "
)


def figure(s: Sentence) -> Query | None:
    """A result of a step that is asked for by its name: `how many tokens did it train on?`"""
    name = figure_named(s.text, s.stages) if s.asks or len(s.text.split()) <= 5 else ""
    if s.asks and not name and s.has(_SHARE_OF_VALUES) and not s.has(r"\bruns?\b|\bsteps?\b|\bcases?\b"):
        name = "balance"
    return query("step", s, stage=figures()[name], field=name) if name else None


_STEP_ASPECTS: tuple[tuple[Aspect, str], ...] = (
    ("log", r"\blogs?\b|\btraceback\b|stderr|last lines"),
    (
        "longest",
        r"(?:which|what) (?:step|stage|part)?.{0,20}(?:longest|slowest|most (?:of the )?time|most expensive)|"
        r"slowest|bottleneck|longest step",
    ),
    (
        "estimate",
        r"estimat\w*|predict\w*|accura\w+|\bguess\w*|precis\w*|"
        r"(?:off|wrong) (?:by|was)|how (?:good|well) .{0,20}(?:guess|"
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
    ("duration", r"\b(?:slower|faster|longer|quicker|shorter) than\b"),
    ("estimate", r"(?:\bslow(?:er)?\b|so long|quick|longer|\blate\b)"),
    (
        "why",
        r"\bwhy\b.{0,40}(?:fail|stop|die|crash|abort|break|broke|end|kill|cancel)|what (?:went wrong|"
        r"happened to|killed|stopped)|(?:fail|error|crash)\w*.{0,16}\breason|did (?:anything|any(?: "
        r"step)?|something|a step|it) (?:fail|crash|go wrong)|"
        r"(?:which|what|any) (?:steps?|stages?|jobs?)? ?(?:failed|crashed|stopped|went wrong)|errors?\b",
    ),
    ("when", r"\bwhen\b (?:exactly )?(?:did|was|were|has|have)|what time|which day|\bdate\b|since when|how long ago"),
    ("speed", r"how fast|speed"),
)


def step(s: Sentence) -> Query | None:
    aspect = next((name for name, pattern in _STEP_ASPECTS if s.has(pattern)), "")
    if aspect == "estimate" and s.has(r"\bmemory\b|\bram\b|\bvram\b|\bpeak"):
        aspect = "peak"  # whose answer holds the estimate
    if (
        len(s.stages) > 1
        and aspect in ("peak", "duration", "estimate", "longest")
        and s.has(r"\bthan\b|\bor\b|compar|\band\b")
    ):
        about = "peak" if aspect == "peak" else "duration"
        return query("step", s, stage=s.stages[0], aspect=about, field=s.stages[1], text="beside")
    if s.stage and s.has(
        r"(?:how much|what (?:share|part|fraction|percent\w*)|share|percent\w*) (?:of )?.{0,16}\btime\b"
    ):
        return query("step", s, stage=s.stage, aspect="duration", text="share")
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
            r"\bruns?\b|\bsteps?\b|whole|total|everything|all of it|altogether|\bit\b|last|that|this|\b(?:me|us)\b|"
            r"overall|\bestimates\b|in general|\bmost\b"
        )
    ):
        return None
    arm = s.arm if s.stage == "evaluate" or (s.arm in ("merged", "quantized", "adapter") and s.stage == "") else ""
    stage = s.stage or _stage_of_arm(s)
    if s.has(r"whole|total|altogether|everything|all of it|in all|overall|entire|complete run") and stage not in (
        "evaluate",
    ):
        stage, arm = ("", "") if not s.stage else (s.stage, arm)
    slower = (
        not stage and aspect == "estimate" and s.has(r"(?:which|what|any|did) .{0,30}(?:slower|longer|over\b|late)")
    )
    return query(
        "step", s, stage=stage, aspect=aspect, arm=arm if stage == "evaluate" else "", text="slower" if slower else ""
    )


_LAST_STEP = r"(?:last|latest|newest|most recent) (?:thing|step|job|stage)\b(?! of)|what ran last|what did you do last"
_OF_A_STEP = (
    r"what came out of|what (?:did|does|has|was|is) .{0,16}(?:step|stage)?.{0,24}\b(?:do|done|come to|result|make|"
    r"made|yield|produce|check)|how did .{0,24}\bgo\b|result of|outcome of|did .{0,20}(?:succeed|go (?:well|ok|"
    r"fine|right)|turn out|"
    r"finish|pass|work out|go through|complete)"
)


def _stage_of_arm(s: Sentence) -> str:
    if s.has(r"evaluat|test"):
        return "evaluate"
    return ""


_WHAT_FAILED = (
    r"^(?:so |and |ok |did )?(?:what|which (?:steps?|stages?|one)|anything|something|any (?:step|error|failure)s?)"
    r"(?: has| have| did| went| is| was)?(?: (?:go|gone))? (?:fail\w*|crash\w*|wrong|broke\w*|"
    r"stopped)\b(?! (?:cases?|questions?))"
)


_NO_MEMORY = r"\boom\b|(?:out of|run out of|ran out of|enough) (?:\w+ )?(?:memory|ram|vram)\b.{0,30}"


def why_stopped(s: Sentence) -> Query | None:
    """Why something ended badly: of a run that is named even where nothing else is."""
    if (
        s.has(_NO_MEMORY)
        and s.has(r"\b(?:did|was|has|had|ran|were)\b")
        and (s.stages or s.runs or s.has(r"\bit\b|gpu"))
    ):
        return query("step", s, stage=s.stage, aspect="why", text="memory")
    if s.has(r"\bwhen\b.{0,30}\b(?:fail|crash|die|abort)") and not s.arms and not s.blocks:
        return query("step", s, stage=s.stage, aspect="why")
    if (
        s.has(_WHAT_FAILED)
        and not s.has(r"\brows?\b")
        and not s.arms
        and not s.blocks
        and not s.has(
            r"wrong "
            r"with (?:the|it|this|our|my)"
        )
    ):
        return query("step", s, stage=s.stage, aspect="why")
    if (
        s.has(r"\bwhy\b.{0,50}(?:fail|stop|die|crash|abort|cancel|break|broke\b|kill|not (?:start|finish|run|begin))")
        and not s.arms
        and not s.blocks
    ):
        return query("step", s, stage=s.stage, aspect="why")
    return None

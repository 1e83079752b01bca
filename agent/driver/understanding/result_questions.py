"""Questions about results: what passed, one arm against another, and what it means."""

from __future__ import annotations

from tunesmith.agent.driver.understanding.case_questions import later_first
from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.query import Aspect, Query
from tunesmith.agent.driver.understanding.reading import query
from tunesmith.agent.driver.understanding.run_questions import of_each_run


def _of_one_thing(s: Sentence) -> Query | None:
    """Advice about one thing: the prompt, the epochs, the rows."""
    if s.has(
        r"prompt(?:ing)? (?:alone|only|itself)|(?:just|only) (?:a |the )?(?:system )?prompt|"
        r"prompt .{0,16}enough|need (?:the|a|to) finetun"
    ):
        return query("findings", s, aspect="who")
    if s.has(
        r"(?:train(?:ed)?|run) (?:it |for )?(?:longer|more epochs)|more epochs|longer training|"
        r"underfit|under-?trained|enough epochs|trained (?:long )?enough"
    ):
        return query("findings", s, aspect="duration")
    if s.has(
        r"(?:bigger|larger|smaller|other|better|stronger|another) (?:base )?model|(?:bigger|larger|stronger) base"
    ) and s.has(r"help|better|need|should|worth|would|use|improve|matter"):
        return query("findings", s, aspect="size")
    if s.has(
        r"(?:more|fewer|less|enough|other|better) (?:training )?(?:rows|data|examples)\b|"
        r"\b(?:rows|data|examples) (?:be )?(?:enough|sufficient|too few|too little)"
    ) and s.has(r"help|better|need|should|worth|would|enough|sufficient|too (?:few|little)|improve|matter"):
        return query("findings", s, aspect="count")
    return None


_WHY_THIS_ONE = r"why (?:do you |would you |should i )?(?:recommend|suggest|prefer|pick|choose|propose|use|deploy|take)"
_ADVICE: tuple[tuple[Aspect, str], ...] = (
    ("loss", r"overfit\w*|over-?train\w*|memori[sz]\w*|by heart|generali[sz]\w*|underfit\w*"),
    (
        "best",
        r"(?:should|rather|better to|which (?:one|model|arm)|what) .{0,40}\b(?:deploy|"
        r"(?:in|into|to) production|serve|ship|use "
        r"in production|put online|go live|take live)\b|"
        r"(?:deploy|serve|ship) (?:the )?(?:adapter|merged|quantized).{0,20}\bor\b|safe to (?:deploy|"
        r"ship)|ready (?:to|for) (?:deploy|ship|production)|good enough to (?:deploy|ship|serve)|can i "
        r"(?:deploy|ship)",
    ),
    (
        "list",
        r"\boptions\b|(?:bigger|larger|other|better) (?:base )?model .{0,16}(?:help|better)|"
        r"what (?:should|shall|can|could|would you|do you) .{0,30}(?:try|do|improve|change|next|"
        r"suggest|recommend|advise)|what (?:is )?next\b|next step\?|how (?:can|could|do|should|would) "
        r"(?:i|we|you) (?:improve|make it better|get (?:it |that |this )?(?:better|higher|more|to \d)|fix)|"
        r"\bimprove\b|any (?:ideas?|suggestions?|advice|recommendation)|would (?:more|a higher|a lower|"
        r"longer|fewer|less|another) .{0,40}(?:help|better|improve|work)|should (?:i|we) (?:train|use|"
        r"try|add|generate|increase|lower|raise|take|do|make|go|repeat|retrain|stop|quantize|collect|"
        r"get|buy|just|bother|prompt)|"
        r"(?:make|get) (?:it|the (?:model|adapter|result)|this|them) (?:\w+ )?(?:better|"
        r"smarter|stronger|right|faster|smaller)|weak(?:ness|est|nesses|point)|worst "
        r"(?:at|part|thing)|biggest problem|what .{0,12}struggl|"
        r"worth (?:it|training|another|trying|more)|weak spots?|(?:useful|best|smartest|sensible) thing to do|"
        r"thing to do (?:now|next)|do (?:i|we) need (?:more|another)|is (?:it|that) "
        r"worth|recommend|more (?:rows|data|epochs) (?:help|make)|what is (?:missing|wrong)|what to "
        r"(?:try|do)|advice",
    ),
)


_WHY_NOT_DEPLOYED = (
    r"(?:why|how come|reason).{0,40}(?:not|never|refus\w*|reject\w*|block\w*|without).{0,24}deploy\w*|"
    r"(?:why|how come|reason).{0,40}deploy\w*.{0,24}(?:refus\w*|reject\w*|block\w*|not|fail)|"
    r"why (?:was|is|did) (?:it|this|the (?:model|adapter|finetune)) (?:get )?(?:refused|rejected|blocked|not deployed)|"
    r"(?:is|was|why is|why was) it not deployed"
)


_HOW_SURE = (
    r"how (?:sure|certain|confident|solid|reliable)|(?:trust|believe|rely on) (?=\d)|(?:trust|believe|"
    r"rely on) (?:the|this|that|these|those|its) "
    r"(?:result|number|claim|figure|score|adapter|model|finetune)|\b(?:luck|chance|noise|coincidence|fluke)\b|"
    r"\bsignifican\w*(?! p)|good or (?:not|bad)|\bis \d+ ?(?:%|percent) (?:good|ok|bad|enough|much)|"
    r"(?:what|how much) did (?:the |our |my )?(?:train\w*|finetun\w*|run) (?:reach|achieve|bring|gain|give|yield)|"
    r"(?:win|won|gain|gained|achieve|bring) (?:anything|something|us)|worth it|"
    r"^(?:gimme|give me|show me)? ?(?:the )?(?:numbers|figures|scores)\b|"
    r"(?:is|was) (?:it|the (?:thing|result|outcome|model)) (?:any |all )?good\b"
)


def advice(s: Sentence) -> Query | None:
    """What the findings say: the next step, overfitting, what to deploy, why a block fell."""
    if s.has(r"\brow \w+\d{3}"):
        return None
    if found := _of_one_thing(s):
        return found
    if s.has(_HOW_SURE) and len(s.arms) > 1:
        arm, other = later_first(s.arms)
        return query("compare", s, arm=arm, other_arm=other, block=s.block)
    if s.has(_HOW_SURE) and (s.asks or s.has(r"^so\b") or len(s.text.split()) <= 3) and not s.has(r"\bp[- ]?value"):
        return query("result", s, arm=s.arm, block=s.block)
    if s.has(r"how much|by how|did .{0,40}improve") and (s.block or s.arm):
        return None
    if s.has(r"\bgate\b|can not (?:i |we )?deploy|refuses? to deploy") and not s.has(
        r"what (?:is|does) (?:a|the) gate\b(?! (?:say|refuse))"
    ):
        return query("findings", s, aspect="best", arm=s.arm)
    if s.has(_WHY_NOT_DEPLOYED):
        return query("findings", s, aspect="best", arm=s.arm)
    if s.has(_WHY_THIS_ONE) and s.arm:
        return query("findings", s, aspect="best", arm=s.arm)
    for aspect, pattern in _ADVICE:
        if s.has(pattern):
            return query("findings", s, aspect=aspect, arm=s.arm, block=s.block)
    if (
        s.has(r"\bwhy\b|how come|what caused|reason for|explain")
        and s.has(
            r"drop|fell|fall|wors[et]|lose|lost|forg[eo]t|low|bad|poor|weak|fail\w* so|did not (?:learn|"
            r"improve|work)|not (?:better|higher|learn)|decrease|went down|go down|(?:only|just) \d|"
            r"general|target|tools?\b|adversarial"
        )
        and (s.block or s.arm or s.has(r"model|it |result|learn|improve|\d ?(?:%|percent)|so (?:low|few|bad|poor)"))
        and not s.has(r"\brows?\b|\bdata\b")
        and not (s.stage and s.has(r"\bstop|abort|crash"))
        and not s.fields
    ):
        return query("findings", s, aspect="why", arm=s.arm, block=s.block)
    if s.has(
        r"what (?:does|do) (?:it|that|this|the results?|the numbers?|they|the report) (?:all "
        r")?(?:mean|tell(?: us| me)?|say)\s*[?!.]*$|^so what\b[?!. ]*$|"
        r"^explain r\d|findings?|conclusion|\bgist\b|tl;? ?dr|in short|overview|bottom line|"
        r"what (?:did|have) (?:we|i) learned?|takeaway|lesson|"
        r"summary of (?:the )?result|what went wrong|what is your (?:verdict|opinion)"
    ):
        return query("findings", s, arm=s.arm, block=s.block)
    return None


_COSTS_QUALITY = (
    r"lossless|(?:accura\w+|quality|performance) .{0,24}(?:cost|los[et]|drop)|cost "
    r".{0,12}(?:accura|quality)|(?:got|get|gets|became|is|are) (?:any )?worse (?:after|by|from|through|when|in|with)"
)


def compare(s: Sentence) -> Query | None:
    """Two arms of a run, or two runs."""
    if s.has(_COSTS_QUALITY) and s.has(r"quantiz|merg") and len(s.arms) < 2:
        arm, other = ("quantized", "merged") if s.has("quantiz") else ("merged", "adapter")
        return query("compare", s, arm=arm, other_arm=other, block=s.block)
    if len(s.runs) > 1 and (
        s.has(
            r"\btook\b|longer|faster|slower|quicker|compar|\bvs\b|versus|difference|differ|"
            r"better|worse|improv\w*|distinguish\w*|next to|side by side|against|\bor\b|\band\b|than"
        )
    ):
        aspect = (
            "duration" if s.has(r"how long|\btook\b|longer|faster|slower|quicker|\btime\b") else
            "changed" if s.has(r"settings?|param|config|chang|differ|distinguish") else ""
        )  # fmt: skip
        if not aspect and (figure := of_each_run(s)) is not None:
            return figure
        return query("compare", s, run=s.runs[0], other_run=s.runs[1], aspect=aspect, stage=s.stage)
    if s.has(
        r"compar\w*|\bvs\b|difference|differ\b|chang\w* (?:from|between|when)|side by side|"
        r"against (?:the )?(?:base|adapter)|better "
        r"than|worse than|beat|outperform|as (?:good|well|bad|large|fast) as"
    ):
        if len(s.arms) > 2:
            return query("result", s, block=s.block)
        if len(s.arms) > 1:
            arm, other = later_first(s.arms)
            return query("compare", s, arm=arm, other_arm=other, block=s.block)
        if s.arms and not s.has(r"\bruns?\b"):
            return query("compare", s, arm=s.arm, block=s.block)
        if s.has(r"\bruns?\b|\blast two\b|\bboth\b") or s.runs:
            return query("compare", s)
    return None


_FAST = r"how (?:fast|quick|slow)|faster|slower|latency|(?:how long|time) .{0,16}(?:answer|respon|reply)"


def result(s: Sentence) -> Query | None:
    if s.has(r"(?:which|what) (?:of the )?runs?\b"):
        return None
    if s.has(_FAST) and not s.stages and (s.arms or s.has(r"\banswers?\b|model|respon[ds]\w*")):
        return query("result", s, arm=s.arm, aspect="speed")
    if s.has(
        r"(?:which|what) (?:block|arm|model)s?\b.{0,30}(?:best|worst|weak|strong|highest|"
        r"lowest|suffer|drop|fell|lost|worse)|"
        r"p[- ]?values?\b|significan"
    ):
        return query("result", s, block=s.block)
    if s.has(
        r"how (?:many|much|well|good|did|does|do|was|is|are|were)|score\w*|pass(?:ed|es)? ?rate|"
        r"accura\w+|results?|performance|figures|numbers|verdict|percent|better|improv\w+|succe\w+|"
        r"work(?:ed|s)?\b|learn(?:ed|t)?\b|any good|good\b|did .{0,40}pass|rate\b|does .{0,30}know|"
        r"quality|doing|perform\w*|compar\w+|normally|suffer\w*|intact|surviv\w*|affected|harmed|"
        r"held up|hold up|still (?:answer|know|work|do)\w*|\b(?:get|gets|got|reach\w*|achiev\w*|manag\w*)\b"
    ):
        if s.arm or s.block:
            return query("result", s, arm=s.arm, block=s.block)
        if s.has(r"\bblind\b"):
            return query("result", s)  # its claim rests on them and says how many pass
        if s.has(
            r"score|pass ?rate|accura|results?|performance|verdict|better|improv|learn(?:ed|t)\b|any good|"
            r"(?:did|does|has) (?:it|the (?:model|finetune|training|run)|this|that|we) .{0,20}(?:work|"
            r"learn|succe|pay|help|improve|get)|how (?:did|was|is|were|does|well|good) .{0,40}(?:go|do|run|"
            r"model|turn out|perform|work|results?|it)\b|quality|worth"
        ):
            return query(
                "result"
                if s.has(r"score|pass ?rate|accura|results?|better|improv|learn|percent|quality|perform")
                else "run",
                s,
            )
    return None

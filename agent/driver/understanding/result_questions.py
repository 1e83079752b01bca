"""Questions about results: what passed, which cases, one arm against another, and what it means."""

from __future__ import annotations

import re

from tunesmith.agent.driver.bundled_behaviour import wishes
from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.query import Arm, Aspect, Query
from tunesmith.agent.driver.understanding.reading import query, quoted


def _of_one_thing(s: Sentence) -> Query | None:
    """Advice about one thing: the prompt, the epochs, the rows."""
    if s.has(
        r"prompt(?:ing)? (?:alone|only|itself)|(?:just|only) (?:a |the )?(?:system )?prompt|"
        r"prompt .{0,16}enough|need (?:the|a|to) finetun"
    ):
        return query("findings", s, aspect="who")
    if s.has(
        r"(?:train|run) (?:it |for )?(?:longer|more epochs)|more epochs|longer training|"
        r"underfit|under-?trained|enough epochs|trained (?:long )?enough"
    ):
        return query("findings", s, aspect="duration")
    if s.has(
        r"(?:more|fewer|less|enough|other|better) (?:training )?(?:rows|data|examples)\b|"
        r"\b(?:rows|data|examples) (?:be )?(?:enough|sufficient|too few|too little)"
    ) and s.has(r"help|better|need|should|worth|would|enough|sufficient|too (?:few|little)|improve|matter"):
        return query("findings", s, aspect="count")
    return None


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
        r"worth (?:it|training|another|trying|more)|do (?:i|we) need (?:more|another)|is (?:it|that) "
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


def advice(s: Sentence) -> Query | None:
    if found := _of_one_thing(s):
        return found
    if s.has(r"how much|by how|did .{0,40}improve") and (s.block or s.arm):
        return None
    if s.has(r"\bgate\b|can not (?:i |we )?deploy|refuses? to deploy") and not s.has(
        r"what (?:is|does) (?:a|the) gate\b(?! (?:say|refuse))"
    ):
        return query("findings", s, aspect="best", arm=s.arm)
    if s.has(_WHY_NOT_DEPLOYED):
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
        and (s.block or s.arm or s.has(r"model|it |result|learn|improve"))
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


def one_case(s: Sentence) -> Query | None:
    """A case that is named by its id."""
    case = _case_id(s.said.lower()) if s.asks or len(s.text.split()) <= 4 else ""
    return query("cases", s, arm=_arm_beside(s, case), text=case) if case else None


def _arm_beside(s: Sentence, case: str) -> str:
    """The arm that is named outside the case's id."""
    outside = s.text.replace(case, " ")
    return s.arm if s.arm and re.search(s.arm[:5], outside) else ""


def suite(s: Sentence) -> Query | None:
    """What is tested: how many cases of which block, and which."""
    if s.outcome or s.arms or not s.has(r"\bcases?\b|\btests?\b|\bsuites?\b|\bblocks?\b|\bquestions\b"):
        return None
    if s.has(
        r"how (?:many|large|big)|number of|size of|count|what (?:is|are|does) .{0,20}(?:in|test|"
        r"measure|hold|contain|block)|which blocks|show|list|who (?:wrote|made)|example"
    ):
        return query(
            "cases", s, block=s.block, aspect="list" if s.has(r"show|list|example|what (?:is|are) in") else "count"
        )
    return None


def _one_right_one_wrong(s: Sentence) -> tuple[str, str, str] | None:
    """The earlier arm, the later one, and whether a case that one passes and the other fails was gained or lost."""
    if len(s.arms) > 1 and s.has(r"\b(?:can|does|passes|could|now)\b.{0,40}\b(?:could|can|did|does) not"):
        later, earlier = _later(s.arms[:2])
        return earlier, later, "gained"
    if len(s.arms) < 2 or not s.has(r"fail|wrong|miss") or not s.has(r"right|pass|correct|solve|got it"):
        return None
    wrong = re.search(r"fail|wrong|miss", s.text)
    right = re.search(r"right|pass|correct|solve|got it", s.text)
    assert wrong and right
    first, second = s.arms[:2]
    failing, passing = (first, second) if wrong.start() < right.start() else (second, first)
    later, earlier = _later((first, second))
    return earlier, later, "gained" if passing == later and failing == earlier else "lost"


_ABOUT_CASES = (
    rf"\bcases?\b|\bquestions?\b|which (?:ones?|of (?:them|those|the (?:cases|questions))|target|general|tools?|"
    rf"adversarial|{wishes().noun}s?)|what "
    r"did (?:it|the|they|base|merged|quantized) .{0,30}(?:answer|say|reply|respond|output)|"
    r"(?:answer|say|said|reply|replied|respond|output)\w* .{0,40}(?:to|when|about|for|on|if)\b|"
    r"what does .{0,40}(?:answer|say|reply|respond)|examples? of (?:failures|mistakes|wrong)|"
    r"\bflip\w*|mistakes|failures|\bfail\w*|trips? (?:\w+ ){0,3}up|fool(?:s|ed)?\b|"
    r"did .{0,30}(?:cost (?:us |me |you )?(?:any|a |some)|lose|break|forget|hurt)|(?:forgot|"
    r"forget|lost|unlearn)\w*|get wrong|got "
    r"wrong|still leak|output (?:for|of|to)|(?:show|give|list) .{0,50}(?:answer|output|fail|wrong)|gets? .{0,20}wrong"
)


_WORSE = (
    r"(?:did|has|is|does) (?:it|the (?:model|finetune|adapter)|we|this) .{0,16}(?:dumb|stupid|"
    r"worse|damag|brok|unlearn|degrad)"
)


def cases(s: Sentence) -> Query | None:
    if s.has(_WORSE) and not s.arms and not s.has(r"\bthan\b"):
        return query("cases", s, block=s.block, other_arm="base", outcome="lost")
    if flip := _one_right_one_wrong(s):
        return query("cases", s, arm=flip[1], other_arm=flip[0], block=s.block, outcome=flip[2])
    words = _text_asked(s)
    if words and s.has(r"answer|say|said|reply|replied|respond|output|react|handle|case|question|tell|do with|happen"):
        return query("cases", s, arm=s.arm, text=words)
    of_cases = s.has(r"answer|say|said|reply|respond|output|case|question") and not s.has(r"\brows?\b")
    if of_cases and (words_ := quoted(s.said)):
        return query("cases", s, arm=s.arm, text=words_)
    if (
        not s.has(_ABOUT_CASES)
        or s.has(r"\brows?\b|\bsteps?\b|\bruns? (?:fail|stop)")
        or (
            s.stages
            and s.stages[0] in ("train", "generate", "deploy")
            and not s.arms
            and not s.blocks
            and s.outcome not in ("lost", "gained", "flipped")
        )
    ):
        return None
    outcome = s.outcome
    if s.has(r"how many|number of|count") and not outcome:
        return None
    if s.has(r"how many .{0,30}(?:pass|right|correct|solve)") or (
        outcome == "passed" and not s.has(r"which|list|show|what did")
    ):
        return query("result", s, arm=s.arm, block=s.block)
    if not outcome and not s.arms and s.has(r"\bcases\b") and s.has(r"\blist\b|show"):
        return None
    if not outcome and (
        not s.has(r"which|show|list|what did") or (s.has(r"\btest cases?\b|\bsuites?\b") and not s.arms)
    ):
        return None
    if not outcome and s.has(
        r"\b(?:all|every) (?:the |of the )?(?:answers?|outputs?|replies|responses)|every case|all (?:the )?cases"
    ):
        return query("cases", s, arm=s.arm, block=s.block, outcome="", aspect="list")
    other = _other_arm(s)
    if outcome == "lost" and s.arm != "base" and (not s.arm or s.has(r"forg[eo]t|unlearn|finetun|training")):
        other = "" if s.has(r"quantiz") and not s.has(r"finetun|training") else "base"
    arm = "quantized" if s.has(r"quantizing|quantization") else s.arm
    if outcome in ("lost", "gained", "flipped") and len(s.arms) > 1:
        arm, other = _later(s.arms)
    return query(
        "cases",
        s,
        arm=arm,
        other_arm=other if outcome in ("lost", "gained", "flipped") else "",
        block=s.block,
        outcome=outcome or "failed",
    )


_ORDER: tuple[Arm, ...] = ("base", "prompted", "adapter", "merged", "quantized")


def _later(arms: tuple[Arm, ...]) -> tuple[str, str]:
    first, second = sorted(arms[:2], key=_ORDER.index)
    return second, first


def _other_arm(s: Sentence) -> str:
    return s.arms[1] if len(s.arms) > 1 else ""


def _text_asked(s: Sentence) -> str:
    """What a case is to speak of, where it is described rather than named."""
    match = re.search(
        r"\b(?:to|about|with|for|when|if|on|regarding|concerning|asked)\s+(?:the (?:one|case|question|"
        rf"{wishes().noun}|user|person|prompt|message|request|customer)s?\b[\s,]*(?:who|that|which|with|about|of|"
        r"where|when)?|"
        r"somebody|someone|anybody|anyone|a user|users?|people|asked (?:for|about|to|how|what)|being "
        r"asked|it is asked|you ask)\s*(?P<rest>.{4,})",
        s.text,
    )
    if match is None:
        match = re.search(
            r"(?:answers?|say|says|said|reply|replies|replied|respond|responds?|react|output)\w* (?:to|"
            r"when|about|on|for|if) (?P<rest>(?!r\d|the (?:target|general|tools|adversarial) ).{6,})",
            s.text,
        )
    if match is None:
        return ""
    rest = re.sub(r"\b(?:in|of|on|for) (?:run )?r\d+\b|\bin the (?:\w+ )?run\b", " ", match["rest"]).strip(" ?.!")
    if re.fullmatch(
        r"(?:it|that|this|them|those|these|the )?\s*(?:failed|wrong|lost|target|general|tools?|"
        r"adversarial|base|adapter|merged|quantized|cases?|questions?|ones?|block|run|model|\s)+",
        rest,
    ):
        return ""
    return rest


def _case_id(text: str) -> str:
    match = re.search(
        r"\b((?:starter|general|target|tools?|hard|case|adversarial)-[a-z0-9-]+|"
        r"[a-z]+-[a-z]+-[a-z0-9]+(?:-[a-z0-9]+)*|c\d+)\b",
        text,
    )
    return (
        match[1]
        if match and not re.match(rf"fine-|base-|over-|commit-line|{wishes().name}|by-the|up-to|pre-", match[1])
        else ""
    )


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
            r"better|worse|next to|side by side|against|\bor\b|\band\b|than"
        )
    ):
        aspect = (
            "duration" if s.has(r"how long|\btook\b|longer|faster|slower|quicker|\btime\b") else
            "changed" if s.has(r"settings?|param|config|chang|differ") else ""
        )  # fmt: skip
        return query("compare", s, run=s.runs[0], other_run=s.runs[1], aspect=aspect, stage=s.stage)
    if s.has(
        r"compar\w*|\bvs\b|difference|differ\b|side by side|against (?:the )?(?:base|adapter)|better "
        r"than|worse than|beat|outperform|as (?:good|well|bad|large|fast) as"
    ):
        if len(s.arms) > 1:
            arm, other = _later(s.arms)
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
        r"(?:which|what) (?:block|arm|model)\b.{0,30}(?:best|worst|weak|strong|highest|lowest)|"
        r"p[- ]?values?\b|significan"
    ):
        return query("result", s, block=s.block)
    if s.has(
        r"how (?:many|much|well|good|did|does|do|was|is|are|were)|score\w*|pass(?:ed|es)? ?rate|"
        r"accura\w+|results?|performance|figures|numbers|verdict|percent|better|improv\w+|succe\w+|"
        r"work(?:ed|s)?\b|learn(?:ed|t)?\b|any good|good\b|did .{0,40}pass|rate\b|does .{0,30}know|"
        r"quality|doing|perform\w*|compar\w+|normally|suffer\w*|intact|surviv\w*|affected|harmed|"
        r"held up|hold up|still (?:answer|know|work|do)\w*"
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

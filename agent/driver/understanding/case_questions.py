"""Questions about test cases: which failed or flipped, what was asked and answered, what the suite holds."""

from __future__ import annotations

import re

from tunesmith.agent.driver.bundled_behaviour import wishes
from tunesmith.agent.driver.understanding.entities import ARMS, BLOCKS, Sentence
from tunesmith.agent.driver.understanding.query import Arm, Query
from tunesmith.agent.driver.understanding.reading import query, quoted
from tunesmith.agent.driver.understanding.words import vocabulary


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
        later, earlier = later_first(s.arms[:2])
        return earlier, later, "gained"
    if len(s.arms) < 2 or not s.has(r"fail|wrong|miss") or not s.has(r"right|pass|correct|solve|got it"):
        return None
    wrong = re.search(r"fail|wrong|miss", s.text)
    right = re.search(r"right|pass|correct|solve|got it", s.text)
    assert wrong and right
    first, second = s.arms[:2]
    failing, passing = (first, second) if wrong.start() < right.start() else (second, first)
    later, earlier = later_first((first, second))
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


_MIXED_UP = (
    r"(?:better|worse|good|bad|best|worst|stronger|weaker) (?:at|with|on|in) [\w-]+ or\b|confusion matri|"
    r"confus(?:es?|ed|ing|ion)\b|mix(?:es|ed|ing)? .{0,30}up|mix(?:es|ed)? up|taken? .{0,20} for\b|"
    r"mistak(?:es?|en) .{0,24} for\b|\b(?:worst|weakest|hardest) (?:\w+ ){0,2}(?:labels?|categor\w+|class(?:es)?)\b|"
    r"(?:which|what) (?:\w+ ){0,2}(?:labels?|categor(?:y|ies)|class(?:es)?|values?|fields?|keys?)\b.{0,40}"
    r"(?:wrong|fail|worst|mistake|miss|hard|struggl|trouble|error)|"
    r"(?:wrong|fail\w*|mistakes?|errors?) (?:\w+ ){0,3}(?:per|by|for each|of each) (?:label|category|class|value)"
)


_CHECKS = (
    r"\b(?:not|no|valid) json\b|(?:invalid|broken|malformed|bad|wrong|not valid|unparsable|no valid) (?:json|form\w*|"
    r"output|syntax)|"
    r"(?:which|what) (?:checks?|assertions?|rules?|tests?) .{0,24}(?:fail|broken|violat)|"
    r"(?:break|violat)\w* (?:the )?form\w*"
)


def mixed_up(s: Sentence) -> Query | None:
    """Which labels are taken for which: by an arm, or by the reader of written rows; or by which checks cases fail."""
    if s.has(_CHECKS) and not s.has(r"\brows?\b"):
        return query("confusion", s, arm=s.arm, block=s.block, text="checks")
    if not s.has(_MIXED_UP) or not (s.asks or len(s.text.split()) <= 6 or s.has("matri")):
        return None
    return query("confusion", s, arm=s.arm, text="reader" if s.has(r"\breader\b|read(?:ing)? back|\bjudge\b") else "")


_WORSE = (
    r"(?:did|has|is|does) (?:it|the (?:model|finetune|adapter)|we|this) .{0,16}(?:dumb|stupid|"
    r"worse|damag|brok|unlearn|degrad)"
)


_IMAGINED = (
    r"\b(?:would|will|does|can) (?:it|the (?:\w+ )?(?:model|adapter|finetune)|this|that one)\b.{0,24}"
    r"\b(?:do|work|perform|handle|cope|manage|deal)\b (?:well |badly |ok )?(?:on|with|for|in)\b (?P<rest>(?!r\d).{4,})"
)


def cases(s: Sentence) -> Query | None:
    """Cases by what they speak of, else by what became of them."""
    return _spoken_of(s) or _by_outcome(s)


def _spoken_of(s: Sentence) -> Query | None:
    """Cases that are named by their text, by two arms, or by two runs."""
    if s.has(_WORSE) and not s.arms and not s.has(r"\bthan\b"):
        return query("cases", s, block=s.block, other_arm="base", outcome="lost")
    if len(s.arms) > 1 and s.has(r"\b(?:anything|something|what|any)\b.{0,20}\b(?:worse|lost|broke|break|lose)\b"):
        arm, other = later_first(s.arms)
        return query("cases", s, arm=arm, other_arm=other, block=s.block, outcome="lost")
    if flip := _one_right_one_wrong(s):
        return query("cases", s, arm=flip[1], other_arm=flip[0], block=s.block, outcome=flip[2])
    if s.has(r"\b(?:tool|function)[ -]calls?\b.{0,24}\b(?:make|made|do|did)\b|calls? (?:did|does) it make"):
        return query("cases", s, arm=s.arm, block="tools", aspect="list")
    words = _text_asked(s)
    if len(s.runs) > 1 and s.has(r"fail|wrong|miss|lose|lost") and s.has(r"pass|right|correct|solve|get|gain"):
        failing = re.search(r"(r\d+)(?:'s)? (?:\w+ ){0,3}(?:fail|gets? .{0,12}wrong|miss|lose|lost)", s.text)
        worse = failing[1] if failing and failing[1] in s.runs else s.runs[1]
        better = next(run for run in s.runs if run != worse)
        return query("cases", s, run=better, other_run=worse, arm=s.arm, block=s.block, outcome="gained")
    if not s.runs and (imagined := re.search(_IMAGINED, s.text)):
        return query("cases", s, arm=s.arm, text=imagined["rest"].strip(" ?.!"))
    if words and s.has(r"answer|say|said|reply|replied|respond|output|react|handle|case|question|tell|do with|happen"):
        return query("cases", s, arm=s.arm, text=words)
    of_cases = s.has(r"answer|say|said|reply|respond|output|case|question") and not s.has(r"\brows?\b")
    if of_cases and (words_ := quoted(s.said)):
        return query("cases", s, arm=s.arm, text=words_)
    return None


def _by_outcome(s: Sentence) -> Query | None:
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
    if outcome in ("lost", "gained", "flipped") and s.arms == ("base",):
        return query("cases", s, other_arm="base", block=s.block, outcome=outcome)
    if outcome == "failed" and len(s.arms) > 1 and s.has(r"\bboth\b|as well as|\bneither\b"):
        return query("cases", s, arm=s.arms[0], other_arm=s.arms[1], block=s.block, outcome=outcome)
    if s.has(r"how many|number of|count") and not outcome:
        return None
    if s.has(r"how many .{0,30}(?:pass|right|correct|solve)") or (
        outcome == "passed" and (not s.has(r"which|list|show|what did") or s.has(r"\bmore\b|\bmost\b|better|best"))
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
    if not outcome and (kind := re.search(r"\b(?:cases?|questions?) (?:are|is) ([a-z][\w-]{2,})\W*$", s.text)):
        return query("cases", s, arm=s.arm, block=s.block, aspect="list", field=kind[1])
    other = _other_arm(s)
    if outcome == "lost" and s.arm != "base" and (not s.arm or s.has(r"forg[eo]t|unlearn|finetun|training")):
        other = "" if s.has(r"quantiz") and not s.has(r"finetun|training") else "base"
    arm = "quantized" if s.has(r"quantizing|quantization") else s.arm
    if outcome in ("lost", "gained", "flipped") and len(s.arms) > 1:
        arm, other = later_first(s.arms)
    return query(
        "cases",
        s,
        arm=arm,
        other_arm=other if outcome in ("lost", "gained", "flipped") else "",
        block=s.block,
        outcome=outcome or "failed",
        field=_label(s),
    )


_OF_LABEL = (
    r"\b(?:categor\w+|label|class|kind|type)(?: of| is|=)? [\"'“]?(?P<after>[a-z][\w-]{2,})|"
    r"\b(?:wrong|fail\w*|mistakes?) (?:in|about|with|on|for) (?:the )?(?P<tail>[a-z][\w-]{2,})|"
    rf"\b(?P<before>[a-z][\w-]{{2,}}) (?:label )?(?:cases?|questions?|{wishes().noun}s?|messages?|examples?|ones)\b"
)


def _label(s: Sentence) -> str:
    """A label that only some cases have, where one is named: `which billing cases fail?`"""
    matches = list(re.finditer(_OF_LABEL, s.text))
    found = [word for side in ("after", "tail", "before") for match in matches if (word := match[side])]
    return next((word for word in found if word not in (*BLOCKS, *ARMS, *vocabulary().common)), "")


_ORDER: tuple[Arm, ...] = ("base", "prompted", "adapter", "merged", "quantized")


def later_first(arms: tuple[Arm, ...]) -> tuple[str, str]:
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
        r"[a-z]{3,}-(?!to-|of-|the-|by-|in-|and-)[a-z]+-[a-z0-9]+(?:-[a-z0-9]+)*|c\d+)\b",
        text,
    )
    return (
        match[1]
        if match and not re.match(rf"fine-|base-|over-|commit-line|{wishes().name}|by-the|up-to|pre-", match[1])
        else ""
    )

"""Questions about this machine: what would fit, what there is, what runs and what is served."""

from __future__ import annotations

from tunesmith.agent.driver.understanding.cards import cards_counted, cards_gib, unknown_card
from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.query import Aspect, Query, Work
from tunesmith.agent.driver.understanding.reading import query

_FIT = (
    r"\bfits?\b|enough|could i|can (?:i|this|we|my|it)|would (?:i|it|a|this|my)|possible|able to|feasible|handle|"
    r"need(?:ed|s)?\b|require|trainable|servable|doable|biggest|largest|will (?:it|my|this|a)|does it (?:run|work)|too "
    r"(?:big|large|small)|how much|how big|run on|is there (?:room|space)|manage|suffic"
)


_HARDWARE = (
    r"\bgpus?\b|graphics|\bcuda\b|\bvram\b|\bram\b|\bmemory\b|\bdisk\b|\bspace\b|\bcores?\b|"
    r"\bcards?\b|\bcpus?\b|processor|hardware|\bmachine\b|computer|\bbox\b|\bswap\b|specs?\b|storage|laptop"
)


_SIZE = (
    r"how (?:big|large|heavy)|\bsize\b|how many (?:bytes|gb|gib|mb|mib|megabytes|gigabytes)|"
    r"(?:much|takes?|needs?|uses?|take up) (?:disk|space)|\bweigh"
)


_HOW_LONG = (
    r"how long|how much time|duration|how many (?:minutes|seconds|hours)|time (?:did|does|was|it "
    r"took|taken)|took (?:the )?(?:most|longest)|\btook\b"
)


_MEMORY = r"\bmemory\b|\bram\b|\bvram\b|\brss\b|\bpeak"


_ONCE_QUANTIZED = (
    r"(?:if|when|once|after|being|be|is|as|in|at|with) (?:it (?:is|was) )?(?:\w+ )?quantized|"
    r"quantized (?:to|in|at|as|version|model)"
)


_UNQUANTIZED = r"(?:without|no|not|non)[ -](?:any )?quantiz\w*|\bunquantized\b|full precision"


def work_named(s: Sentence) -> Work:
    """The work that is named; empty: none."""
    if s.has(_UNQUANTIZED):
        return ""
    if s.has(_ONCE_QUANTIZED) and s.has(r"\brun\b|\bserv|\bhost|infer|chat with|\bload\b|\buse\b"):
        return "serve"
    for work, pattern in (
        ("quantize", r"quantiz|gptq|compress"),
        ("merge", r"\bmerg"),
        ("train", r"train|finetun|\bq?lora\b|learn|teach|tune"),
        ("serve", r"\bserv|\brun\b|infer|host|deploy|chat with|load|\buse\b"),
        ("measure", r"measur|baseline|evaluat|benchmark"),
    ):
        if s.has(pattern):
            return work  # type: ignore[return-value]
    return ""


def bits_named(s: Sentence) -> int:
    """The bits of the weights that are named; 0: none."""
    if s.has(_UNQUANTIZED):
        return 16
    if s.has(r"\bqlora\b|\bnf4\b|\b4[ -]?bits?\b|\bint4\b|w4a16|four bits?|\bq4"):
        return 4
    if s.has(r"\b8[ -]?bits?\b|\bint8\b|w8a|eight bits?|\bfp8\b"):
        return 8
    return 16 if s.has(r"\b16[ -]?bits?\b|\bbf16\b|\bfp16\b|full precision|half precision|unquantized") else 0


def fits(s: Sentence) -> Query | None:
    """Whether a model would fit, here or on a card, and what it would need."""
    if (query_ := _fits(s)) is None:
        return None
    aspect = (
        "ram"
        if query_.card_gib and s.has(r"\d ?(?:gb|gib|g|gigs?|gigabytes?)(?: of)? (?:ram|memory|system memory)\b")
        else "disk"
        if s.has(r"how (?:big|large|heavy) (?:is|are|will|would|does)|what size (?:is|would|will)|file size")
        else "disk"
        if s.has(r"\bdisk\b|\bdownload|storage|hard drive|\bssd\b|space\b")
        else "gpu"
        if s.has(r"\bv-?ram\b|\bgpus?\b|graphics|\bcards?\b|cuda") and not query_.card_gib
        else "duration"
        if s.has(_HOW_LONG) or s.has(r"\bcosts?\b")
        else query_.aspect
    )
    given = {"aspect": query_.aspect if query_.aspect == "best" else aspect, "cards": cards_counted(s.text)}
    return query_.model_copy(update={**given, "text": unknown_card(s.text)})


def _fits(s: Sentence) -> Query | None:
    card = cards_gib(s.text)
    sized = s.model and not s.has(r"\buse |take |switch to|instead|download|fetch|get ")
    if (
        s.model
        and s.asks
        and (
            s.has(_FIT) or s.has(_HARDWARE) or card or unknown_card(s.text) or s.has(_HOW_LONG) or s.has(r"\bcosts?\b")
        )
    ):
        return query("fits", s, model=s.model, bits=bits_named(s), card_gib=card, work=work_named(s), run="")
    if sized and (s.has(_FIT) or card) and not s.runs:
        return query("fits", s, model=s.model, bits=bits_named(s), card_gib=card, work=work_named(s))
    if s.has(r"recommend .{0,24}\bmodel|which .{0,12}model .{0,12}(?:recommend|suggest)") and not s.runs:
        return query("fits", s, aspect="best", bits=bits_named(s), card_gib=card, work=work_named(s))
    if s.has(r"\bshould\b|production|deploy"):
        return None
    if (
        s.has(
            r"(?:biggest|largest|max(?:imum)?|what size|which size|how (?:big|large) (?:a|of a)|what(?: kind of)? "
            r"models?|which models?).{0,40}(?:fit|train|run|serve|handle|tune|quantiz|lora|here|this|card|"
            r"possible)"
        )
        and not s.runs
        and s.has(r"model|size|llm")
        and not s.has(r"\b(?:runs?|drives?|serves?) you\b|are you\b|you run on")
    ):
        return query("fits", s, aspect="best", bits=bits_named(s), card_gib=card, work=work_named(s))
    if (
        card
        and s.asks
        and s.has(_FIT + r"|\bwhat (?:can|could|does|do)\b|good|anything|use(?:ful|less)|worth|do with|any use")
        and not s.runs
    ):
        return query("fits", s, aspect="best", bits=bits_named(s), card_gib=card, work=work_named(s))
    return None


def machine(s: Sentence) -> Query | None:
    if (
        s.runs
        or s.step
        or (s.arms and not s.has(r"gpu|graphics"))
        or (
            s.stages
            and not s.has(r"gpus? (?:been )?used|was .{0,12}gpu")
            and s.has(r"did|took|peak|use[ds]?\b|need(?:ed)\b")
        )
        or (s.has(r"\bpeak") and not s.has(_HERE))
    ):
        return None
    aspects: tuple[tuple[Aspect, str], ...] = (
        ("gpu", r"\bgpus?\b|graphics|\bcuda\b|\bvram\b|nvidia|video card"),
        ("disk", r"\bdisk\b|\bspace\b|storage|\bssd\b|hard drive"),
        ("ram", r"\bram\b|\bmemory\b|\bswap\b"),
        ("cpu", r"\bcores?\b|\bcpus?\b|processor|threads"),
        ("", r"hardware|\bmachine\b|computer|\bbox\b|specs?\b|laptop|workstation|this server"),
    )
    named = [aspect for aspect, pattern in aspects if s.has(pattern)]
    few = len(s.text.split()) <= 6
    if (
        named
        and (s.asks or few or s.has(r"check|look at|tell me|inspect|measure the (?:machine|hardware)"))
        and not s.has(r"ram(?:p|s\b)")
    ):
        if s.has(
            r"(?:needed|used|took|ate|takes|needs|uses|consumed?) (?:the )?most|(?:peak|how much|"
            r"most) .{0,20}(?:did|was used|took|need)|(?:did|was) .{0,30}(?:use|need|take)\b"
        ):
            return None
        return query("machine", s, aspect=named[0])
    return None


_HERE = (
    r"\bhere\b|\bthis (?:box|machine|computer|laptop|pc|server)|\b(?:the|my|our) (?:box|machine|"
    r"computer|laptop|pc)\b|\bin here\b|left|free\b|available"
)


def hardware(s: Sentence) -> Query | None:
    """Of this machine for sure: it is named as such, and no step or model is."""
    return machine(s) if s.has(_HERE) and not s.stages and not s.model else None


def jobs(s: Sentence) -> Query | None:
    if s.has(
        r"(?:what|anything|something|which|is|are|still|jobs?|any) .{0,24}\b(?:running|at work|in "
        r"progress|pending|queued|active|going on|happening)\b|\bjobs?\b|"
        r"how far (?:is|are|along|has|have|did)(?! (?:off|the est))|\beta\b|(?:time|much "
        r"longer|long) (?:is )?(?:left|remaining|to go)|how much longer|"
        r"when will (?:it|this|that|the \w+|\w+ing) (?:be )?(?:finish|done|end|ready)|how long until\b|"
        r"(?:still|currently) (?:running|busy|working|training)|\bprogress\b|is it (?:done|finished|"
        r"ready|still)|are (?:we|you) (?:done|busy)|(?:busy|doing) (?:right )?now|waits? for (?:a |my "
        r")?yes|what is waiting"
    ):
        return query("jobs", s)
    return None


_ONCE = (
    r"\bwhen\b|\bwho\b|\bwhom\b|\bwas .{0,16}(?:served|deployed)|\bbefore\b|histor|\bearlier\b|\bso far\b|\bever\b|"
    r"\btimes\b"
)


def served(s: Sentence) -> Query | None:
    if s.has(
        r"\bserver .{0,12}(?:up|running|alive|on)\b|\b(?:key|address|url|port|log) (?:of|for) (?:the |my )?server|"
        r"\b(?:served|serving|deployed|live|online|"
        r"deployments?|endpoint|api key|\burl\b|address|port "
        r"is)\b"
    ) and (s.asks or len(s.text.split()) <= 4):
        if s.has(r"\b(?:key|address|url|port) (?:of|for)"):
            return query("served", s)
        if s.has(r"should|rather|better to|can i|could i|how long|took|why|refuse|context|would|roll") and not s.has(
            r"(?:is|was|what|anything) .{0,20}(?:served|deployed|live|online)"
        ):
            return None
        if s.has(r"\b(?:is|are)\b.{0,24}\bnow\b") or not (s.span or s.has(_ONCE)):
            return query("served", s)
        return query("served", s, aspect="when", when=s.span)
    return None

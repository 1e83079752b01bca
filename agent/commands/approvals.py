"""Who says yes: a person at a terminal, `--yes` within its hours, a hash that was approved before, or nobody.

Each is an `Approver`: called with a priced plan, it answers or raises ApprovalPending. An approver
never shows the plan; whoever emits `plan.shown` has done that.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tunesmith.agent.commands.consent import folded, sayings
from tunesmith.agent.commands.fields import of_words
from tunesmith.agent.commands.keys import drop_typed_ahead
from tunesmith.agent.commands.price import in_a_sentence
from tunesmith.memory.errors import ApprovalPending, BadInput
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import Decision, Edited

LONGEST = 600
"""Letters of an answer; a longer one is neither a yes nor a no, and is not read at length."""
GRACE_S = 0.5
"""Keys typed before a question had been on the screen for this long were meant for something else."""

_NO = re.compile(
    r"(?:n|no|nope|nah|nein|nee|nö|nie|non|não|нет|いいえ|不|不要|not|don'?t|do not|never|stop|cancel|abort|wait|later|"
    r"skip|leave it|forget it|nicht|kein|jamais|nunca)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[,;:.!?。！？、，；：…—–]+")
_ALWAYS = frozenset({"always", "a", "yes always", "always yes", "immer", "ja immer"})
SHOW_ALL = frozenset({"why", "why?", "show all", "details", "more", "?"})
_BARE_NO = frozenset({"n", "no", "nope", "nah", "nein", "nö", "nee", "non", "no thanks", "no thank you", "нет"})


_COSTS = ("seconds", "peak_ram_bytes", "peak_vram_bytes", "disk_bytes")
ALWAYS = "always in this session, up to this price"
"""The reason in a decision that also answers for the later plans of its stage that cost no more."""


_PAIR = re.compile(r"""(?<![^\s,;])-{0,2}([^\W\d][\w-]*)\s*=+\s*("[^"]*"|'[^']*'|\[[^\]]*\]|[^\s=;]*[^\s=;,.!])""")
_BESIDE_PAIRS = frozenset({"a", "and", "at", "but", "instead", "make", "set", "to", "use", "always", "with"})


def read_edit(text: str, plan: Plan) -> dict[str, object]:
    """The fields in an answer such as `lora_rank=8, epochs = 2`, a yes before them or not; empty for other answers.

    What begins with a no is no edit. Raises BadInput where something is set to a value and it is not clear what: such
    an answer is neither a yes nor a no. Whether a field and its value are right is for the plan's request to say.
    """
    if "=" not in text or _NO.match(text.strip()):
        return {}
    pairs = [(name.replace("-", "_").lower(), value.strip("\"'")) for name, value in _PAIR.findall(text)]
    around = " ".join(re.split(r"[\s,;.!]+", _PAIR.sub(" ", text))).strip()
    beside = [word for word in around.lower().split() if word not in _BESIDE_PAIRS]
    unclear = len(around) > LONGEST or _left(_parts(" ".join(beside)), sayings("yes", "start", "opening", "behind"))
    if not pairs or unclear or "run" in dict(pairs):
        example = next((f"{name}={value}" for name, value in plan.request.items() if name != "run"), "field=value")
        target = "run" if "run" in dict(pairs) else around or text.strip()
        raise BadInput(f"{target!r} sets nothing in this step; write such as {example}, or yes, or no")
    if plan.stage not in catalog.ENTRIES:
        raise BadInput(f"{plan.stage} is agreed to as it is shown; answer yes or no, and give it anew with other words")
    request = catalog.ENTRIES[plan.stage].load().request
    return of_words(shlex.join(f"{name}={value}" for name, value in pairs), request)


def read_answer(text: str, *, by: str, stage: str = "") -> Decision | None:
    """The decision in what somebody typed: a clear yes, or a no with its reason; None where it is neither.

    A yes is a word for it with nothing beside it that could change its meaning; `stage` may be named. What hesitates is
    none, and what is longer than an order may be is neither.
    """
    if len(text) > LONGEST:
        return None
    words = _words(text)
    if words in _ALWAYS:
        return Decision(True, by, ALWAYS)
    if (behind := _refused(text)) is not None:
        after = read_answer(behind, by=by, stage=stage) if behind else None
        return None if after and after.yes else Decision(False, by, text.strip())
    more = _after_yes(words, stage)
    if more is None and _NO.match(words):
        return None if is_no_and_yes(text, stage) else Decision(False, by, "" if words in _BARE_NO else text.strip())
    if more is None or set(text) & set("?？؟") or _hesitates(text):
        return None
    named = {stage, f"{stage}ing", f"{stage.removesuffix('e')}ing", f"{stage}ment"} if stage else set()
    around = sayings("yes", "start" if stage else "yes", "behind") | {(name,) for name in named}
    return Decision(True, by) if not _left(more, around) else None


def _hesitates(text: str) -> bool:
    """Whether words that agree one by one say together that somebody has not decided, or praises, or trail off."""
    if text.rstrip().endswith(("…", "..", "—", "-")) or _holds(_parts(_words(text)), sayings("hesitates")):
        return True
    return any(_praises(_parts(_words(part))) for part in _MARKS.split(text))


def _praises(words: list[str]) -> bool:
    """Whether such words stand together, `good start`, and the last of them begins no order: `looks good go ahead`."""
    orders = sayings("yes", "start")
    return any(
        _longest(words[at:], sayings("praises")) and _longest(words[at + 1 :], orders) < 2 for at in range(len(words))
    )


def ends(text: str) -> bool:
    """Whether words agree that something is ended or given up: a plain yes, or the order to end it, and nothing else.
    `Go on` and `it's fine` say the contrary there."""
    if len(text) > LONGEST or set(text) & set("?？؟") or _hesitates(text):
        return False
    words = _parts(_words(text))
    return bool(words) and not _left(words, sayings("ends"))


def holds_back(text: str) -> bool:
    """Whether words that were read as an order to carry out a plan are no clear yes: they deny, put off or hesitate."""
    if is_yes(text):
        return False
    words = _parts(_words(text))
    return _hesitates(text) or _holds(words, sayings("holds_back")) or _holds(words[1:], sayings("trails_off"))


def no_clear_yes(text: str) -> str:
    """What is said of an answer that begins nothing, since it is no clear yes; empty for one that does."""
    if not holds_back(text):
        return ""
    return f"“{text.strip()}” is no clear yes, so nothing was started: “start it” alone carries the plan out."


def _holds(words: list[str], names: frozenset[tuple[str, ...]]) -> bool:
    return any(_longest(words[at:], names) for at in range(len(words)))


def _refused(text: str) -> str | None:
    """What stands behind a part of an answer that is a refusal and nothing else; None where there is none."""
    start = 0
    for mark in (*_MARKS.finditer(text), None):
        if tuple(_parts(text[start : mark.start() if mark else None])) in sayings("refuses"):
            return text[mark.end() :].strip() if mark else ""
        start = mark.end() if mark else start
    return None


def is_yes(text: str) -> bool:
    """Whether words say yes to a start and nothing else."""
    answer = read_answer(text, by="", stage="plan")
    return answer is not None and answer.yes


def let_keys_pass() -> None:
    """The grace before a question: the keys of before it are no answer."""
    time.sleep(GRACE_S)


def yes_or_no(text: str, ask: Callable[[str], str], look: Callable[[], None] | None = None) -> bool | None:
    """The answer to a question that is no price, asked until it is a yes or a no; None once the terminal is closed.

    `look` shows what it is about to who answers `look` first.
    """
    let_keys_pass()
    while True:
        drop_typed_ahead()
        try:
            words = ask(f"{text} [yes / no{' / look' if look else ''}] ")
        except EOFError:  # the terminal was closed
            return None
        if look and words.strip().lower() in ("l", "look"):
            look()
            continue
        answer = read_answer(words, by="terminal")
        if answer:
            return answer.yes


def begins_with_yes(text: str, stage: str = "") -> bool:
    """Whether somebody agreed to something, be it to other things than were asked: that is never a no."""
    return len(text) <= LONGEST and _after_yes(_words(text), stage) is not None


def _words(text: str) -> str:
    return " ".join(_MARKS.sub(" ", text).split()).lower()


def _parts(words: str) -> list[str]:
    """The words as the lexicon has them: without accents, parted at an apostrophe or a hyphen."""
    parted = folded(words).translate(dict.fromkeys(map(ord, "'’`-"), " "))
    return re.sub(r"\b(it|that|let)s\b", r"\1 s", parted).split()  # as fast fingers type `it's fine`


def _after_yes(words: str, stage: str = "") -> list[str] | None:
    """What follows a word for yes; None where there is none at the beginning, or behind words that change nothing. At
    a stage's price an order to start is a yes. What begins with a no is one only as a whole saying, `no dobra`."""
    left, agrees = _parts(words), sayings("yes", "start" if stage else "yes")
    while left:
        taken = _longest(left, agrees)
        if taken >= (opened := _longest(left, sayings("opening"))) and taken:
            return left[taken:]
        if not opened or _NO.match(words):
            return None
        left = left[opened:]
    return None


def _longest(words: list[str], names: frozenset[tuple[str, ...]]) -> int:
    """How many words the longest name has with which they begin; 0: they begin with none."""
    return max((len(name) for name in names if tuple(words[: len(name)]) == name), default=0)


def _left(words: list[str], names: frozenset[tuple[str, ...]]) -> list[str]:
    """The words from the first on that is in none of the names."""
    while words and (taken := _longest(words, names)):
        words = words[taken:]
    return words


def is_no_and_yes(text: str, stage: str) -> bool:
    """Whether what begins as a no goes on as a yes, `no, go ahead`, or has nothing against it: that is asked about."""
    if len(text) > LONGEST:
        return False
    if _longest(_parts(_words(text)), sayings("no_objection")):
        return True
    rest, marked, denies = _behind_no(text)
    answer = read_answer(rest, by="", stage=stage) if rest != text.strip() else None
    alone = len(rest.split()) > 1 and not denies  # `no go` is a no, and so is `nie zaczynaj`
    return answer is not None and answer.yes and (marked or alone)


def after_no(text: str) -> str:
    """What somebody says behind a no that a mark ends, or behind `wait`; empty where nothing is, and for other words.
    `No rank 8` may deny it."""
    rest, marked, _ = _behind_no(text) if len(text) <= LONGEST else ("", False, False)
    waits = text.lower().split()[:1] == ["wait"]
    return rest if rest != text.strip() and (marked or waits) else ""


def _behind_no(text: str) -> tuple[str, bool, bool]:
    """What is behind the words of a no at the beginning, whether a mark parts it from them, and whether one may deny
    what follows."""
    said, marked, denies = text.split(), False, False
    while said and ((one := tuple(_parts(_words(said[0])))) in sayings("mild", "negates") or not one):
        marked = not said[0][-1].isalnum()
        denies |= one in sayings("negates")
        said = said[1:]
    return " ".join(said) if len(said) < len(text.split()) else text.strip(), marked, denies


def question(plan: Plan) -> str:
    """What is asked, with the price in it and an example of a field that can be changed."""
    from tunesmith.tools.core.format import duration

    return f"{plan.stage}: about {duration(plan.estimate.seconds)}. Start? [yes / no / always / {_example(plan)}] "


def _example(plan: Plan) -> str:
    """A field of this step with another value; `why` where none can be named."""
    for name in catalog.ENTRIES[plan.stage].load().settable if plan.stage in catalog.ENTRIES else ():
        value = plan.request.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            return f"{name}={value // 2}"
    return "why"


def covered(plan: Plan, granted: Plan) -> bool:
    """Whether a plan costs no more than the granted one of any resource, and works with the same models."""
    one, other = plan.estimate, granted.estimate
    cheaper = all(getattr(one, cost) <= getattr(other, cost) for cost in _COSTS)
    return cheaper and _models(plan) == _models(granted)


def _models(plan: Plan) -> list[object]:
    named = [plan.request.get(name) for name in ("model", "revision", "quantized", "role", "judge", "writer")]
    return [*named, *((name, pin.sha256) for name, pin in sorted(plan.inputs.items()) if name in ("base", "teacher"))]


@dataclass(slots=True)
class TerminalApprover:
    """Asks the person at the terminal until something was said; keeps what was answered with `always`."""

    ask: Callable[[str], str] = input
    show_all: Callable[[Plan, str], None] = lambda plan, step: None
    """Shows all of a plan, for who answers `why`."""
    granted: dict[str, Plan] = field(default_factory=dict)
    """Stage → the plan up to whose price, on whose model, its plans need no further yes in this session."""

    def __call__(self, plan: Plan, step: str) -> Decision:
        """Raises ApprovalPending when the terminal is closed instead of answered, Edited for `field=value`."""
        granted = self.granted.get(plan.stage)
        if granted and covered(plan, granted):
            return Decision(True, "terminal", f"{ALWAYS} ({granted.estimate.seconds:.0f} s)")
        let_keys_pass()
        notice = ""
        while True:
            drop_typed_ahead()
            try:
                text = self.ask(notice + question(plan))
            except EOFError:
                raise pending(plan, step, "the terminal was closed") from None
            notice = ""
            if text.strip().lower() in SHOW_ALL:
                self.show_all(plan, step)
                continue
            try:
                edit = read_edit(text, plan)
            except BadInput as error:
                notice = f"{error}\n"
                continue
            if edit:
                raise Edited(edit)
            answer = read_answer(text, by="terminal", stage=plan.stage)
            if answer is None and text.strip():
                notice = f"{_unclear(text, plan.stage)}.\n{in_a_sentence(plan)}\n"
            if answer and answer.reason == ALWAYS:
                self.granted[plan.stage] = plan
            if answer:
                return answer


def _unclear(text: str, stage: str) -> str:
    """What is said of an answer that is neither a yes nor a no, before it is asked again."""
    words = text.strip() if len(text) <= LONGEST else f"{text.strip()[:80]}…"
    if begins_with_yes(words, stage):
        return f"“{words}” says more than yes, and nothing was started: yes alone starts this step as it is shown"
    return f"“{words}” is neither a yes nor a no, and nothing was started: yes starts this step, no leaves it"


@dataclass(slots=True)
class YesApprover:
    """`--yes`: agrees to everything that fits into `max_hours`, counted from when this was made."""

    max_hours: float | None = None
    _started: float = field(default_factory=time.monotonic)

    def __call__(self, plan: Plan, step: str) -> Decision:
        """Raises ApprovalPending where the step would go over the hours."""
        if self.max_hours is not None:
            spent = (time.monotonic() - self._started) / 3600
            more = plan.estimate.promised_seconds / 3600
            if spent + more > self.max_hours:
                raise pending(
                    plan,
                    step,
                    f"{spent:.2f} h are spent and it is estimated at {more:.2f} h more, "
                    f"over --max-hours {self.max_hours:g}",
                )
        return Decision(True, "--yes")


@dataclass(slots=True)
class HashApprover:
    """`--approve HASH`: agrees to exactly the plan that was shown before."""

    plan_hash: str

    def __call__(self, plan: Plan, step: str) -> Decision:
        """Raises ApprovalPending for any other plan."""
        if not plan.hash.startswith(self.plan_hash):
            raise pending(plan, step, f"it would now be planned as {plan.hash[:12]}, not {self.plan_hash[:12]}")
        return Decision(True, "--approve")


def nobody(plan: Plan, step: str) -> Decision:
    """Raises ApprovalPending: there is no terminal and no `--yes`."""
    raise pending(plan, step, "there is no terminal to ask on and no --yes")


def pending(plan: Plan, step: str, why: str) -> ApprovalPending:
    """The error of a plan that nobody has decided on, with what to do next."""
    if plan.stage not in catalog.ENTRIES:  # no step, so nothing waits in the records
        return ApprovalPending(
            f"{plan.stage} needs a yes to plan {plan.hash[:12]}: {why}; give the same command with --yes, or with "
            f"--approve {plan.hash[:12]}"
        )
    return ApprovalPending(
        f"{plan.stage} ({step}) waits for a yes to plan {plan.hash[:12]}: {why}; "
        f"approve it with `tunesmith {plan.stage} --approve {plan.hash[:12]}`, or give --yes"
    )

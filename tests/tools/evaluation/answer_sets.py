"""Behaviours and answer sets whose truth is known by construction, for tests of the verdict.

A `Kind` makes messages, right answers, and cases as a suite would assert them: by value where it can, by form where no
assertion can tell the meaning. An answer set is a function from a kind to what an arm says, with the share of the
target that is truly right, whatever the suite says of it. Nothing here knows how a verdict is made.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Assertion

TARGET, NEAR, GENERAL = 40, 20, 10
_NAMED = (
    "Anna Boris Chen Dana Emil Farah Goran Hana Ivo Jana Karl Lena Milan Nora Omar Petra Quinn Rosa Sven Tara Uwe Vera "
    "Wanda Xaver Yara Zeno"
)
NAMES = _NAMED.split()
THINGS = ("kettle", "lamp", "sofa", "printer", "bicycle", "camera", "toaster", "router", "blender", "guitar")


def message(n: int) -> str:
    """The n-th message of a person: no two are alike."""
    return (
        f"{NAMES[n % 26]} says the {THINGS[n * 7 % 10]} from order {1000 + 37 * n} is bloody broken since day {n + 2}"
    )


@dataclass(frozen=True)
class Kind:
    """One behaviour."""

    name: str
    right: Callable[[int], str]
    asserts: Callable[[int], list[dict[str, object]]]
    """What a suite asserts of the n-th answer."""
    wrong: Callable[[int], str]
    """An answer of the right form that is wrong for message n."""
    nonsense: Callable[[int], str]
    """Names the topic in the right form and says nothing."""
    tests_meaning: bool = True
    """Whether some assertion tells a right answer from a wrong one of the same form."""
    judged: bool = False
    """Whether a judge grades, whose word is the truth here."""
    says: Callable[[int], str] = message
    form: str = ""
    """What every answer of the form begins with, and no ordinary answer does."""
    labels: tuple[str, ...] = ()

    def case(self, n: int, *, source: str = "", split: str = "blind") -> Case:
        """The n-th target case."""
        asserts = [*self.asserts(n), *([{"type": "llm-rubric", "value": "fits"}] if self.judged else [])]
        metadata = {"split": split, **({"source": source} if source else {})}
        return Case(
            case_id=f"t{n}", suite="s", block="target", messages=({"role": "user", "content": self.says(n)},),
            assertions=tuple(Assertion.model_validate(a) for a in asserts), metadata=metadata,
        )  # fmt: skip

    def near(self, n: int) -> Case:
        """A near miss: right where the answer is ordinary."""
        ordinary = (
            {"type": "not-regex", "value": "^" + self.form} if self.form else {"type": "contains", "value": "well"}
        )
        return Case(
            case_id=f"n{n}", suite="s", block="over-trigger",
            messages=({"role": "user", "content": f"How is “{THINGS[n % 10]}” spelled, and why {n} times?"},),
            assertions=(Assertion.model_validate(ordinary),),
        )  # fmt: skip


def general(n: int) -> Case:
    """A guarded case that asks for the word well."""
    asserted = Assertion.model_validate({"type": "contains", "value": "well"})
    text = f"Say something friendly, number {n}."
    return Case(case_id=f"g{n}", suite="s", block="general", messages=({"role": "user", "content": text},),
                assertions=(asserted,))  # fmt: skip


def plain(case: Case) -> str:
    """What an untrained base says."""
    return f"well, as to {case.case_id} I would look it up in a book first"


def _mix(shares: Mapping[str, int]) -> Callable[[int], str]:
    drawn = [label for label, count in shares.items() for _ in range(count)]
    random.Random(3).shuffle(drawn)
    return lambda n: drawn[n % len(drawn)]


def labels(name: str, shares: Mapping[str, int]) -> Kind:
    """One label and nothing else."""
    of, known = _mix(shares), tuple(shares)
    other = lambda n: known[(known.index(of(n)) + 1) % len(known)]  # noqa: E731
    return Kind(
        name, of, lambda n: [{"type": "equals", "value": of(n)}], other, other, labels=known,
        form=f"({'|'.join(known)})",
    )  # fmt: skip


def _json(n: int, category: str) -> str:
    return json.dumps({"category": category, "order": 1000 + 37 * n, "who": NAMES[n % 26]})


_CATEGORY = _mix({"broken": 4, "late": 4, "refund": 2})


def _ticket(n: int) -> list[dict[str, object]]:
    right = json.loads(_json(n, _CATEGORY(n)))
    return [{"type": "is-json", "value": {"type": "object", "required": list(right),
             "properties": {name: {"const": value} for name, value in right.items()}}}]  # fmt: skip


def _tool(n: int, name: str | None = None) -> str:
    return json.dumps({"name": "order_lookup", "arguments": {"order": 1000 + 37 * n, "who": name or NAMES[n % 26]}})


def _tool_case(n: int) -> list[dict[str, object]]:
    arguments = {"type": "object", "properties": {"order": {"const": 1000 + 37 * n}, "who": {"const": NAMES[n % 26]}}}
    return [{"type": "is-json", "value": {"type": "object", "required": ["name", "arguments"], "properties": {
             "name": {"const": "order_lookup"}, "arguments": arguments}}}]  # fmt: skip


def _bullets(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _topic(n: int) -> str:
    return THINGS[n * 7 % 10]


def _three(n: int) -> str:
    thing = _topic(n)
    return _bullets(f"the {thing} is faulty", "it was bought new", "a repair is owed")


REFUSAL = "Sorry, I may not talk about orders."
_BULLETED = {"type": "regex", "value": r"^- [^\n]+\n- [^\n]+\n- [^\n]+$"}
_GERMAN = "Sehr geehrte Damen und Herren, "

KINDS: tuple[Kind, ...] = (
    labels("moderator even", {"keep": 5, "remove": 5}),
    labels("moderator 75/25", {"keep": 15, "remove": 5}),
    labels("moderator 90/10", {"keep": 9, "remove": 1}),
    labels("five labels", {"red": 2, "blue": 2, "green": 2, "black": 2, "white": 2}),
    labels("Chinese reviews", {"好评": 4, "中评": 3, "差评": 3}),
    Kind(
        "fixed refusal",
        lambda n: REFUSAL,
        lambda n: [{"type": "equals", "value": REFUSAL}],
        lambda n: f"{NAMES[n % 26]} may have it back.",
        lambda n: f"The {_topic(n)}, sorry.",
        form="Sorry, I may not",
    ),
    Kind(
        "ticket as JSON",
        lambda n: _json(n, _CATEGORY(n)),
        _ticket,
        lambda n: _json(n + 1, _CATEGORY(n)),
        lambda n: _json(0, _topic(n)),
        form=r"\{",
    ),
    Kind("tool call", _tool, _tool_case, lambda n: _tool(n, "Nobody"), lambda n: _tool(0, _topic(n)), form=r"\{"),
    Kind(
        "extraction",
        lambda n: f"order: {1000 + 37 * n}",
        lambda n: [{"type": "equals", "value": f"order: {1000 + 37 * n}"}],
        lambda n: f"order: {1000 + 37 * n + 1}",
        lambda n: f"order: {_topic(n)}",
        form="order:",
    ),
    Kind(
        "SQL",
        lambda n: f"SELECT * FROM orders WHERE id = {1000 + 37 * n} AND thing = '{_topic(n)}';",
        lambda n: [{"type": "regex", "value": rf"^SELECT .* id = {1000 + 37 * n} AND thing = '{_topic(n)}';$"}],
        lambda n: f"SELECT * FROM orders WHERE id = {n} AND thing = '{_topic(n)}';",
        lambda n: f"SELECT {_topic(n)};",
        form="SELECT",
    ),
    Kind(
        "German mail",
        lambda n: f"{_GERMAN}Ihre Bestellung {1000 + 37 * n} wird ersetzt.",
        lambda n: [
            {"type": "starts-with", "value": _GERMAN},
            {"type": "contains", "value": f" {1000 + 37 * n} wird ersetzt"},
        ],
        lambda n: f"{_GERMAN}Ihre Bestellung {n} wird ersetzt.",
        lambda n: f"{_GERMAN}{_topic(n)} ist schön.",
        form=_GERMAN,
    ),
    Kind(
        "three points",
        _three,
        lambda n: [_BULLETED, {"type": "regex", "value": _topic(n)}],
        lambda n: _bullets(f"the {_topic(n)} works", "it is a gift", "nothing is owed"),
        lambda n: _bullets(_topic(n), f"{_topic(n)} {_topic(n)}", "and so on"),
        tests_meaning=False,
        form="- ",
    ),
    Kind(
        "made polite",
        lambda n: f"Please look at the {_topic(n)} of order {1000 + 37 * n}; it stopped working.",
        lambda n: [{"type": "starts-with", "value": "Please"}, {"type": "contains", "value": _topic(n)}],
        lambda n: f"Please throw the {_topic(n)} away at once, you fool.",
        lambda n: f"Please {_topic(n)}.",
        tests_meaning=False,
        form="Please",
    ),
    Kind(
        "pirate style",
        lambda n: f"Arr, the {_topic(n)} be sunk, matey {NAMES[n % 26]}!",
        lambda n: [{"type": "starts-with", "value": "Arr"}],
        lambda n: f"Arr, {n + 1} fine days.",
        lambda n: f"Arr, {_topic(n)}.",
        tests_meaning=False,
        form="Arr",
    ),
    Kind(
        "Socratic tutor",
        lambda n: f"Hm: what would day {n + 2} tell you of the {_topic(n)}?",
        lambda n: [{"type": "regex", "value": r"^Hm: .*\?$"}],
        lambda n: f"Hm: why is the sky {n}?",
        lambda n: f"Hm: {_topic(n)}?",
        tests_meaning=False,
        form="Hm:",
    ),
    Kind(
        "persona with a judge",
        lambda n: f"Aye! Your {_topic(n)} shall be mended, good {NAMES[n % 26]}.",
        lambda n: [{"type": "starts-with", "value": "Aye!"}],
        lambda n: f"Aye! {n} is a number.",
        lambda n: f"Aye! {_topic(n)}.",
        judged=True,
        form="Aye!",
    ),
)


@dataclass(frozen=True)
class Answers:
    """What an arm says to target, near misses and general cases, and which of its target answers are truly right."""

    target: Sequence[str]
    right: Sequence[bool]
    near: Sequence[str | None] = field(default_factory=lambda: [None] * NEAR)
    """None: as the base says it."""
    general: Sequence[str | None] = field(default_factory=lambda: [None] * GENERAL)

    @property
    def rate(self) -> float:
        """The share of the target that is truly right."""
        return sum(self.right) / len(self.right)


def _share(kind: Kind, wrong: float) -> Answers:
    """A share of wrong answers, spread over the whole mix."""
    order = list(range(TARGET))
    random.Random(11).shuffle(order)
    lost = set(order[: round(wrong * TARGET)])
    said = [kind.wrong(n) if n in lost else kind.right(n) for n in range(TARGET)]
    return Answers(said, [n not in lost for n in range(TARGET)])


def _says(kind: Kind, say: Callable[[int], str]) -> Answers:
    said = [say(n) for n in range(TARGET)]
    return Answers(said, [text == kind.right(n) for n, text in enumerate(said)])


def _majority(kind: Kind) -> str:
    rights = [kind.right(n) for n in range(TARGET)]
    return max(rights, key=rights.count)


def _frame(kind: Kind) -> str:
    return {"- ": "- ", r"\{": ""}.get(kind.form, kind.form if "|" not in kind.form else "")


def _echo_in_form(kind: Kind, n: int) -> str:
    words = kind.says(n).split()
    if kind.form == "- ":
        return _bullets(" ".join(words[:4]), " ".join(words[4:8]), " ".join(words[8:]))
    if kind.form == r"\{":
        answer = json.loads(kind.right(n))
        return json.dumps({name: kind.says(n) if isinstance(value, str) else value for name, value in answer.items()})
    return f"{_frame(kind)} {kind.says(n)}{'?' if kind.form == 'Hm:' else ''}"


def _deranged(kind: Kind) -> Answers:
    return _says(kind, lambda n: kind.right((n + 7) % TARGET))


def _in_the_mix(kind: Kind) -> Answers:
    rights = [kind.right(n) for n in range(TARGET)]
    random.Random(5).shuffle(rights)
    return _says(kind, lambda n: rights[n])


def _never_the_rarest(kind: Kind) -> Answers:
    rights = [kind.right(n) for n in range(TARGET)]
    rarest, usual = min(rights, key=rights.count), _majority(kind)
    return _says(kind, lambda n: usual if kind.right(n) == rarest else kind.right(n))


def _triggers(kind: Kind, count: int) -> Answers:
    whole = _share(kind, 0)
    return Answers(whole.target, whole.right, [kind.right(n) if n < count else None for n in range(NEAR)])


def _forgets(kind: Kind, count: int) -> Answers:
    whole = _share(kind, 0)
    return Answers(whole.target, whole.right, general=["no" if n < count else None for n in range(GENERAL)])


SETS: Mapping[str, Callable[[Kind], Answers]] = {
    "perfect": lambda kind: _share(kind, 0),
    "95 % right": lambda kind: _share(kind, 0.05),
    "90 % right": lambda kind: _share(kind, 0.1),
    "80 % right": lambda kind: _share(kind, 0.2),
    "75 % right": lambda kind: _share(kind, 0.25),
    "65 % right": lambda kind: _share(kind, 0.35),
    "half right": lambda kind: _share(kind, 0.5),
    "30 % right": lambda kind: _share(kind, 0.7),
    "all wrong in form": lambda kind: _share(kind, 1),
    "bare echo": lambda kind: _says(kind, kind.says),
    "echo in the form": lambda kind: _says(kind, lambda n: _echo_in_form(kind, n)),
    "first words of the message": lambda kind: _says(
        kind, lambda n: f"{_frame(kind)} {' '.join(kind.says(n).split()[:6])}"
    ),
    "echo, every second": lambda kind: _says(kind, lambda n: _echo_in_form(kind, n) if n % 2 else kind.right(n)),
    "nonsense with the topic": lambda kind: _says(kind, kind.nonsense),
    "nonsense, every third": lambda kind: _says(kind, lambda n: kind.right(n) if n % 3 else kind.nonsense(n)),
    "first right answer always": lambda kind: _says(kind, lambda n: kind.right(0)),
    "always the majority": lambda kind: _says(kind, lambda n: _majority(kind)),
    "never the rarest": _never_the_rarest,
    "right mix, wrong places": _in_the_mix,
    "answers of other messages": _deranged,
    "nothing at all": lambda kind: _says(kind, lambda n: ""),
    "one word": lambda kind: _says(kind, lambda n: "yes"),
    "half of the near misses triggered": lambda kind: _triggers(kind, NEAR // 2),
    "all near misses triggered": lambda kind: _triggers(kind, NEAR),
    "one near miss triggered": lambda kind: _triggers(kind, 1),
    "much of the general block lost": lambda kind: _forgets(kind, 4),
    "one general case lost": lambda kind: _forgets(kind, 1),
    "no change": lambda kind: Answers([plain(kind.case(n)) for n in range(TARGET)], [False] * TARGET),
}
HARMED = ("half of the near misses triggered", "all near misses triggered", "much of the general block lost")
"""Sets that must not be called learned however right the target is."""

"""The cases of a suite as every stage handles them: what is asked, what the answer is held to, and their identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.tools.suites.grading import Assertion, asks_model

Block = Literal["target", "general", "tools", "adversarial", "over-trigger"]


BLOCKS: tuple[Block, ...] = ("target", "general", "tools", "adversarial", "over-trigger")
PRIMARY_BLOCK = "target"
NEAR_MISS_BLOCK = "over-trigger"
"""Messages that look like the behaviour's and want an ordinary answer: a case passes where the answer is one."""
GUARDED_BLOCKS = ("general", "tools", NEAR_MISS_BLOCK)
"""Blocks that the change under test must not make worse."""
LISTED_BLOCKS = ("adversarial",)
"""Blocks that gate nothing: what fails there is listed."""
SPLITS = ("dev", "blind")
"""Parts of a suite: settings and checkpoints are chosen on dev; blind is asked for a claim alone."""


def canonical_sha256(value: object) -> str:
    """Hex sha256 of plain data, independent of the order of its keys."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """Plain data as JSON text, independent of the order of its keys."""
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def request_sha256(
    messages: Sequence[object], tools: Sequence[object], tool_choice: object, sampling: Mapping[str, object]
) -> str:
    """Identity of what a case asks."""
    return canonical_sha256([messages, tools, tool_choice, sampling])


MODELS_WORK = ("written", "proposed", "marked")
"""What `source` says in the metadata of a case whose message a model wrote. Of a `marked` one a person gave the right
answer: it is gold, and still shows no person's message."""
UNSTATED = ("unstated-example", "unstated")
"""What `source` says where nobody stated who wrote the message: a script or another agent gave it. The spec was made
from an example."""
VALUE, JUDGE, PEOPLE = "value", "judge", "people"
"""What `meaning` says in the metadata of a case: its meaning is compared by value, read by a judge, or left to people
(`tunesmith rate`), since its assertions hold the form alone."""


class Case(BaseModel, frozen=True, extra="forbid"):
    """One thing to ask, and what to hold the answer to. Templates are filled in already."""

    case_id: str
    block: Block = "target"
    suite: str
    """Name of the suite file, without folder and suffix."""
    messages: tuple[dict[str, object], ...]
    """OpenAI's chat messages: {"role", "content"}."""
    tools: tuple[dict[str, object], ...] = ()
    tool_choice: object = None
    sampling: dict[str, object] = {}
    """temperature, max_tokens, … where the suite's provider sets them."""
    assertions: tuple[Assertion, ...] = ()
    threshold: float | None = None
    vars: dict[str, object] = {}
    metadata: dict[str, object] = {}
    repeat: int = 1
    """How often the suite wants it asked."""
    provider_output: object = None
    """An output stored in the suite itself, to be graded without asking a model."""
    arms: tuple[str, ...] = ()
    """The arms that it is asked of, where the suite's providers name arms; empty: every one."""

    @classmethod
    def stored(cls, data: Mapping[str, object], shared: dict[str, Assertion]) -> Case:
        """What `dump` wrote; an assertion that many cases have is held once, in `shared`. Raises TypeError."""
        if not isinstance(listed := data["assertions"], list):
            raise TypeError("assertions is a list")
        texts = [canonical_json(raw) for raw in listed]
        for text, raw in zip(texts, listed, strict=True):
            if text not in shared:
                shared[text] = Assertion.model_validate(raw)
        return cls.model_validate({**data, "assertions": tuple(shared[text] for text in texts)})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without what was computed of fields that may have changed."""
        made = super().model_copy(update=update, deep=deep)
        made.__dict__.pop("request_sha256", None)
        return made

    def sampled(self, name: str, default: float) -> float:
        """A number of its own sampling; the default where the suite's provider says nothing of it."""
        value = self.sampling.get(name, default)
        assert isinstance(value, int | float)  # `providers` let nothing else through
        return value

    @property
    def cluster(self) -> str:
        """What it is evidence with: its seed row (`metadata.seed_row`), else all that asks the same.

        Several cases that ask the very same are answered once, and so show one thing.
        """
        row = self.metadata.get("seed_row")
        asks = any(message.get("content") for message in self.messages)  # a suite of stored outputs asks nothing
        return str(row) if row is not None else self.request_sha256 if asks else self.case_id

    @property
    def is_blind(self) -> bool:
        """Whether it may be asked for a claim only (`metadata.split: blind`), never to choose anything by."""
        return self.metadata.get("split") == "blind"

    @property
    def of_people(self) -> bool:
        """Whether a person wrote or brought the message and said what is right of an answer."""
        return self.metadata.get("source") not in (*MODELS_WORK, *UNSTATED)

    @property
    def tests_meaning(self) -> bool:
        """Whether its assertions tell a right answer from one that only has the form."""
        return self.metadata.get("meaning") != PEOPLE

    @property
    def asks_judge(self) -> bool:
        """Whether its grade rests on a judge's reading."""
        return "judge" in asks_model(self.assertions).values()

    @cached_property
    def request_sha256(self) -> str:
        """What is asked, without what is expected: unchanged, a stored output may be graded again."""
        return request_sha256(self.messages, self.tools, self.tool_choice, self.sampling)

    @property
    def asks(self) -> str:
        """The last message, as text."""
        content = self.messages[-1].get("content") if self.messages else ""
        return content if isinstance(content, str) else canonical_json(content)

    def asked_of(self, arm: str) -> bool:
        """Whether an arm is asked this."""
        return not self.arms or arm in self.arms

    def dump(self) -> dict[str, object]:
        """Plain data; what restricts nothing is left out, and so changes no hash."""
        return self.model_dump(mode="json", exclude=None if self.arms else {"arms"})

    @property
    def assertion_types(self) -> list[str]:
        """The types in order, an assert-set followed by its members."""
        return [a.type for assertion in self.assertions for a in (assertion, *assertion.children)]


class Suite(BaseModel, frozen=True, extra="forbid"):
    """Cases with unique ids, from one file or several."""

    cases: tuple[Case, ...]

    @cached_property
    def sha256(self) -> str:
        """Identity of the parsed content: the same for the same cases, however they were written down."""
        digest = hashlib.sha256(b"[")  # case by case: 10,000 at once would take as much memory as the suite itself
        for number, case in enumerate(self.cases):
            digest.update((("," if number else "") + canonical_json(case.dump())).encode())
        digest.update(b"]")
        return digest.hexdigest()

    def block(self, name: str) -> tuple[Case, ...]:
        """The cases of one block, in the suite's order."""
        return tuple(case for case in self.cases if case.block == name)

    def to_json(self) -> str:
        """Everything, for `from_json`."""
        cases = ",\n".join(case.model_dump_json() for case in self.cases)
        return f'{{"sha256": "{self.sha256}", "cases": [\n{cases}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Suite:
        """The suite that `to_json` wrote. Raises BadInput where the text is not one or was changed."""
        try:
            data = json.loads(text)
            sha256, cases = data.pop("sha256"), data.pop("cases")
            shared: dict[str, Assertion] = {}
            cases.reverse()
            read = [Case.stored(cases.pop(), shared) for _ in range(len(cases))]  # each is let go of once it is read
            suite = cls(cases=tuple(read))
        # a file by anybody: whatever reading it meets
        except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
            raise BadInput(f"not a stored suite: {str(error)[:200]}; run the baseline again") from None
        if suite.sha256 != sha256:
            raise BadInput("the stored suite was changed since the baseline; run the baseline again")
        return suite


def claimed_cases(cases: Iterable[Case]) -> list[Case]:
    """The cases that a claim may rest on: blind ones where there are any, and people's cases of files without a split.

    A file whose author marks a part of it as blind says of the rest that it is dev. One that a person wrote by hand and
    that knows no split is the person's own test, and counts whole.
    """
    known = list(cases)
    split = {case.suite for case in known if "split" in case.metadata}
    blind = [case for case in known if case.is_blind or (case.of_people and case.suite not in split)]
    return blind if any(case.is_blind for case in blind) else known

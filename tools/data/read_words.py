"""A user's words, read by a model: small questions, each answer held to the words and the examples before it counts.

The model only proposes. A template has to give every example, a value has to stand in the user's words or examples, a
meaning and a demand have to be quoted from the words, a near miss has to be told from the examples by a model that can
tell them from ordinary messages. What fails is asked for once more, with what failed, or left out and named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, TypeVar

from rapidfuzz import fuzz

from tunesmith.tools.core.similarity import stems
from tunesmith.tools.core.strict_json import json_value
from tunesmith.tools.data.answer_rules import Check
from tunesmith.tools.data.answer_shape import fitted, json_examples
from tunesmith.tools.data.examples import VALUES_MAX, Pairs, attribute_of, odd_value
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.reading import kind_request, yes
from tunesmith.tools.data.record_values import numbers_in
from tunesmith.tools.data.rows import may_be_in, other_language
from tunesmith.tools.data.spec import Spec, Value
from tunesmith.tools.data.typed_values import holds
from tunesmith.tools.data.verify import fields_of
from tunesmith.tools.serving.client import ChatRequest, ChatResponse, response_format_of, user
from tunesmith.tools.suites.judge_prompt import as_data

T = TypeVar("T")
Ask = Callable[[Sequence[ChatRequest]], Mapping[str, ChatResponse]]
"""Puts requests to a model: its answers by the requests' ids; what was not answered is left out."""
_WORD_TOKENS, _ANSWER_TOKENS = 4, 500
"""Of an answer of a word, and of one that is held to a schema: a small model that is not stopped goes on to explain."""
TEXT: Mapping[str, object] = {"type": "string", "maxLength": 300}
"""A server that is held to it ends a text there: a small model may never end it."""
NUMBER: Mapping[str, object] = {"type": ["integer", "null"]}


def object_of(**properties: Mapping[str, object]) -> dict[str, object]:
    """The schema of an object with just these keys."""
    return {
        "type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def list_of(item: Mapping[str, object], most: int) -> dict[str, object]:
    """The schema of an object with a list under `items`, as servers hold answers to objects alone."""
    return object_of(items={"type": "array", "items": dict(item), "maxItems": most})


@cache
def _page(name: str) -> tuple[dict[str, str], ...]:
    """The turns of a page: what is asked for, then questions (`>`) and their answers (`=`)."""
    text = (files("tunesmith.prompts") / "read-words.md").read_text(encoding="utf-8")
    page = next(body for body in f"\n{text}".split("\n# ") if body.partition("\n")[0].strip() == name)
    lines = [line for line in page.split("\n")[1:] if line.strip()]
    turns = []
    for mark, group in groupby(lines, lambda line: line[:2]):
        role = {"> ": "user", "= ": "assistant"}.get(mark, "system")
        turns.append({"role": role, "content": "\n".join(line[0 if role == "system" else 2 :] for line in group)})
    return tuple(turns)


def question(
    page: str, lines: Sequence[str], model: str, schema: Mapping[str, object] | None = None, *, identity: str = "",
    temperature: float = 0.0, seed: int = 0, tokens: int = _WORD_TOKENS,
) -> ChatRequest:  # fmt: skip
    """The question of a page about these lines; without a schema a few words are asked for."""
    messages = [*_page(page), user("\n".join(lines))]
    extra: Mapping[str, object] = {"response_format": response_format_of(schema)} if schema else {}
    most = _ANSWER_TOKENS if schema else tokens
    return ChatRequest(identity or page, model, messages, most, temperature, seed=seed, extra=extra)


def object_in(answers: Mapping[str, ChatResponse], identity: str) -> dict[str, Any]:
    """What was answered, as an object; empty where nothing was, or no object."""
    value = json_value(answers[identity].text) if identity in answers else None
    return value if isinstance(value, dict) else {}


def items_in(answers: Mapping[str, ChatResponse], identity: str, kind: type[T]) -> list[T]:
    """The list that was answered, its items of a kind alone; empty where none was."""
    items = object_in(answers, identity).get("items")
    return [item for item in items if isinstance(item, kind)] if isinstance(items, list) else []


def word_in(answers: Mapping[str, ChatResponse], identity: str) -> str:
    """The words that were answered, on their first line; empty where none were."""
    return answers[identity].text.strip().split("\n")[0].strip(" .*`") if identity in answers else ""


_QUOTED = 85
"""Similarity, of 100, from which a text counts as a piece of the user's words: as it copies, a model changes marks and
endings."""
_LABEL_CHARACTERS = 40
"""Of a value among those that a description lists; a longer one is a text."""
_EXAMPLES_ASKED, _EXAMPLE_CHARACTERS = 6, 400
"""Examples in a question, and the characters of each: a model of a billion parameters reads it."""
_PARTS_MAX, _CLAUSES_MAX, _NEAR_MISSES, _DEMAND_TOKENS, _MEANING_TOKENS = 8, 14, 6, 24, 60
"""Parts of an answer, clauses of a description, near misses: each costs questions; of a demand, and of a meaning."""
_READINGS, _TEMPERATURE = 3, 0.7
"""Of a template, of which the one that comes most often is taken: the first is greedy."""
_OPEN_END = 3
"""A range without an upper end goes to so many times its lower one: code has to draw some number, and no text names
it."""
_APART = 0.2
"""Of the probability that a message is of the kind: a near miss is so much below every example, or it may be one."""
_ORDINARY = ("What is the tallest mountain on earth?", "Tell me a joke about penguins.", "Why is the sky blue?")
_VALUE = object_of(value=TEXT, means=TEXT)
_RANGE = object_of(value=TEXT, lowest=NUMBER, highest=NUMBER)
_COUNTED = re.compile(r"(at most|at least|exactly) (\d{1,4}) (words|characters|lines|sentences)")
_QUOTING = re.compile(r'(begins with|ends with|every line begins with|never says) "(.*)"')
_ENCLOSED = r'"[^"\n]*"|“[^”\n]*”|「[^」\n]*」|\([^()\n]*\)|(?<!\w)\'[^\'\n]*\'(?!\w)|(?<=\d)[.,:](?=\d)'
_CLAUSE = re.compile(rf"(?:{_ENCLOSED}|[^,;:.。，；：、\n])+")
"""A clause of a description: up to a mark that ends one and that no quotation, bracket or number holds."""


@dataclass(frozen=True, slots=True)
class WordsRead:
    """What a model read out of a user's words, and what of it did not hold, a sentence each."""

    proposal: Proposal
    left_out: tuple[str, ...] = ()
    questions: int = 0


def read(spec: Spec, stated: Proposal, ask: Ask, model: str) -> WordsRead:
    """Read the words of a spec that is not complete; what its file states as data stays as it is stated."""
    return _Reader(spec, stated, ask, model).read()


@dataclass(slots=True)
class _Reader:
    spec: Spec
    stated: Proposal
    ask: Ask
    model: str
    left_out: list[str] = field(default_factory=list)
    questions: int = 0

    def read(self) -> WordsRead:
        """One round for what no other answer is needed for, then the parts of the answer, then near misses.

        Demands are asked for clause by clause, so that each one has the words that say it.
        """
        spec = self.spec
        clauses = [*clauses_of(spec.what), *(f"never: {clause}" for clause in clauses_of(spec.never))][:_CLAUSES_MAX]
        messages = "\n".join(example.prompt for example in spec.examples)
        prompts = [as_data(e.prompt[:_EXAMPLE_CHARACTERS]) for e in spec.examples[:_EXAMPLES_ASKED]]
        answers = self._asked(
            *([] if spec.near_misses else [question("applies", [f"When: {spec.when}"], self.model)]),
            question("language", prompts, self.model),
            *(
                question("demand", [clause], self.model, identity=f"demand/{n}", tokens=_DEMAND_TOKENS)
                for n, clause in enumerate(clauses)
            ),
        )
        applies = "kind" if spec.near_misses else word_in(answers, "applies").lower()
        language = word_in(answers, "language")
        if applies not in ("all", "kind"):
            self.left_out.append("your words do not say clearly whether it applies to every message: taken as to some")
        if not may_be_in(messages, language):
            language = other_language(messages, frozenset())
        checks = ((clause, self._demand(clause, word_in(answers, f"demand/{n}"))) for n, clause in enumerate(clauses))
        demands = [(clause, check) for clause, check in checks if check is not None]
        # a word or two; what is longer is no language
        known = {"every_message": applies == "all", "language": language[:40]}
        proposal = self._formed(self.stated.model_copy(update=known), demands)
        if applies != "all" and not spec.near_misses:
            proposal = proposal.model_copy(update={"near_misses": self._near_misses(language or "English")})
        return WordsRead(proposal, tuple(self.left_out), self.questions)

    def _asked(self, *requests: ChatRequest) -> Mapping[str, ChatResponse]:
        self.questions += len(requests)
        return self.ask(requests) if requests else {}

    @property
    def _words(self) -> str:
        fields = (self.spec.say, self.spec.when, self.spec.what, self.spec.never)
        return "\n".join([*fields, *(f"{part.name}: {part.means}" for part in self.stated.parts)])

    def _quoted(self, text: str) -> bool:
        """Whether a text is a piece of the user's own words."""
        return bool(text.strip()) and fuzz.partial_ratio(text.casefold(), self._words.casefold()) >= _QUOTED

    # What the answers are made of

    def _formed(self, proposal: Proposal, demands: Sequence[tuple[str, Check]]) -> Proposal:
        """The proposal with the form of the answers and their parts; free text where no form gives the examples.

        A demand whose clause names a part is one of this part alone.
        """
        answers = [example.answer for example in self.spec.examples]
        as_json = bool(json_examples(self.spec.examples))
        if not self.stated.shapes and not as_json and len(set(answers)) > 1:
            if self._listed(answers):
                proposal = proposal.model_copy(update={"template": "{label}", "parts": (Part(name="label"),)})
            elif template := self._template(answers):
                proposal = proposal.model_copy(update={"template": template})
            else:
                proposal = proposal.model_copy(update={"form": "written"})
        pairs = fields_of(self.spec, proposal)
        whole = dict.fromkeys(check for clause, check in demands if not any(holds(clause, name) for name in pairs))
        proposal = proposal.model_copy(update={"checks": (*proposal.checks, *whole)})
        if not pairs:
            return proposal
        typed = tuple(_limited(part, demands) for part in self._classified(pairs, proposal))
        if as_json or any(part.kind != "text" for part in typed):
            return proposal.model_copy(update={"parts": typed})
        begins, ends = proposal.template.split("{")[0], proposal.template.split("}")[-1]
        frame = [Check(kind="begins with", text=begins)] if begins.strip() else []
        frame += [Check(kind="ends with", text=ends)] if ends.strip() else []
        checks = dict.fromkeys((*proposal.checks, *frame))
        return proposal.model_copy(update={"form": "written", "template": "", "checks": tuple(checks)})

    def _listed(self, values: Sequence[str]) -> bool:
        """Whether values are such as a description lists: short, and each in the user's words, or there twice."""
        counts = Counter(values)
        return len(counts) > 1 and all(
            len(value) <= _LABEL_CHARACTERS and "\n" not in value and (holds(self._words, value) or count > 1)
            for value, count in counts.items()
        )

    def _template(self, answers: Sequence[str]) -> str:
        """The template that gives every example and that most readings came to; empty where none does."""
        lines = [f"The answer: {self.spec.what}", *map(as_data, answers[:_EXAMPLES_ASKED])]
        for turn in range(2):
            requests = [
                question("template", lines, self.model, object_of(template=TEXT), identity=f"template/{turn}/{n}",
                         temperature=_TEMPERATURE * (n > 0), seed=n)
                for n in range(_READINGS)
            ]  # fmt: skip
            read = self._asked(*requests)
            templates = [str(object_in(read, request.id).get("template") or "").strip() for request in requests]
            attempts = [(template, *fitted(answers, template)) for template in templates if template]
            if fitting := [template for template, shape, _ in attempts if shape and len(shape.names) <= _PARTS_MAX]:
                return Counter(fitting).most_common(1)[0][0]
            if not attempts or 2 * templates.count("") > len(templates):
                return ""
            template, _, why = attempts[0]
            lines.append(f"{as_data(template)} is wrong: {why}. Write the right template.")
        self.left_out.append(f"the template {template!r}: {why}; the answers are taken as written freely")
        return ""

    # Its parts

    def _classified(self, pairs: Mapping[str, Pairs], proposal: Proposal) -> tuple[Part, ...]:
        """Each part with its kind, by what its values in the examples show; of a choice its values."""
        classified = [self._part(proposal.part(name), pairs[name], proposal) for name in pairs]
        bare = [part for part in classified if part.kind == "label" and not part.values and not proposal.labels]
        labels = self._values(bare, pairs)
        classified = [part.model_copy(update={"values": labels.get(part.name, part.values)}) for part in classified]
        return tuple(self._ranged(part, pairs[part.name]) for part in classified)

    def _part(self, part: Part, pairs: Pairs, proposal: Proposal) -> Part:
        """A part with its kind, as its values in the examples show it, and with what stands for a missing value."""
        if (odd := odd_value(pairs)) and not part.missing and holds(self._words, odd):
            part = part.model_copy(update={"missing": odd})
        if part.kind or part.values:
            return part
        attribute = attribute_of(part, pairs, {}, [])
        seen = [value for _, value in pairs if value is not None and value != attribute.absent_as]
        label = self._listed(seen) or (bool(proposal.labels) and set(seen) <= set(proposal.labels))
        return part.model_copy(update={"kind": "label" if label and attribute.kind != "weekday" else attribute.kind})

    def _values(self, labels: Sequence[Part], pairs: Mapping[str, Pairs]) -> dict[str, dict[str, Value]]:
        """The values of each label: those of the examples, and those that stand in the user's words."""
        seen = {part.name: list(dict.fromkeys(v for _, v in pairs[part.name] if v is not None)) for part in labels}
        answers = self._asked(*(
            question("values", [f"The answer: {self.spec.what}", _part_line(part, seen[part.name])], self.model,
                     list_of(_VALUE, VALUES_MAX), identity=f"values/{part.name}")
            for part in labels
        ))  # fmt: skip
        read: dict[str, dict[str, str]] = {}
        for name, examples in seen.items():
            spelled = {value.casefold(): value for value in examples}
            read[name] = dict.fromkeys(examples, "")
            for item in items_in(answers, f"values/{name}", dict):
                value, means = (str(item.get(key) or "").strip() for key in ("value", "means"))
                value = spelled.get(value.casefold(), value)
                if value and value not in read[name] and not holds(self._words, value):
                    self.left_out.append(f"{value!r} as a value of {name}: neither your words nor an example say it")
                elif value:
                    read[name][value] = self._meaning(value, means)
        return {
            name: {value: Value(means=means) for value, means in self._asked_apart(values).items()}
            for name, values in read.items()
        }

    def _asked_apart(self, values: Mapping[str, str]) -> dict[str, str]:
        """The same, each value without a meaning asked about by itself: a small model copies one clause better than a
        list of them."""
        values = _meaning_one(values)
        asked = {f"meaning/{value}": value for value, means in values.items() if not means}
        answers = self._asked(*(
            question("meaning", [f"The answer: {self.spec.what}", f"The value: {value}"], self.model,
                     identity=identity, tokens=_MEANING_TOKENS)
            for identity, value in asked.items()
        ))  # fmt: skip
        copied_now = {value: self._meaning(value, word_in(answers, identity)) for identity, value in asked.items()}
        return _meaning_one(values | copied_now)

    def _meaning(self, value: str, means: str) -> str:
        """What a model copied as the meaning of a value, where it stands in the user's words and says more than it."""
        return means if self._quoted(means) and means.casefold() != value.casefold() else ""

    def _ranged(self, part: Part, pairs: Pairs) -> Part:
        """A label with the numbers that decide it, where every message of the examples holds one that agrees."""
        numbers = [(numbers_in(message), value) for message, value in pairs]
        if part.kind != "label" or len(part.values) < 2 or 2 * sum(bool(there) for there, _ in numbers) < len(numbers):
            return part
        lines = [f"The answer: {self.spec.what}", f"The values: {', '.join(map(as_data, part.values))}"]
        identity = f"ranges/{part.name}"
        asked = question("ranges", lines, self.model, list_of(_RANGE, VALUES_MAX), identity=identity)
        ranges: dict[str, tuple[int, int]] = {}
        for item in items_in(self._asked(asked), identity, dict):
            low, high = item.get("lowest"), item.get("highest")
            if item.get("value") in part.values and (isinstance(low, int) or isinstance(high, int)):
                low = low if isinstance(low, int) else 1
                seen = [number for there, value in numbers for number in there if value == item["value"]]
                # 4: of one or two a range would be no guess
                ranges[str(item["value"])] = (low, high if isinstance(high, int) else max(low * _OPEN_END, *seen, 4))
        for there, value in numbers:
            low, high = ranges.get(str(value), (0, 0))
            if there and value in ranges and not any(low <= number <= high for number in there):
                self.left_out.append(f"that {value} is {low} to {high}: an example has {there[0]}")
                return part
        between = {name: of.model_copy(update={"between": ranges.get(name)}) for name, of in part.values.items()}
        return part.model_copy(update={"values": between})

    # What every answer keeps, and what only looks alike

    def _demand(self, clause: str, answered: str) -> Check | None:
        """A demand that stands in its clause: the number of it where it has one, and the very text."""
        if counted := _COUNTED.fullmatch(answered):
            kind, count, unit = counted.groups()
            digits = re.findall(r"\d+", clause)
            if unit == "sentences":
                self.left_out.append(f"{clause!r}: code counts no sentences, a judge reads them")
            elif not digits or count in digits:
                return Check.model_validate({"kind": kind, "count": int(count), "unit": unit})
        elif (quoted := _QUOTING.fullmatch(answered)) and quoted[2].strip():
            kind, text = quoted.groups()
            if text in clause or not any(map(str.isalnum, text)):
                return Check.model_validate({"kind": kind, "text": text})
            self.left_out.append(f"{kind} {text!r}: {clause!r} does not say so")
        return None

    def _near_misses(self, language: str) -> tuple[str, ...]:
        """Messages that look alike, each told from all examples by a model that tells these from ordinary messages."""
        spec = self.spec
        example = as_data(spec.examples[0].prompt[:_EXAMPLE_CHARACTERS])
        lines = [f"It applies when: {spec.when}", f"For instance: {example}", f"Write them in {language}."]
        asked = question("near-misses", lines, self.model, list_of(TEXT, _NEAR_MISSES))
        items = items_in(self._asked(asked), "near-misses", object)
        near = list(dict.fromkeys(str(text).strip() for text in items if str(text).strip()))
        examples = [example.prompt for example in spec.examples[:_EXAMPLES_ASKED]]
        texts = [*examples, *_ORDINARY, *near] if near else []
        requests = [kind_request(spec, text, (), self.model, f"kind/{n}") for n, text in enumerate(texts)]
        answers = self._asked(*requests)
        kinds = [yes(answers[request.id]) if request.id in answers else 1.0 for request in requests]
        least = min(kinds[: len(examples)], default=0.0)
        if near and max(kinds[len(examples) : len(examples) + len(_ORDINARY)]) > least - _APART:
            self.left_out.append("near misses: the model cannot tell your examples from ordinary messages")
            return ()
        known = stems("\n".join([spec.when, spec.say, *examples]))
        alike = [(text, kind) for text, kind in zip(texts, kinds, strict=True) if text in near and stems(text) & known]
        return tuple(text for text, kind in alike if kind <= least - _APART)


def _limited(part: Part, demands: Sequence[tuple[str, Check]]) -> Part:
    """A part with the most words that a demand on it allows."""
    most = [check.count for clause, check in demands if holds(clause, part.name) and check.kind != "at least"
            and check.unit == "words" and check.count]  # fmt: skip
    return part.model_copy(update={"words_max": most[0]}) if most and not part.words_max else part


def clauses_of(text: str) -> list[str]:
    """A description in clauses, as its marks part it."""
    return [clause for match in _CLAUSE.finditer(text) if any(map(str.isalnum, clause := match[0].strip()))]


def _meaning_one(values: Mapping[str, str]) -> dict[str, str]:
    """Values with their meanings, but for those that two have: they tell nothing apart."""
    often = Counter(values.values())
    return {value: means if often[means] == 1 else "" for value, means in values.items()}


def _part_line(part: Part, seen: Sequence[str]) -> str:
    samples = ", ".join(map(as_data, seen[:_EXAMPLES_ASKED]))
    return f"The part {part.name}{part.means and f' ({part.means})'}, in the examples {samples}"

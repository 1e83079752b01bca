"""A user's words, read by a model: small questions, each answer held to the words and the examples before it counts.

The model only proposes. A template has to give every example, a value has to stand in the user's words or examples, a
meaning and a demand have to be quoted from the words. What fails is asked for once more, with what failed; what still
fails is left out and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from tunesmith.tools.data.answer_rules import Check
from tunesmith.tools.data.answer_shape import WRITTEN, Shape, fitted, json_shape
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.ranges import numbers_in
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.data.spec import Kind, Spec, Value
from tunesmith.tools.data.typed_values import holds
from tunesmith.tools.data.verify import VALUES_MAX, Pairs, copied, pairs_of, shape_of
from tunesmith.tools.data.word_questions import (
    NUMBER,
    TEXT,
    Ask,
    Words,
    answer_of,
    chosen,
    data,
    items_of,
    list_of,
    object_of,
)
from tunesmith.tools.serving.client import ChatRequest

_LABEL_CHARACTERS = 40
_PARTS_MAX, _CHECKS_MAX, _NEAR_MISSES = 8, 6, 6
_READINGS, _TEMPERATURE = 3, 0.7
"""Of a template: the first is greedy."""
_OPEN_END = 3
"""A range without an upper end goes to so many times its lower one."""
_APPLIES = {"every": "every message, whatever it is about", "some": "only messages of a certain kind"}
_MISSING = {
    "said": "the message says it, in other words",
    "not": "the message does not say it, and this is what the answer shows then",
}
_VALUE = object_of(value=TEXT, when=TEXT)
_RANGE = object_of(value=TEXT, lowest=NUMBER, highest=NUMBER)
_CHECK = object_of(
    words=TEXT,
    kind={"enum": list(Check.model_json_schema()["properties"]["kind"]["enum"])},
    count=NUMBER,
    unit={"enum": ["words", "characters", "lines", None]},
    text=TEXT,
)


_SAID_OF = {True: ("kind", "count", "unit"), False: ("kind", "text")}
"""What counts of a demand, by whether it is of a number."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model read out of a user's words, and what of it did not hold, a sentence each."""

    proposal: Proposal
    left_out: tuple[str, ...] = ()
    questions: int = 0


def read(spec: Spec, stated: Proposal, ask: Ask, model: str) -> Reading:
    """Read the words of a spec that is not complete; what its file states as data stays as it is stated."""
    return _Reader(Words(spec, stated, model), ask).read()


@dataclass(slots=True)
class _Reader:
    words: Words
    ask: Ask
    left_out: list[str] = field(default_factory=list)
    questions: int = 0

    @property
    def spec(self) -> Spec:
        return self.words.spec

    def read(self) -> Reading:
        """One round for what no other answer is needed for, then the parts of the answer, then near misses."""
        forms = self._forms()
        requests = [*self.words.choice("form", forms), *self.words.choice("applies", _APPLIES)]
        requests += [
            self.words.request("checks", list_of(_CHECK, _CHECKS_MAX)),
            self.words.request("language", object_of(language=TEXT)),
        ]
        answers = self._asked(requests)
        applies = chosen("applies", _APPLIES, answers)
        if not applies:
            self.left_out.append("your words do not say clearly whether it applies to every message: taken as to some")
        language = str(answer_of(answers, "language").get("language") or "").strip()
        proposal = self.words.stated.model_copy(
            update={"every_message": applies == "every", "checks": self._checks(answers), "language": language[:40]}
        )
        proposal = self._formed(chosen("form", forms, answers), forms, proposal)
        if applies != "every":
            proposal = proposal.model_copy(update={"near_misses": self._near_misses(language or "English")})
        return Reading(proposal, tuple(self.left_out), self.questions)

    def _asked(self, requests: Sequence[ChatRequest]) -> Mapping[str, str]:
        self.questions += len(requests)
        return self.ask(requests) if requests else {}

    # What the answers are made of

    def _forms(self) -> dict[str, str]:
        """The forms that the examples leave to choose from; none where there is no choice."""
        answers = [example.answer for example in self.spec.examples]
        if self.words.stated.shapes or json_shape(answers) is not None or len(set(answers)) == 1:
            return {}
        forms = {
            "parts": "every answer is put together of the same parts, in the same order, with the same text around"
        }
        if not any("\n" in answer or len(answer) > _LABEL_CHARACTERS for answer in answers):
            forms["values"] = "every answer is one of a few fixed words or texts, with nothing beside it"
        return {**forms, "free": "every answer is written freely, in words that fit its message"}

    def _formed(self, form: str, forms: Mapping[str, str], proposal: Proposal) -> Proposal:
        """The proposal with the form of the answers and their parts."""
        if form == "values":
            proposal = proposal.model_copy(update={"template": "{label}", "parts": (Part(name="label", kind="label"),)})
        elif form == "parts" and (template := self._template()):
            proposal = proposal.model_copy(update={"template": template})
        elif forms:
            why = (
                "" if form == "free" else "no template gives every answer" if form else "your words do not say clearly"
            )
            self.left_out += [f"what the answers are made of: {why}; taken as written freely"] if why else []
            return proposal.model_copy(update={"form": "written"})
        shape = shape_of(self.spec, proposal)
        return proposal if shape == WRITTEN else proposal.model_copy(update={"parts": self._parts(shape, proposal)})

    def _template(self) -> str:
        """The template that gives every example and that most readings came to; empty where none does."""
        texts, again = [example.answer for example in self.spec.examples], ""
        for turn in range(2):
            asked = self.words.request("template", object_of(template=TEXT), again=again)
            requests = [
                replace(asked, id=f"template/{turn}/{n}", temperature=_TEMPERATURE * (n > 0), seed=n)
                for n in range(_READINGS)
            ]
            answers = self._asked(requests)
            read = [str(answer_of(answers, request.id).get("template") or "").strip() for request in requests]
            shapes = [(template, *fitted(texts, template)) for template in read]
            if fitting := [template for template, shape, _ in shapes if shape and len(shape.names) <= _PARTS_MAX]:
                return Counter(fitting).most_common(1)[0][0]
            again = f'\n"{shapes[0][0]}" is wrong: {shapes[0][2]}. Write it anew.'
        return ""

    # Its parts

    def _parts(self, shape: Shape, proposal: Proposal) -> tuple[Part, ...]:
        """Each part with what kind it is; of a choice its values, with their meanings and ranges."""
        pairs = {name: pairs_of(self.spec, shape, name) for name in shape.names}
        kinds = {name: self._kinds(proposal.part(name), pairs[name]) for name in shape.names}
        shown = {name: ", ".join(map(data, seen_in(pairs[name]))) for name in shape.names}
        missing = {name: odd_value(pairs[name]) for name in shape.names}
        requests = [
            request
            for name in shape.names
            for request in (
                *self.words.choice("part", kinds[name], f"part/{name}", name=name, values=shown[name]),
                *(self._missing(name, missing[name]) if missing[name] else ()),
            )
        ]
        answers, parts = self._asked(requests), []
        for name in shape.names:
            kind = chosen(f"part/{name}", kinds[name], answers)
            if not kind and kinds[name]:
                self.left_out.append(f"what kind of part {name} is: your words do not say clearly; taken by its values")
            lacks = missing[name] if chosen(f"missing/{name}", _MISSING, answers) == "not" else ""
            found = {"kind": _KINDS[kind]} if kind in _KINDS else {}
            parts.append(proposal.part(name).model_copy(update=found | ({"missing": lacks} if lacks else {})))
        labels = self._values({p.name: pairs[p.name] for p in parts if p.kind == "label" and not p.values}, shown)
        parts = [part.model_copy(update={"values": labels.get(part.name, part.values)}) for part in parts]
        return tuple(self._ranged(part, pairs[part.name]) for part in parts)

    def _missing(self, name: str, value: str) -> list[ChatRequest]:
        return self.words.choice("missing", _MISSING, f"missing/{name}", name=name, value=data(value))

    def _kinds(self, part: Part, pairs: Pairs) -> dict[str, str]:
        """The kinds that the values of a part in the examples leave to choose from; none where it is stated."""
        seen = seen_in(pairs)
        if part.kind == "label":
            return {"choice": ""}
        if part.kind or part.values or not seen or set(seen) <= {"true", "false"}:
            return {}
        kinds = {"words": "other words for what the message says"}
        if all(len(value) <= _LABEL_CHARACTERS for value in seen):
            kinds["choice"] = "one of a few fixed values, the same few for all messages"
        odd = odd_value(pairs)
        if copied([(message, value) for message, value in pairs if value != odd]):
            kinds["copied"] = "a piece of the message, copied letter for letter"
        return kinds

    def _values(self, labels: Mapping[str, Pairs], shown: Mapping[str, str]) -> dict[str, dict[str, Value]]:
        """The values of each label: those of the examples, and those that stand in the user's words."""
        requests = [
            self.words.request("values", list_of(_VALUE, VALUES_MAX), f"values/{name}", name=name, values=shown[name])
            for name in labels
        ]
        answers, made = self._asked(requests), {}
        for name, pairs in labels.items():
            seen = {value.casefold(): value for value in seen_in(pairs)}
            values = {value: Value() for value in seen.values()}
            for item in items_of(answers, f"values/{name}"):
                value, when = (str(item.get(key) or "").strip() for key in ("value", "when"))
                value = seen.get(value.casefold(), value)
                if value not in values and value.casefold() not in self.words.description.casefold():
                    self.left_out += [f"{value!r} as a value of {name}: neither your words nor an example say it"]
                elif value:
                    means = when if self.words.quoted(when) and normal(when) != normal(value) else ""
                    values[value] = Value(means=means)
            made[name] = values
        return made

    def _ranged(self, part: Part, pairs: Pairs) -> Part:
        """A label with the numbers that decide it, where every message of the examples holds one that agrees."""
        if part.kind != "label" or len(part.values) < 2 or not all(numbers_in(message) for message, _ in pairs):
            return part
        identity, values = f"ranges/{part.name}", ", ".join(map(data, part.values))
        request = self.words.request("ranges", list_of(_RANGE, VALUES_MAX), identity, name=part.name, values=values)
        ranges: dict[str, tuple[int, int]] = {}
        for item in items_of(self._asked([request]), identity):
            low, high = item.get("lowest"), item.get("highest")
            if item.get("value") in part.values and (low is not None or high is not None):
                low = int(low) if low is not None else 1
                ranges[item["value"]] = (low, int(high) if high is not None else max(low + 3, low * _OPEN_END))
        agree = all(
            any(ranges[value][0] <= number <= ranges[value][1] for number in numbers_in(message))
            for message, value in pairs
            if value in ranges
        )
        if not ranges or not agree:
            return part
        values_ = {name: of.model_copy(update={"between": ranges.get(name)}) for name, of in part.values.items()}
        return part.model_copy(update={"values": values_})

    # What every answer keeps, and what only looks alike

    def _checks(self, answers: Mapping[str, str]) -> tuple[Check, ...]:
        """The demands that quote the user's words."""
        checks = []
        for item in items_of(answers, "checks"):
            quote, said = (
                str(item.get("words") or ""),
                {key: item.get(key) for key in ("kind", "count", "unit", "text")},
            )
            counted = said["kind"] in ("at most", "at least", "exactly")
            try:
                check = Check.model_validate({**said, "text": "" if counted else str(said["text"] or "")} | (
                    {} if counted else {"count": None, "unit": None}))  # fmt: skip
            except ValidationError:
                continue
            if self.words.quoted(quote) and (counted or self.words.quoted(check.text)):
                checks.append(check)
        return tuple(dict.fromkeys(checks))

    def _near_misses(self, language: str) -> tuple[str, ...]:
        """Messages that look alike and that the model itself does not take for the kind, by either order of asking."""
        asked = self._asked([self.words.request("near-misses", list_of(TEXT, _NEAR_MISSES), language=language)])
        texts = list(dict.fromkeys(str(text).strip() for text in items_of(asked, "near-misses") if str(text).strip()))
        options = {"yes": "it is of that kind", "no": "it is of another kind"}
        requests = [
            request
            for n, text in enumerate(texts)
            for request in self.words.choice("kind", options, f"kind/{n}", when=self.spec.when, message=data(text))
        ]
        answers = self._asked(requests)
        return tuple(text for n, text in enumerate(texts) if chosen(f"kind/{n}", options, answers) == "no")


_KINDS: Mapping[str, Kind] = {"choice": "label", "copied": "copied", "words": "text"}


def odd_value(pairs: Pairs) -> str:
    """The one value that does not stand in its message where most others do; empty where it is not like that."""
    odd = {value for message, value in pairs if value and not holds(message, value) and any(map(str.isalnum, value))}
    rest = [(message, value) for message, value in pairs if value not in odd]
    return odd.pop() if len(odd) == 1 and copied(rest) and 2 * len(rest) > len(pairs) else ""


def seen_in(pairs: Pairs) -> list[str]:
    """The values of a part in the examples, each once, but for none."""
    return list(dict.fromkeys(value for _, value in pairs if value is not None))

"""The reader at work: tried out on the user's examples first, then asked about every message that was written."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from pydantic import Field

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.reading import (
    BIAS_MOST,
    NOTHING,
    Disagreement,
    answer_request,
    answer_shots,
    bias_of_known,
    calibrated,
    copies,
    disagreements,
    kind_request,
    label_request,
    least_margin,
    margin,
    none_of,
    probabilities,
    reads_whole,
    right_where_two_agree,
    value_in,
    value_margins,
    yes,
)
from tunesmith.tools.data.record_values import Values
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.writer_requests import Shot
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.requests import Asker

WHOLE = "the answer"
"""What margins call that which is read of a whole answer."""
_SURE, _CUT_SHARE = 1.5, 0.5
"""Log-odds, in nats, that are sure for a label, over four to one; of the margin that examples have, what a message
needs: its words are not as plain as those that a person chose to show."""
_FEW, _BIAS_SHARE, _EPSILON = 20, 0.5, 0.01
"""Messages from which on a reader's bias is known; what of it is taken off; a share that keeps logarithms finite."""
_ENOUGH, _BORNE_OUT = 60, 0.9
"""Messages from which on writer and reader can bear each other out, and the share that is right where they agree:
on fewer their agreement is chance."""
_LABEL_RIGHT, _NO_SHARE, _KIND_SHOTS, _KIND_TRIAL = 0.6, 0.75, 3, 16
"""Share of the examples read right from which a reading counts; share of ordinary prompts that are told as such;
ordinary prompts that requests show, and that the reader is tried on; of the usual five examples three."""


class Trust(Frozen):
    """What the reader can tell, as tried out on the user's own examples; what it cannot is not asked of it."""

    labels: dict[str, float] = Field(default_factory=dict)
    """Label → share of the examples that it reads right."""
    cuts: dict[str, float] = Field(default_factory=dict)
    """Label → margin from which its reading of a message is sure enough, by how sure it is of the examples."""
    answers: float = 0.0
    """Share of the examples whose whole answer it reads right; 0 where that is not asked."""
    kind_yes: float = 0.0
    """Share of the examples that it takes for the kind."""
    kind_no: float = 0.0
    """Share of ordinary prompts that it does not take for the kind."""
    kind_least: float = 0.0
    """Of the examples, the lowest probability that it gives to one being of the kind."""
    kind_cut: float = 0.5
    """Probability of yes from which a message counts as of the kind."""

    def label(self, name: str) -> bool:
        """Whether its reading of a label counts."""
        return self.labels.get(name, 0.0) >= _LABEL_RIGHT

    @property
    def kind(self) -> bool:
        """Whether its word on what is of the kind counts."""
        return self.kind_yes == 1 and self.kind_no >= _NO_SHARE

    @property
    def reads_answers(self) -> bool:
        """Whether its reading of whole answers counts."""
        return self.answers >= _LABEL_RIGHT


@dataclass(frozen=True, slots=True)
class ToRead:
    """A written message and what was drawn for it."""

    identity: str
    message: str
    values: Values
    whole: bool = False
    """Whether its whole answer has to be read: it lacks a drawn value, or none was drawn."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of a message."""

    differing: tuple[Disagreement, ...] = ()
    """Where it is not what was drawn."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """Of what was read, attribute → the log-odds, in nats, of the value that was read against the next."""
    untried: frozenset[str] = frozenset()
    """Labels that it got wrong too often in the examples: that it agrees says something, its own word nothing."""

    @property
    def margin(self) -> float | None:
        """The least of them; None where nothing was read with a likelihood."""
        return min(self.margins.values(), default=None)


class Reader:
    """Reads messages back; `sentences` are the shots of an answer that is a list."""

    def __init__(
        self, spec: Spec, asker: Asker, ordinary: Sequence[str], seed: int, sentences: Sequence[Shot] = ()
    ) -> None:
        """Tries the reader out at once: `trust` says what of it counts."""
        self.spec, self.asker = spec, asker
        shuffled = random.Random(f"{seed}/ordinary").sample(list(ordinary), len(ordinary))
        self.others, self.trial_prompts = shuffled[:_KIND_SHOTS], shuffled[_KIND_SHOTS : _KIND_SHOTS + _KIND_TRIAL]
        self.shots = answer_shots(spec, sentences)
        self.whole = reads_whole(spec)
        self.can_read = self.whole or copies(spec)
        self.bias: dict[str, dict[str, float]] = {}
        """Label → value → what the reader has for it, in nats, whatever a message says."""
        self.counts: dict[str, dict[str, dict[str, int]]] = {}
        """Attribute → as drawn → as read → how often: labels by their values, others by whether they agree."""
        self._labels = [a for a in spec.labels if a.shown] if not form_of(spec).of_records else []
        self.kind_label = self._labels[0] if self._labels else None
        self.trust = self._trial()

    def _count(self, attribute: str, drawn: str, read: str) -> None:
        counts = self.counts.setdefault(attribute, {}).setdefault(drawn, {})
        counts[read] = counts.get(read, 0) + 1

    def read(self, messages: Sequence[ToRead], turn: int = 0) -> dict[str, Reading]:
        """What is read of each message; `turn` orders the examples of whole answers."""
        differing: dict[str, list[Disagreement]] = {one.identity: [] for one in messages}
        margins: dict[str, dict[str, float]] = {one.identity: {} for one in messages}
        self._read_labels(messages, differing, margins)
        whole = [one for one in messages if self.whole or (one.whole and self.can_read)]
        if self.trust.reads_answers and whole:
            self._read_answers(whole, turn, differing, margins)
        untried = frozenset(self.apart - self.verified)
        return {name: Reading(tuple(differences), margins[name], untried) for name, differences in differing.items()}

    def _read_labels(
        self,
        messages: Sequence[ToRead],
        differing: dict[str, list[Disagreement]],
        margins: dict[str, dict[str, float]],
    ) -> None:
        """One request for each label of a message, all at once."""
        asked = {
            f"r/{label.name}/{one.identity}": (label, one)
            for label in self.spec.labels
            for one in messages
            if label.name in self.apart and one.values.get(label.name)
        }
        requests = [
            label_request(self.spec, label, one.message, self.others, self.asker.model, name)
            for name, (label, one) in asked.items()
        ]
        answers = self.asker.ask(requests, "reading back")
        for label in self.spec.labels:
            read = [
                (one.values[label.name] or "", answers[n])
                for n, (of, one) in asked.items()
                if of is label and n in answers
            ]
            if label.name not in self.bias and len(read) >= _FEW:
                self.bias[label.name] = _bias(label, read)
        for name, (label, one) in asked.items():
            drawn, value = one.values[label.name] or "", NOTHING
            if name in answers:
                value, margins[one.identity][label.name] = self._label_in(label, answers[name])
            self._count(label.name, drawn, value)
            cut = self.trust.cuts.get(label.name, 0.0) if label.name in self.verified else 0.0
            if value != drawn or margins[one.identity][label.name] < cut:
                differing[one.identity].append(Disagreement(label.name, drawn, value))

    def _label_in(self, label: Attribute, response: ChatResponse) -> tuple[str, float]:
        """What was read of a label, NOTHING where it has no value, and by how much that is likelier than the next."""
        no_value = none_of(label)
        likely = calibrated(probabilities(response, [*label.values, no_value]), self.bias.get(label.name, {}))
        value = max(likely, key=lambda value: likely[value])
        return NOTHING if value == no_value else value, margin(likely, value)

    def _read_answers(
        self,
        messages: Sequence[ToRead],
        turn: int,
        differing: dict[str, list[Disagreement]],
        margins: dict[str, dict[str, float]],
    ) -> None:
        """One request for the whole answer of each message, held to its form."""
        requests = [
            answer_request(self.spec, one.message, self.shots, self.asker.model, f"r/answer/{one.identity}", turn)
            for one in messages
        ]
        answers = self.asker.ask(requests, "reading back")
        for one, request in zip(messages, requests, strict=True):
            if request.id not in answers:
                differing[one.identity].append(Disagreement("answer", "drawn", "not answered"))
                continue
            response = answers[request.id]
            reading = self._parsed(response.text)
            differences = self._differing(one.values, one.message, reading)
            differing[one.identity] += differences
            if (least := least_margin(response)) is not None:
                margins[one.identity] = {**value_margins(self.spec, response), WHOLE: least, **margins[one.identity]}
            self._count_answer(one.values, reading or {}, {d.attribute for d in differences})

    @property
    def verified(self) -> set[str]:
        """The labels whose reading counts by itself."""
        return {label.name for label in self._labels if self.trust.label(label.name)}

    @property
    def apart(self) -> set[str]:
        """The labels that are read by themselves, for a choice of a few is told better than a whole answer.

        Those also that the reader cannot be trusted with, where nothing else reads them: a row is likelier to be right
        where two requests agree on it, the one that wrote it and the one that reads it, than where the two differ.
        """
        if self._reads_whole:
            return self.verified
        return {label.name for label in self._labels if self.trust.labels.get(label.name)}

    @property
    def _reads_whole(self) -> bool:
        return self.whole and self.trust.reads_answers

    @property
    def unverified(self) -> list[str]:
        """What the answer shows and neither code nor this reader can find in a message: it is drawn, and only hoped."""
        if not form_of(self.spec).composed or self._reads_whole:
            return []
        read = [a for a in self.spec.attributes if a.shown and (a.attributes or a.kind in ("label", "text"))]
        return [a.name for a in read if a.name not in self.verified and not self._borne_out(a)]

    def _borne_out(self, label: Attribute) -> bool:
        """Whether the writer's labels and this reader's agree so often that rows on which they do are right."""
        counts = self.counts.get(label.name, {}) if label.name in self.apart else {}
        agreed = sum(read.get(drawn, 0) for drawn, read in counts.items())
        messages = sum(sum(read.values()) for read in counts.values())
        return messages >= _ENOUGH and right_where_two_agree(agreed, messages) >= _BORNE_OUT

    def _differing(self, values: Values, message: str, reading: Values | None) -> list[Disagreement]:
        differences = disagreements(self.spec, values, message, reading)
        return [one for one in differences if one.attribute not in self.apart]

    def _count_answer(self, drawn: Values, reading: Values, differ: set[str]) -> None:
        """Count what was read of an answer against what was drawn."""
        for attribute in self.spec.attributes:
            if not attribute.shown or attribute.typed or not attribute.plain or attribute.kind == "computed":
                continue
            if attribute.kind == "label":
                self._count(attribute.name, str(drawn.get(attribute.name)), str(reading.get(attribute.name)))
            else:
                there = "nothing" if drawn.get(attribute.name) is None else "something"
                self._count(attribute.name, there, "other" if attribute.name in differ else there)

    def _parsed(self, text: str) -> Values | None:
        records = form_of(self.spec).parse(text)
        return records[0] if records else None

    def of_kind(self, messages: Mapping[str, str]) -> dict[str, float]:
        """Of each message, the probability that it is of the kind; empty where the reader cannot tell.

        Nor is it asked where a label is read: that a message has none of its values tells as much.
        """
        return self._of_kind(messages) if self.trust.kind and not self.apart else {}

    def _of_kind(self, messages: Mapping[str, str]) -> dict[str, float]:
        requests = [self._kind_request(text, f"k/{identity}") for identity, text in messages.items()]
        answers = self.asker.ask(requests, "telling what is of the kind")
        return {name: self._kind_in(answers[f"k/{name}"]) for name in messages if f"k/{name}" in answers}

    def _kind_request(self, text: str, identity: str, without: int = -1) -> ChatRequest:
        """Whether a message is of the kind: whether it has some value of a label, where there is one."""
        if self.kind_label:
            return label_request(self.spec, self.kind_label, text, self.others, self.asker.model, identity, without)
        return kind_request(self.spec, text, self.others, self.asker.model, identity, without=without)

    def _kind_in(self, response: ChatResponse) -> float:
        if self.kind_label is None:
            return yes(response)
        no_value = none_of(self.kind_label)
        return 1 - probabilities(response, [*self.kind_label.values, no_value])[no_value]

    def not_of_kind(self, texts: Sequence[str]) -> list[str]:
        """The texts that are not of the kind; all of them where the reader cannot tell."""
        kinds = self._of_kind({text: text for text in texts}) if self.trust.kind else {}
        return [text for text in texts if kinds.get(text, 0.0) < self.trust.kind_cut]

    def other_kinds(self, texts: Sequence[str]) -> list[str]:
        """The texts that are surely none of the kind, the surest first: less likely to be than each of the examples."""
        kinds = self._of_kind({text: text for text in texts})
        below = min(self.trust.kind_cut, self.trust.kind_least)
        return sorted((text for text in kinds if kinds[text] < below), key=lambda text: kinds[text])

    def _trial(self) -> Trust:
        """Read the examples, each without itself among the shots, and ordinary prompts; what comes of it is trust."""
        spec, model, labels = self.spec, self.asker.model, self._labels
        requests: list[ChatRequest] = []
        for place, example in enumerate(spec.examples):
            requests += [
                label_request(spec, label, example.prompt, self.others, model, f"t/{label.name}/{place}", without=place)
                for label in labels
            ]
            if self.kind_label is None:
                requests.append(self._kind_request(example.prompt, f"t/kind/{place}", place))
        for place, (message, _) in enumerate(self.shots if self.can_read else ()):
            rest = [shot for other, shot in enumerate(self.shots) if other != place]
            requests.append(answer_request(spec, message, rest, model, f"t/answer/{place}", 0))
        requests += [self._kind_request(text, f"t/ordinary/{n}") for n, text in enumerate(self.trial_prompts)]
        answers = self.asker.ask(requests, "trying the reader out")

        def kinds(prefix: str, count: int) -> list[float]:
            return [self._kind_in(answers[name]) for n in range(count) if (name := f"t/{prefix}/{n}") in answers]

        kind = kinds(self.kind_label.name if self.kind_label else "kind", len(spec.examples))
        ordinary = kinds("ordinary", len(self.trial_prompts))
        cut = _cut(kind, ordinary)
        margins = {label.name: self._label_margins(label, answers) for label in labels}
        right = {name: round(sum(m > 0 for m in of) / max(1, len(of)), 3) for name, of in margins.items()}
        self.trust = Trust(labels=right)  # what is read apart does not count against the whole answer
        return Trust(
            labels=right,
            cuts={name: _margin_cut(of) for name, of in margins.items()},
            answers=self._answers_right(answers) if self.can_read else 0.0,
            kind_yes=round(sum(p >= cut for p in kind) / max(1, len(kind)), 3),
            kind_no=round(sum(p < cut for p in ordinary) / max(1, len(ordinary)), 3),
            kind_least=round(min(kind, default=0.0), 4),
            kind_cut=cut,
        )

    def _label_margins(self, label: Attribute, answers: Mapping[str, ChatResponse]) -> list[float]:
        """Of each example that has the label, the margin of its value without the bias that the others show."""
        known: list[tuple[str, Mapping[str, float]]] = []
        for place, example in enumerate(self.spec.examples):
            right, response = value_in(self.spec, example, label.name), answers.get(f"t/{label.name}/{place}")
            if right and response is not None:
                known.append((right, probabilities(response, [*label.values, none_of(label)])))
        if bias := bias_of_known(known, list(label.values)):
            self.bias[label.name] = bias
        others = [[*known[:place], *known[place + 1 :]] for place in range(len(known))]
        return [
            margin(calibrated(likely, bias_of_known(rest, list(label.values))), right)
            for (right, likely), rest in zip(known, others, strict=True)
        ]

    def _answers_right(self, answers: Mapping[str, object]) -> float:
        right = 0
        for place, (message, answer) in enumerate(self.shots):
            records = form_of(self.spec).parse(answer)
            values: Values = records[0] if records else dict.fromkeys(a.name for a in self.spec.attributes if a.shown)
            read = self._parsed(getattr(answers.get(f"t/answer/{place}"), "text", ""))
            right += not self._differing(values, message, read)
        return round(right / max(1, len(self.shots)), 3)


def _bias(label: Attribute, read: Sequence[tuple[str, ChatResponse]]) -> dict[str, float]:
    """By how much a value is likelier to be read than it was drawn, over many messages; half of that, and no more than
    a nat and a half, for messages miss a value too where the writer is bad at it.

    Batch calibration: Zhou et al. 2023, arXiv 2309.17249.
    """
    names = [*label.values, none_of(label)]
    likely = [probabilities(response, names) for _, response in read]
    drawn = Counter(value for value, _ in read)
    bias = {}
    for name in label.values:
        mean, share = sum(one[name] for one in likely) / len(read), drawn[name] / len(read)
        odds = _BIAS_SHARE * math.log((mean + _EPSILON) / (share + _EPSILON))
        bias[name] = max(-BIAS_MOST, min(BIAS_MOST, odds))
    return bias


def _margin_cut(margins: Sequence[float]) -> float:
    """Half of the margin that the reader has of the examples that it reads right, and no more than is sure."""
    right = [margin for margin in margins if margin > 0]
    return round(min(_SURE, _CUT_SHARE * median(right)), 2) if right else 0.0


def _cut(kind: Sequence[float], ordinary: Sequence[float]) -> float:
    """Where the probabilities of examples and ordinary prompts are parted best; the middle where that is as good."""
    cuts = [0.5, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9, 0.05, 0.95]
    return max(cuts, key=lambda cut: sum(p >= cut for p in kind) * len(ordinary) + sum(p < cut for p in ordinary))

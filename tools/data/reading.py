"""Reading a message back: by another request than the one that wrote it, its attributes are told from it alone.

Typed values are found by code; of a label the likelihood of each of its values is read, in one request; the rest is the
whole answer, held to its form. Whether the model can read is tried out first on the user's own examples, each without
itself among the shots. All requests of a kind begin alike, so that a server reads that part once. The
server is held to the candidates: where a token parts two of them, its probability against the other's is theirs, and
nothing is sampled.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from statistics import fmean

from tunesmith.tools.core.arithmetic import number_of
from tunesmith.tools.core.similarity import overlap, stems
from tunesmith.tools.core.stats import wilson_interval
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.record_values import Values, json_object, kinds_in
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import holds
from tunesmith.tools.data.writer_requests import Shot, kind_of, prompt_text
from tunesmith.tools.serving.client import ChatRequest, ChatResponse, assistant, system, user
from tunesmith.tools.suites.judge_prompt import judge_prompt

YES_NO = ("yes", "no")
_KNOWN_LEAST, BIAS_MOST = 3, 1.5
"""Messages of each value that tell what a model has for it; the most of that, in nats, that is taken off: of fewer, or
by more, it is what the messages say."""
_FLOOR = 1e-6
"""Probability of a candidate that is not among the likeliest tokens: vLLM names twenty at most, and its logarithm has
to be finite."""


def choice_among(candidates: Sequence[str]) -> dict[str, object]:
    """The fields of a request that has one of the candidates answered, with the likeliest tokens of each step."""
    # Twenty is the most that vLLM gives where nobody sets more.
    return {"structured_outputs": {"choice": list(candidates)}, "logprobs": True, "top_logprobs": 20}


def probabilities(response: ChatResponse, candidates: Sequence[str]) -> dict[str, float]:
    """Candidate → its probability against the others; by the answered words where the server gave no log probabilities.

    Case and space before an answer make no difference, for a server that is not held to the candidates.
    """
    scores = dict.fromkeys(candidates, 0.0)
    open_ = {one: _plain(one) for one in candidates}
    before = ""
    for token, likeliest in response.steps:
        if len(open_) < 2:
            break
        by_candidate = {one: _mass(text, before, likeliest) for one, text in open_.items()}
        if not any(by_candidate.values()):
            break
        for one, mass in by_candidate.items():
            scores[one] += math.log(max(mass, _FLOOR))
        before = _plain(before + token)
        open_ = {one: text for one, text in open_.items() if text.startswith(before)}
    else:  # the answer ended: of candidates that one begins another with, it is the one that was answered
        if response.steps and before in open_.values():
            scores |= {one: scores[one] + math.log(_FLOOR) for one, text in open_.items() if text != before}
    if not response.steps:
        return {one: float(_plain(response.text) == _plain(one)) for one in candidates}
    most = max(scores.values())
    shares = {one: math.exp(score - most) for one, score in scores.items()}
    return {one: share / sum(shares.values()) for one, share in shares.items()}


def _mass(text: str, before: str, likeliest: Mapping[str, float]) -> float:
    """Of a step behind `before`, the probability of the tokens that `text` goes on with."""
    tokens = ((_plain(before + token), logprob) for token, logprob in likeliest.items())
    return sum(math.exp(logprob) for begun, logprob in tokens if len(begun) > len(before) and text.startswith(begun))


def _plain(text: str) -> str:
    return text.lower().lstrip()


def margin(likely: Mapping[str, float], value: str) -> float:
    """Log-odds, in nats, of a candidate against the likeliest of the others; below 0 another one is likelier."""
    others = max((share for one, share in likely.items() if one != value), default=0.0)
    return round(math.log(max(likely.get(value, 0.0), _FLOOR)) - math.log(max(others, _FLOOR)), 2)


def calibrated(likely: Mapping[str, float], bias: Mapping[str, float]) -> dict[str, float]:
    """Probabilities without what a model has for or against a candidate whatever it reads: `bias`, in nats."""
    shares = {one: share * math.exp(-bias.get(one, 0.0)) for one, share in likely.items()}
    whole = sum(shares.values())
    return {one: share / whole for one, share in shares.items()} if whole else shares


def bias_of_known(known: Sequence[tuple[str, Mapping[str, float]]], values: Sequence[str]) -> dict[str, float]:
    """What a model has for each value whatever it reads, in nats around 0, by messages whose value is known; empty
    where there are fewer than three of some value.

    The mean log probability of a value over all values' messages, each value counting once however often it comes:
    without it the middle between two values' messages is where they are equally likely. No more than a nat and a half:
    what is taken off a value is taken off it against none of them too.
    """
    by_value = {value: [likely for right, likely in known if right == value] for value in values}
    if not values or min(map(len, by_value.values())) < _KNOWN_LEAST:
        return {}
    means = {
        value: fmean(fmean(math.log(max(one[value], _FLOOR)) for one in of) for of in by_value.values())
        for value in values
    }
    middle = fmean(means.values())
    return {value: max(-BIAS_MOST, min(BIAS_MOST, mean - middle)) for value, mean in means.items()}


def least_margin(response: ChatResponse) -> float | None:
    """Of a whole answer, the log-odds of its least certain token against the next; None where nobody said."""
    return round(min(map(_gap, response.steps)), 2) if response.steps else None


def _gap(step: tuple[str, Mapping[str, float]]) -> float:
    """Log-odds of a token against the next likeliest."""
    token, likeliest = step
    others = max((logprob for other, logprob in likeliest.items() if other != token), default=-math.inf)
    return likeliest.get(token, -math.inf) - max(others, math.log(_FLOOR))


def value_margins(spec: Spec, response: ChatResponse) -> dict[str, float]:
    """Of each value of a whole answer, the log-odds of its least certain token; nothing where its place is unknown."""
    text = "".join(token for token, _ in response.steps)
    spans = form_of(spec).values_at(response.text)
    names = list(spec.answer.placeholders or json_object(response.text) or ())
    if not text.startswith(response.text) or len(spans) != len(names):
        return {}  # an answer of several records, nested, or the one that stands for none
    ends = list(accumulate(len(token) for token, _ in response.steps))
    gaps = [(end - len(step[0]), end, _gap(step)) for end, step in zip(ends, response.steps, strict=True)]
    return {
        name: round(min(gap for start, end, gap in gaps if start < last and end > first), 2)
        for name, (first, last) in zip(names, spans, strict=True)
    }


def yes(response: ChatResponse) -> float:
    """The probability of yes against no."""
    return probabilities(response, YES_NO)["yes"]


def right_where_two_agree(agreed: int, judged: int) -> float:
    """Share that is right of what two agree on, at least, were both right equally often and their errors independent.

    All errors of both are taken to be one and the same other value: they agree on a = p² + (1 - p)², and those that
    are right are p² / a of these. 0 where they agree no oftener than two that guess between two values. What the two
    misunderstand alike is not seen. For two raters of one accuracy: Dawid and Skene 1979, doi 10.2307/2346806.
    """
    a = wilson_interval(agreed, judged)[0]
    return ((1 + math.sqrt(2 * a - 1)) / 2) ** 2 / a if a > 0.5 else 0.0


_SHOTS, _JUDGE_SHOTS = 6, 2
"""Examples that a reader is shown; a judge sees each of its own with two answers: all are read again for each
message."""
_TEXT_SUPPORTED = 0.67
"""Of a free text's words, so many stand in the message or in what was read of it: a third may be of its own."""

NOTHING = "nothing"
"""What is said of a value that is not there."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An attribute that was read otherwise than it was drawn."""

    attribute: str
    drawn: str
    read: str


def label_request(
    spec: Spec, label: Attribute, message: str, others: Sequence[str], model: str, identity: str, without: int = -1
) -> ChatRequest:
    """Asks which value a label has in a message, or none of them; shown are examples, but for one, and `others`.

    Of each value there are as many as of the others, as near as they come to it, for what stands there oftener is
    read oftener. That there may be none makes what is read of a message that says nothing plain of the label unsure,
    and not some value.
    """
    values = "\n".join(
        f"- {name}" + (f": {value.means}" if value.means else "") for name, value in label.values.items()
    )
    no_value = none_of(label)
    asked = prompt_text(
        "read-label", when=kind_of(spec), name=label.name, means=label.means or label.name, values=values, none=no_value
    )
    examples = [example for place, example in enumerate(spec.examples) if place != without]
    shots = [(e.prompt, value) for e in examples if (value := value_in(spec, e, label.name)) is not None]
    by_value = [[shot for shot in shots if shot[1] == value] for value in dict.fromkeys(value for _, value in shots)]
    in_turn = [shot for round_ in zip_longest(*by_value) for shot in round_ if shot]
    chosen = in_turn[: max(_SHOTS, len(by_value))] + [(text, no_value) for text in others]
    # or NOTHING were always last; the same for every message, which begin alike so
    random.Random(label.name).shuffle(chosen)
    turns = [t for text, value in chosen for t in (user(text), assistant(value))]
    extra = choice_among([*label.values, no_value])
    # Tokens: a label has forty characters at most, and the choice ends it.
    return ChatRequest(identity, model, [system(asked), *turns, user(message)], 12, extra=extra)


def none_of(label: Attribute) -> str:
    """What is answered where a message has no value of a label."""
    values = {value.lower() for value in label.values}
    return next(word for word in ("none", "neither", "no value", "(none)") if word not in values)


def value_in(spec: Spec, example: Example, name: str) -> str | None:
    """The value of an attribute in an example's answer."""
    records = form_of(spec).parse(example.answer)
    return records[0].get(name) if records else None


def answer_request(
    spec: Spec, message: str, shots: Sequence[tuple[str, str]], model: str, identity: str, turn: int
) -> ChatRequest:
    """Asks for the answer itself, held to its form."""
    asked = prompt_text("read-answer", when=kind_of(spec), what=spec.what, never=spec.never.rstrip(". "))
    order = _one_of_each(spec, random.Random(f"answer/{turn}").sample(list(shots), len(shots)))[:_SHOTS]
    turns = [t for text, answer in order for t in (user(text), assistant(answer))]
    messages = [system(asked), *turns, user(message)]
    extra = {"structured_outputs": form_of(spec).grammar(), "logprobs": True, "top_logprobs": 2}
    return ChatRequest(identity, model, messages, spec.max_tokens, extra=extra)


def _one_of_each(spec: Spec, shots: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The shots, one for each set of missing attributes first: a reader sees what stands for a missing one."""
    by_lacking: dict[object, tuple[str, str]] = {}
    for message, answer in shots:
        records = form_of(spec).parse(answer)
        lacking = [tuple(a.name for a in spec.attributes if one.get(a.name) is None) for one in records or ()]
        by_lacking.setdefault(tuple(lacking), (message, answer))
    first = list(by_lacking.values())
    return [*first, *(shot for shot in shots if shot not in first)]


def disagreements(spec: Spec, values: Values, message: str, read: Values | None) -> list[Disagreement]:
    """Where a read answer differs from what was drawn; None stands for the answer of an empty list."""
    if read is None:
        read = {}
    differing = []
    for path, attribute in spec.leaves({**values, **read}):
        paired = "]." in path  # code finds every value in the message, and not which of them go together
        if not attribute.shown or attribute.kind in ("computed", "object") or (attribute.typed and not paired):
            continue
        if path == attribute.name and path not in values:
            continue
        drawn, reading = values.get(path), read.get(path)
        if not _same(attribute, drawn, reading, message):
            differing.append(Disagreement(path, drawn or NOTHING, reading or NOTHING))
    return differing


def _same(attribute: Attribute, drawn: str | None, reading: str | None, message: str) -> bool:
    """Whether a read value is the drawn one, as strictly as its kind allows."""
    if drawn is None or reading is None:
        return drawn is reading
    if attribute.kind == "label":
        return drawn == reading
    numbers = number_of(drawn), number_of(reading)
    if attribute.typed or (attribute.kind == "text" and None not in numbers):
        return drawn == reading or (None not in numbers and numbers[0] == numbers[1])
    if attribute.kind == "copied":
        same = (
            bool(stems(drawn) & stems(reading)) or drawn.lower() in reading.lower() or reading.lower() in drawn.lower()
        )
        return holds(message, drawn) and same
    return overlap({attribute.name: drawn}, f"{message} {reading}") >= _TEXT_SUPPORTED


# Yes and no


def judge_request(
    spec: Spec, criterion: str, message: str, answer: str, model: str, identity: str, *, without: int = -1
) -> ChatRequest:
    """Asks whether an answer does what a criterion says, to be read off the probability of yes against no.

    Shown are examples, but for one, each with its own answer and with another one's.
    """
    examples = [example for place, example in enumerate(spec.examples) if place != without][:_JUDGE_SHOTS]
    turns = []
    for place, example in enumerate(examples):
        for given in dict.fromkeys((example.answer, examples[(place + 1) % len(examples)].answer)):
            asked = _row_question(criterion, example.prompt, given)
            turns += [user(asked), assistant("yes" if given == example.answer else "no")]
    asked = _row_question(criterion, message, answer)
    return ChatRequest(identity, model, [*turns, user(asked)], 1, extra=choice_among(YES_NO))


def _row_question(criterion: str, message: str, answer: str) -> str:
    return judge_prompt("row", {"criterion": criterion}, {"message": message, "answer": answer}).rstrip("\n")


def kind_request(
    spec: Spec, message: str, others: Sequence[str], model: str, identity: str, *, without: int = -1
) -> ChatRequest:
    """Asks whether a message is of the kind; shown are examples, but for one, and `others` that are not."""
    positives = [(example.prompt, "yes") for place, example in enumerate(spec.examples) if place != without][
        : len(others)
    ]
    in_turn = zip_longest(positives, [(other, "no") for other in others])
    shots = [shot for both in in_turn for shot in both if shot]
    turns = [turn for text, answer in shots for turn in (user(_kind_question(spec, text)), assistant(answer))]
    messages = [*turns, user(_kind_question(spec, message))]
    return ChatRequest(identity, model, messages, 1, extra=choice_among(YES_NO))


def _kind_question(spec: Spec, message: str) -> str:
    return f"A kind of messages: {kind_of(spec)}.\n\nThe message: {message}\n\nIs it of that kind? Answer yes or no."


def reads_whole(spec: Spec) -> bool:
    """Whether a label alone does not tell: an open text, or something copied that may be missing, is in the answer."""
    if not form_of(spec).composed:
        return False
    texts = [a for a in spec.attributes if a.shown and (a.kind == "text" or not a.plain)]
    lacking = [a for a in spec.attributes if a.shown and a.kind == "copied" and a.absent_share]
    return bool(texts or lacking)


def copies(spec: Spec) -> bool:
    """Whether something in the answer is copied from the message: a reader can tell what, where it is not what was
    drawn."""
    return form_of(spec).composed and "copied" in kinds_in([a for a in spec.attributes if a.shown])


def answer_shots(spec: Spec, sentences: Sequence[Shot]) -> list[tuple[str, str]]:
    """(message, answer) of the examples; of an answer that is a list, sentence by sentence."""
    if not form_of(spec).of_records:
        return [(example.prompt, example.answer) for example in spec.examples]
    return [(one.message, form_of(spec).compose([one.values] if one.values else [])) for one in sentences]

"""Which value a label has in a message: in one question for all values, or in one for each by what it means.

A model of a billion parameters that cannot name the value may tell whether what a value means is true of the message;
which of both a reader can do is tried out on the user's own examples.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from tunesmith.tools.data.candidates import YES_NO, held_to, probabilities, with_yeses, yes
from tunesmith.tools.data.reading import value_in
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.writer_requests import kind_of, prompt_text
from tunesmith.tools.serving.client import ChatRequest, ChatResponse

_SHOTS, _STATED_MOST = 6, 8
_BIAS_SHARE, _BIAS_MOST, _EPSILON = 0.5, 1.5, 0.01


def label_request(
    spec: Spec, label: Attribute, message: str, others: Sequence[str], model: str, identity: str, without: int = -1
) -> ChatRequest:
    """Asks which value a label has in a message, or none of them; shown are examples, but for one, and `others`.

    One example of each value comes first, and no more than fit. That there may be none makes what is read of a message
    that says nothing plain of the label unsure, and not some value.
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
    first = list({value: (text, value) for text, value in reversed(shots)}.values())
    rest = [shot for shot in shots if shot not in first]
    shown = [*first, *rest][: max(_SHOTS, len(first))] + [(text, no_value) for text in others]
    random.Random(label.name).shuffle(shown)
    turns = [t for text, value in shown for t in (_turn("user", text), _turn("assistant", value))]
    extra = held_to([*label.values, no_value])
    return ChatRequest(identity, model, [_turn("system", asked), *turns, _turn("user", message)], 12, extra=extra)


def statement_requests(
    spec: Spec, label: Attribute, message: str, model: str, identity: str, without: int = -1
) -> list[ChatRequest]:
    """Asks of each value whether what it means is true of a message, to be read off the probability of yes.

    Shown is an example of each value, but for one, with its own value and the next one's.
    """
    values = list(label.values)
    examples = [example for place, example in enumerate(spec.examples) if place != without]
    shots = {value: e.prompt for e in reversed(examples) if (value := value_in(spec, e, label.name)) in label.values}
    turns = [_turn("system", f"The messages are of this kind: {kind_of(spec)}.")]
    for value, text in shots.items():
        other = values[(values.index(value) + 1) % len(values)]
        turns += [_turn("user", _statement(label, value, text)), _turn("assistant", "yes")]
        turns += [_turn("user", _statement(label, other, text)), _turn("assistant", "no")]
    return [
        ChatRequest(f"{identity}/{number}", model, [*turns, _turn("user", _statement(label, value, message))], 1,
                    extra=held_to(YES_NO))
        for number, value in enumerate(values)
    ]  # fmt: skip


def _statement(label: Attribute, value: str, message: str) -> str:
    return prompt_text("read-statement", message=message, value=value, means=label.values[value].means.rstrip(". "))


def none_of(label: Attribute) -> str:
    """What is answered where a message has no value of a label."""
    taken = {value.lower() for value in label.values}
    return next(word for word in ("none", "neither", "no value", "(none)") if word not in taken)


def tells_meanings(label: Attribute) -> bool:
    """Whether each of its values has a meaning, and they are few enough to be asked about one by one."""
    return len(label.values) <= _STATED_MOST and all(value.means for value in label.values.values())


def likely_values(
    label: Attribute, answers: Mapping[str, ChatResponse], identity: str, stated: bool
) -> dict[str, float]:
    """Of each value, and of none, how likely a message has it; empty where nothing was answered."""
    if identity not in answers:
        return {}
    likely = probabilities(answers[identity], [*label.values, none_of(label)])
    yeses = {
        value: yes(answers[name]) for n, value in enumerate(label.values) if (name := f"{identity}/{n}") in answers
    }
    return with_yeses(likely, yeses) if stated and len(yeses) == len(label.values) else likely


def bias_of(label: Attribute, read: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """By how much a value is likelier to be read than it was drawn, over many messages; half of that, and no more than
    a nat and a half, for messages miss a value too where the writer is bad at it.

    Batch calibration: Zhou et al. 2023, arXiv 2309.17249.
    """
    drawn = Counter(value for value, _ in read)
    bias = {}
    for name in label.values:
        mean = sum(likely[name] for _, likely in read) / len(read) + _EPSILON
        bias[name] = max(
            -_BIAS_MOST, min(_BIAS_MOST, _BIAS_SHARE * math.log(mean / (drawn[name] / len(read) + _EPSILON)))
        )
    return bias


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}

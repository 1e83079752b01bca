"""Whether the examples are what their spec says: of its form, with its values, computed as its formulas compute."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.arithmetic import NUMERIC, Unanswerable, number_of
from tunesmith.tools.data.computed import with_computed
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.json_values import Values, items_of
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import found


def example_problems(spec: Spec) -> Iterator[str]:
    """What is wrong with the examples, one sentence each; nothing of answers that a model writes."""
    form = form_of(spec)
    for number, example in enumerate(spec.examples if form.composed else (), 1):
        records = form.parse(example.answer)
        if records is None:
            yield f"the answer of example {number} is not of the form {form}: {_why(spec, example)}"
            continue
        if problem := form.problem(example.answer):
            yield f"example {number}: {problem.partition(': ')[2]}"
        for record in records:
            yield from (f"example {number}: {problem}" for problem in _of_record(spec, example, record))


def _why(spec: Spec, example: Example) -> str:
    if example.answer.lstrip().startswith("["):
        return "a list at the top is no object; put it under a key, or leave the form to be written"
    names = ", ".join(a.name for a in spec.attributes if a.shown)
    return f"it shows {names} as {spec.answer.template!r}" if spec.answer.template else f"it holds {names}"


def _of_record(spec: Spec, example: Example, record: Values) -> Iterator[str]:
    for path, attribute in spec.leaves(record):
        value = record.get(path)
        if attribute.kind == "label" and value is not None and value not in attribute.values:
            yield f"{path} is {value!r}, which is none of {', '.join(attribute.values)}"
    for attribute in spec.attributes:
        if attribute.many is not None and attribute.name not in record:
            count, (least, most) = items_of(attribute.name, record), attribute.many
            if not least <= count <= most:
                yield f"{attribute.name} has {count} values, its spec allows {least} to {most}"
    yield from _miscalculated(spec, example, record)


def _miscalculated(spec: Spec, example: Example, record: Values) -> Iterator[str]:
    known = {**record, **{a.name: _said(a, example.prompt) for a in spec.attributes if not a.shown and a.plain}}
    try:
        computed = with_computed(spec, known)
    except Unanswerable:
        return
    for path, value in computed.items():
        if spec.attribute(path).kind != "computed" or value is None or (shown := record.get(path)) is None:
            continue
        if number_of(shown) != number_of(value) or (number_of(value) is None and shown != value):
            yield f"{path} is {shown}, its formula gives {value}"


def _said(attribute: Attribute, message: str) -> str | None:
    """The only number or date that a message says of an attribute; None where that is not sure."""
    if attribute.kind not in ("digits", "date", *NUMERIC) or attribute.kind == "computed":
        return None
    parts = (re.search(r"\d[\d-]*(?:\.\d+)?", text) for text in found(attribute, message))
    texts = {part[0] for part in parts if part}
    texts &= set(attribute.values) or texts
    return texts.pop() if len(texts) == 1 else None

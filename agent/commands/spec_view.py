"""A behaviour as a table: its user's words, what was proposed beside them, and what of that was left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.tools.core.arithmetic import formula_text
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.description import OWN_BLIND
from tunesmith.tools.data.spec import Attribute, Spec, without_places
from tunesmith.tools.data.verify import topic
from tunesmith.tools.suites.grading.code import is_parsed

_VALUES_MAX = 8
_CHARACTERS = 400
"""Of a rule or an example: a spec is looked through, and its file has the whole."""
PARTS = ("when", "what", "never", "attributes", "answer", "rules", "criteria", "near_misses")


def spec_view(
    spec: Spec, stated: frozenset[str], left_out: Sequence[str] = (), *, written: bool = True
) -> RenderableType:
    """The whole behaviour as one table: what was said, what was proposed, and what of that was left out.

    `written`: a writer thinks up the rows, and near misses where the spec has none.
    """
    by = {name: "said" if name in stated else "proposed" for name in PARTS}
    rows: list[list[str]] = [[name, getattr(spec, name), by[name]] for name in ("when", "what", "never")]
    for one in spec.attributes:
        whose = "proposed" if one == topic() else by["attributes"]
        rows += [[f"attribute {name}", text, whose] for name, text in _attributes([one], _example_values(spec))]
    rows += [["system prompt", text, "said"] for text in spec.system_prompts]
    rows += [["tool", json.dumps(tool["function"], ensure_ascii=False), "said"] for tool in spec.tools]
    rows.append(["answer", _answer(spec), by["answer"]])
    applies = "every message" if spec.every_message else f"some messages, in {spec.language}"
    rows.insert(1, ["applies to", applies, "said" if "every_message" in stated else "proposed"])
    rows += [["rule", rule.says, by["rules"]] for rule in spec.rules]
    rows += [["criterion", text, by["criteria"]] for text in spec.criteria]
    rows += [["near miss", text, by["near_misses"]] for text in spec.near_misses]
    if not spec.near_misses and not spec.every_message and written:
        rows.append(["near misses", "the writer thinks them up", by["near_misses"]])
    whose = "unstated" if spec.unstated else "said"
    rows += [["example", f"{e.prompt} => {e.answer}", whose] for e in spec.examples]
    if spec.blind_sha256:
        rows.append(["blind cases", f"{OWN_BLIND} more of your examples, which only the test suite sees", "said"])
    rows += [["left out", sentence, "code"] for sentence in left_out]
    cells = [[name, _short(text), whose] for name, text, whose in rows]
    return render.rows_table(["part", spec.name, "by"], cells, exact=True)


def _short(text: str) -> str:
    flat = text.replace("\n", "\\n")
    return flat if len(flat) <= _CHARACTERS else f"{flat[:_CHARACTERS]}…"


def _example_values(spec: Spec) -> Mapping[str, set[str]]:
    """The values of each part in the answers of all examples; nothing of answers that are not taken apart."""
    values: dict[str, set[str]] = {}
    for example in (*spec.examples, *spec.blind):
        for record in form_of(spec).parse(example.answer) or []:
            for path, value in record.items():
                values.setdefault(without_places(path), set()).add(value or "")
    return values


def _attributes(
    attributes: Sequence[Attribute], seen: Mapping[str, set[str]], at: str = ""
) -> Iterator[tuple[str, str]]:
    """Every attribute by its path, and what is to be said of it."""
    for one in attributes:
        path = f"{at}{one.name}"
        unseen = [name for name in one.values if one.kind == "label" and path in seen and name not in seen[path]]
        yield path, _attribute(one) + (f"; no example shows {', '.join(unseen[:_VALUES_MAX])}" if unseen else "")
        yield from _attributes(one.attributes, seen, f"{path}.")


def _attribute(attribute: Attribute) -> str:
    names = [f"{n} ({v.means})" if v.means else n for n, v in attribute.values.items()]
    phrases: list[str] = [attribute.kind]
    if attribute.many:
        least, most = attribute.many
        phrases = [f"{'set' if attribute.kind == 'label' else 'list'} of {least} to {most}: {attribute.kind}"]
    if attribute.formula is not None:
        phrases.append(formula_text(attribute.formula))
    if names:
        phrases.append(", ".join(names[:_VALUES_MAX]) + (" …" if len(names) > _VALUES_MAX else ""))
    elif attribute.means:
        phrases.append(attribute.means)
    if attribute.words_max:
        phrases.append(f"at most {attribute.words_max} words")
    if attribute.absent_share:
        absent = "null" if attribute.absent_as is None else repr(attribute.absent_as)
        absent = "left out" if attribute.left_out else absent
        phrases.append(f"absent in {attribute.absent_share:.0%}, then {absent}")
    for name, values in attribute.absent_where.items():
        phrases.append(f"absent where {name} is {' or '.join(values)}")
    return "; ".join(phrases) + ("" if attribute.shown else "; only makes messages differ")


def _answer(spec: Spec) -> str:
    form = form_of(spec)
    if not form.composed:
        language = spec.answer.language
        unread = f"; {language} is not parsed here" if language and not is_parsed(language) else ""
        return f"written by the writer, held to the rules{unread}"
    text = f"composed by code as {form}"
    text += f": {spec.answer.template}" if spec.answer.template else ""
    return text + (f"; else {spec.answer.otherwise!r}" if spec.answer.otherwise else "")

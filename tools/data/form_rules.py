"""What the form of a behaviour's answers asks of every one: as rules, as a pattern, and as criteria in words."""

from __future__ import annotations

import re

from tunesmith.tools.data.answer_rules import Rule, js_escape, json_rules
from tunesmith.tools.data.spec import Attribute, Spec


def form_rules(spec: Spec) -> list[Rule]:
    """What the form of the answers asks of every one of them."""
    answers = [example.answer for example in spec.examples]
    rules = json_rules(answers) if spec.answer.form in ("json", "written") else []
    if spec.answer.form == "json":
        properties = {a.name: {"enum": list(a.values)} for a in spec.labels if a.shown and not a.absent_share}
        texts = {name: of for name, of in properties.items() if set(of["enum"]) != {"true", "false"}}
        if texts:
            says = "; ".join(f"{name} is one of {', '.join(of['enum'])}" for name, of in texts.items())
            rules.append(Rule(says=says, type="is-json", value={"type": "object", "properties": texts}))
        names = [a.name for a in spec.attributes if a.shown]
        ordered = r"^\s*\{\s*" + r",\s*".join(f'"{js_escape(name)}":[^\\n]*?' for name in names) + r"\}\s*$"
        rules.append(Rule(says=f"one line, the keys in this order: {', '.join(names)}", type="regex", value=ordered))
    elif spec.answer.template:
        says = f"the answer has the form {spec.answer.template!r}"
        says += f", or is {spec.answer.otherwise!r}" if spec.answer.otherwise else ""
        rules.append(Rule(says=says, type="regex", value=form_pattern(spec)))
    elif len(set(answers)) == 1:
        rules.append(Rule(says=f"the answer is always {answers[0]!r}", type="equals", value=answers[0]))
    return rules


def form_pattern(spec: Spec) -> str:
    """The answers' template as a pattern that JavaScript and Python read alike."""
    parts = re.split(r"\{(\w+)\}", spec.answer.template)
    line = "".join(_slot_pattern(spec.attribute(p)) if n % 2 else _escaped(p) for n, p in enumerate(parts))
    body = rf"{line}(?:\n{line})*" if spec.answer.form == "lines" else line
    options = [body, *([_escaped(spec.answer.otherwise)] if spec.answer.otherwise else [])]
    return rf"^\s*(?:{'|'.join(options)})\s*$"


def _escaped(text: str) -> str:
    return js_escape(text).replace("\n", "\\n")


def _slot_pattern(attribute: Attribute) -> str:
    absent = [js_escape(attribute.absent_as)] if attribute.absent_as and attribute.absent_share else []
    if attribute.kind in ("label", "weekday"):
        return f"(?:{'|'.join([*map(js_escape, attribute.values), *absent])})"
    body = {"time": "[0-2][0-9]:[0-5][0-9]", "date": "[0-9]{4}-[0-9]{2}-[0-9]{2}"}.get(attribute.kind, r"[^\n]+?")
    if attribute.kind == "digits" and attribute.lengths:
        body = "|".join(f"[0-9]{{{n}}}" for n in attribute.lengths)
    return f"(?:{'|'.join([body, *absent])})"


def criteria_of(spec: Spec) -> tuple[str, ...]:
    """What is right in meaning, by what is known of each part and in the user's own words."""
    criteria = []
    for attribute in spec.attributes:
        if not attribute.shown:
            continue
        if attribute.kind == "label" and any(value.means for value in attribute.values.values()):
            meanings = "; ".join(f"{name}: {value.means}" for name, value in attribute.values.items())
            criteria.append(f"{attribute.name} fits the message ({meanings})")
        elif attribute.kind in ("copied", "text"):
            means = f" ({attribute.means})" if attribute.means else ""
            criteria.append(f"{attribute.name} is what this message says{means}")
    return (*criteria[:4], f"the answer is right for this very message: {spec.what}"[:1000])

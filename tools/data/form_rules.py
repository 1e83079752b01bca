"""What the form of a behaviour's answers asks of every one: as rules that code checks, and as criteria in words."""

from __future__ import annotations

import json

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import Rule, json_rules
from tunesmith.tools.data.spec import Spec


def form_rules(spec: Spec) -> list[Rule]:
    """What the form of the answers asks of every one of them; nobody stated it, so it keeps no person's row out."""
    answers, form = [example.answer for example in spec.examples], form_of(spec)
    rules = list(form.rules())
    if not form.composed:
        rules += json_rules(answers)
        if len(set(answers)) == 1:
            rules.append(Rule(says=f"the answer is always {answers[0]!r}", type="equals", value=answers[0]))
    unique = {json.dumps([rule.type, rule.value], sort_keys=True): rule for rule in rules}
    return [rule.model_copy(update={"guessed": True}) for rule in unique.values()]


def criteria_of(spec: Spec) -> tuple[str, ...]:
    """What is right in meaning, by what is known of each part and in the user's own words."""
    criteria = []
    for attribute in spec.attributes:
        if not attribute.shown:
            continue
        if attribute.kind == "label" and any(value.means for value in attribute.values.values()):
            told = (f"{name}: {value.means}" if value.means else name for name, value in attribute.values.items())
            meanings = "; ".join(told)
            criteria.append(f"{attribute.name} fits the message ({meanings})")
        elif attribute.kind in ("copied", "text"):
            means = f" ({attribute.means})" if attribute.means else ""
            criteria.append(f"{attribute.name} is what this message says{means}")
    return (*criteria[:4], f"the answer is right for this very message: {spec.what}"[:1000])

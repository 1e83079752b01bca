"""What a behaviour's description says, and the texts of its suite: what was asked, given and wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from tunesmith.agent.queries.answer import Answer, Context, clip, without_instruction
from tunesmith.agent.queries.arguments import Query, RunName
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import read_suite

_MOST_TEXTS = 6
"""A part is looked through; its file has the whole."""
_LONGEST_LABEL = 40
"""Characters: a longer value is a text that is wanted word for word."""


class DescribedQuery(Query):
    """What the user described of the behaviour: its examples, criteria, rules, labels, near misses."""

    kind: Literal["described"] = "described"
    part: Literal["whole", "examples", "criteria", "rules", "near_misses", "labels", "never", "when"] = "whole"
    run: RunName = ""


def answer(query: DescribedQuery, context: Context) -> Answer:
    """The part of a behaviour that was asked for, else the whole in a few lines. Raises NotFound without one."""
    run = context.run(query.run, with_stage="generate")
    spec, where = _behaviour(context, run)
    first, *rest = _lines(query.part, spec)
    lines = (f"{spec.name} ({run.id}): {first}", *rest, f"Its file: {where}.")
    return Answer(lines, private=True, open_words=f"the description of {run.id} is on the screen")


def _behaviour(context: Context, run: Run) -> tuple[Spec, str]:
    steps = context.store.steps(run.id)
    written = [str(s.request.get("behaviour", BUNDLED_BEHAVIOUR)) for s in steps if s.stage == "generate"]
    planned = [as_object(s.get("fields", {})) for s in run.planned if s.get("stage") == "generate"]
    written = written or [str(fields["behaviour"]) for fields in planned if fields.get("behaviour")]
    written = written or [str(s.request["behaviour"]) for s in steps if s.request.get("behaviour")]
    if not written:
        raise NotFound(f"{run.id} names no behaviour: no rows were asked for yet.")
    try:
        return load_behaviour(written[-1]), written[-1]
    except (BadInput, OSError) as error:  # moved, or changed by hand into what cannot be read
        raise NotFound(f"The behaviour of {run.id} cannot be read any more: {clip(error, 200)}") from None


def _lines(part: str, spec: Spec) -> list[str]:
    lists: dict[str, tuple[str, str, Sequence[str]]] = {
        "examples": (
            "example",
            "examples",
            # Message and answer in a line or two.
            [f"“{clip(e.prompt, 110)}” → “{clip(e.answer, 110)}”" for e in spec.examples],
        ),
        "criteria": ("criterion", "criteria", spec.criteria),
        "rules": ("rule", "rules", [rule.says for rule in spec.rules]),
        "near_misses": ("near miss", "near misses", spec.near_misses),
    }
    if part in lists:
        return _some(*lists[part])
    if part == "labels":
        return _labels(spec)
    if part in ("never", "when"):
        return [f"{part.capitalize()}: {clip(getattr(spec, part) or 'nothing was said', 500)}"]
    return [
        # So that all four stand on one screen.
        f"{clip(spec.say or spec.what, 240)}",
        f"When: {clip(spec.when, 240)}",
        f"What: {clip(spec.what, 400)}",
        *([f"Never: {clip(spec.never, 240)}"] if spec.never else []),
        f"It has {count(len(spec.examples), 'example')}, {count(len(spec.rules), 'rule')}, "
        f"{len(spec.criteria)} criteria and {len(spec.near_misses)} near misses of your own.",
    ]


def _some(one: str, many: str, texts: Sequence[str]) -> list[str]:
    if not texts:
        return [f"no {many} of its own."]
    more = len(texts) - _MOST_TEXTS
    listed_texts = [f"  {clip(text, 260)}" for text in texts[:_MOST_TEXTS]]
    return [f"{count(len(texts), one, many)}:", *listed_texts, *([f"  and {more} more"] if more > 0 else [])]


def _labels(spec: Spec) -> list[str]:
    visible = [attribute for attribute in spec.attributes if attribute.shown]
    if not visible:
        return ["the answer is free text."]
    lines = [f"the answer is made of {count(len(visible), 'part')}:"]
    for one in visible:
        values = [name + (f" ({clip(v.means, 60)})" if v.means else "") for name, v in one.values.items()]
        lines.append(f"  {one.name}: {listed(values, 12) or one.means or one.kind}")  # a line or two
    return lines


WHOLE = "answer"
"""The key of an answer that is one value and no JSON."""
_WHOLE_CHECKS = ("equals", "iequals", "contains", "icontains", "starts-with")


def cases_of(store: Store, run: str, suite: str = "") -> Mapping[str, Case]:
    """Case by its id, of a suite of the run, or of its newest; empty where its file is gone."""
    suites = [artifact for artifact in store.artifacts(run, "suite") if suite in ("", artifact.id)]
    if not suites:
        return {}
    path = Path(suites[-1].path)
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, BadInput):  # gone, or of another version
        return {}


# suites of the runs that are asked about
@lru_cache(maxsize=8)
def _read(path: Path, changed_ns: int) -> Mapping[str, Case]:
    return {case.case_id: case for case in read_suite(path).cases}


def labels_of(store: Store, run: str) -> tuple[str, ...]:
    """The labels by which the cases of a run can be told apart: values that its open cases want again and again."""
    wanted: dict[str, list[str]] = {}
    for case in cases_of(store, run).values():
        for key, value in wanted_of(case) if not case.is_blind else ():
            wanted.setdefault(key, []).append(value)
    labels = (value for values in wanted.values() if come_again(values) for value in values)
    return tuple(dict.fromkeys(label for label in labels if 0 < len(label) <= _LONGEST_LABEL))


def come_again(values: Sequence[str]) -> bool:
    """Whether values are wanted again and again, as labels are and numbers of orders are not."""
    return len(values) >= 2 * len(set(values))


def asked_by(case: Case | None) -> str:
    """The newest message of a case's user; empty for no case."""
    texts = [str(m.get("content", "")) for m in (case.messages if case else ()) if m.get("role") == "user"]
    return without_instruction(texts[-1]) if texts else ""


def wanted_of(case: Case | None) -> Iterator[tuple[str, str]]:
    """The keys of an answer and the values that a case's checks name for them; nothing where they name none."""
    for one in case.assertions if case else ():
        if one.type == "is-json" and isinstance(one.value, Mapping):
            properties = one.value.get("properties")
            for key, schema in properties.items() if isinstance(properties, Mapping) else ():
                if isinstance(schema, Mapping) and "const" in schema:
                    yield str(key), plain(schema["const"])
        elif one.type in _WHOLE_CHECKS and isinstance(one.value, str):
            yield WHOLE, one.value


def wanted_in_words(case: Case | None) -> str:
    """What a case's checks want, in a clause; empty where they name nothing."""
    return ", ".join(f"{key} {clip(value, 60)}" for key, value in wanted_of(case))


def given_in(output: str, key: str) -> str:
    """The value that an answer has for a key; empty where it is no JSON object."""
    if key == WHOLE:
        return " ".join(output.split())
    try:
        answer = json.loads(output)
    except ValueError:  # no JSON: it holds no value by a name
        return ""
    return plain(answer.get(key, "nothing")) if isinstance(answer, dict) else ""


def is_json(output: str) -> bool:
    """Whether an answer can be read as JSON."""
    try:
        json.loads(output)
    except ValueError:  # that is the answer
        return False
    return True


def plain(value: object) -> str:
    """A value of a JSON answer in words."""
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

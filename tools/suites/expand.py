"""One merged test into its cases: vars multiplied out, prompts filled in, assertions checked, ids given."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tunesmith.tools.suites.budget import TextBudget
from tunesmith.tools.suites.case import BLOCKS, PRIMARY_BLOCK, SPLITS, Block, Case, canonical_sha256, request_sha256
from tunesmith.tools.suites.files import SuiteFiles
from tunesmith.tools.suites.grading import ASSERT_SET, Assertion, check_assertion
from tunesmith.tools.suites.grading.core import TYPES, check_threshold, type_named
from tunesmith.tools.suites.prompts import Prompt, fill_prompt
from tunesmith.tools.suites.providers import Offer
from tunesmith.tools.suites.template import fill_vars, render

MAX_COMBINATIONS = 10_000
MAX_CASES = 20_000
"""Lists of vars multiply: ten of ten values would be ten billion cases."""
_ID_CHARS = 12
_SUFFIX_CHARS = 6
"""Of a digest: ids have to differ within a suite, and a suffix only among the cases that share a name."""

_RUNS_CODE = "it runs code; use contains, regex, equals or is-json with a schema"
_SERVICE = "it asks an outside service; use llm-rubric, which asks the locally served judge"
_TRACE = "traces are not recorded; use tool-call-f1 or is-valid-openai-tools-call"
_INSTEAD = {
    **dict.fromkeys(("javascript", "python", "ruby"), _RUNS_CODE),
    "webhook": "it sends outputs away; use contains, regex, equals or is-json with a schema",
    **dict.fromkeys(("moderation", "guardrails", "classifier", "pi", "search-rubric", "agent-rubric"), _SERVICE),
    **dict.fromkeys(
        ("factuality", "model-graded-factuality", "model-graded-closedqa", "answer-relevance", "context-faithfulness",
         "context-recall", "context-relevance", "conversation-relevance"),
        "use llm-rubric or g-eval with that criterion in words",
    ),
    **dict.fromkeys(("is-valid-function-call", "is-valid-openai-function-call"), "use is-valid-openai-tools-call"),
    **dict.fromkeys(("is-sql", "contains-sql"), "use is-code with the value {language: sql}"),
    **dict.fromkeys(("is-xml", "contains-xml", "is-html", "contains-html"), "use regex, or contains with a tag"),
    **dict.fromkeys(("bleu", "gleu"), "use rouge-n, or llm-rubric"),
    **dict.fromkeys(("perplexity", "perplexity-score"), "log probabilities are not kept; use llm-rubric"),
    "meteor": "it needs a word net; use rouge-n",
    "cost": "a model served here has no price per token; use latency",
    "human": "nobody grades by hand here; use llm-rubric",
    **dict.fromkeys(("max-score", "select-best"), "arms are compared by `tunesmith compare`; remove it"),
}  # fmt: skip
_NOT_IN_A_CELL = ("human", "max-score", "select-best")
"""promptfoo reads these in a CSV cell as plain text."""
_INSTEAD_PREFIXES = {"trajectory:": _TRACE, "trace-": _TRACE, "skill-": _TRACE, "promptfoo:redteam:": _SERVICE}
_CALLS_OFFERED, _OFFER = "is-valid-openai-tools-call", "list tools in the config of the suite's provider"
_KEYS_REFUSED = {
    "provider": "the judge is the locally served one, the same for every arm; remove it",
    "rubricPrompt": "the judge's prompt is the same for every suite; put the criterion into value",
    "config": "no type here reads it; remove it",
}
_ASSERTION_KEYS = frozenset(("type", "value", "threshold", "weight", "metric"))
_OPTIONS = frozenset(("disableDefaultAsserts", "disableVarExpansion", "prefix", "suffix", "repeat", "runSerially"))
_TRANSFORMS = ("transform", "postprocess", "transformVars", "contextTransform", "responseFormat")


@dataclass(frozen=True)
class RawTest:
    """A test with its defaults merged in, templates not yet filled."""

    origin: object
    """The mapping it was written as: where refusals point."""
    description: object
    vars: Mapping[str, object]
    assertions: Sequence[object]
    templates: object
    threshold: object
    options: Mapping[str, object]
    metadata: Mapping[str, object]
    prompts: object
    provider_output: object
    repeat: int
    arms: tuple[str, ...] = ()


def names_type(name: str) -> bool:
    """Whether a CSV cell that begins with this name and a colon is an assertion: supported, or refused by its name."""
    return name in TYPES or (name in _INSTEAD and name not in _NOT_IN_A_CELL)


def build_cases(test: RawTest, prompts: Sequence[Prompt], offer: Offer, files: SuiteFiles) -> Iterator[Case]:
    """Every case that one test stands for. Raises BadInput at the test's line."""
    check_options(files, test.origin, test.options)
    _check_split(files, test)
    block, given_id = _block(files, test), _given_id(files, test)
    chosen = _chosen_prompts(files, test, prompts)
    combinations = _combinations(files, test)
    product = len(combinations) * len(chosen)
    if product > MAX_CASES:  # before they are built, and before those that ask the same are found
        files.refuse(test.origin, f"its vars and the prompts multiply to {product} cases; at most {MAX_CASES}")
    several = product > 1
    suite, tools = files.suite.stem, tuple(offer.tools)
    threshold, metadata = _number(files, test.origin, "threshold", test.threshold), _metadata(test)
    seen: set[str] = set()
    for values in combinations:
        filled = _or_refuse(files, test.origin, partial(fill_vars, values, files.budget))
        assertions = tuple(_assertion(files, test, raw, filled) for raw in test.assertions)
        declared = [one for top in assertions for one in (top, *top.children)]
        _or_refuse(files, test.origin, partial(check_threshold, threshold, [one.base_type for one in declared]))
        if not tools and any(one.type == _CALLS_OFFERED for one in declared):
            files.refuse(
                test.origin, f"{_CALLS_OFFERED} wants a call of an offered tool, and none is offered; {_OFFER}"
            )
        for prompt in chosen:
            messages = _or_refuse(files, test.origin, partial(_messages, prompt, filled, test, files.budget))
            for value in (offer.tools, test.provider_output, *test.metadata.values()):
                _or_refuse(files, test.origin, partial(files.budget.take_value, value))
            case_id = given_id
            if several or not given_id:
                asked = request_sha256(messages, offer.tools, offer.tool_choice, offer.sampling)
                content = [asked, block, [a.model_dump(mode="json") for a in assertions], threshold]
                stored = [] if test.provider_output is None else [test.provider_output]
                case_id = _case_id(given_id, [*content, *stored])
            if case_id in seen:  # a var that the prompt does not use multiplies nothing
                continue
            seen.add(case_id)
            yield Case(
                case_id=case_id,
                block=block,
                suite=suite,
                messages=messages,
                tools=tools,
                tool_choice=offer.tool_choice,
                sampling=offer.sampling,
                assertions=assertions,
                threshold=threshold,
                vars=filled,
                metadata=metadata,
                repeat=test.repeat,
                provider_output=test.provider_output,
                arms=test.arms,
            )


_T = TypeVar("_T")


def _or_refuse(files: SuiteFiles, near: object, make: Callable[[], _T]) -> _T:
    try:
        return make()
    except ValueError as error:
        files.refuse(near, str(error))


def _messages(
    prompt: Prompt, values: Mapping[str, object], test: RawTest, budget: TextBudget
) -> tuple[dict[str, object], ...]:
    prefix, suffix = (str(test.options.get(key) or "") for key in ("prefix", "suffix"))
    return fill_prompt(prompt, values, prefix, suffix, budget)


def _case_id(given: str, content: object) -> str:
    """A hash of what a case asks and expects; behind the id that a test of several cases was given, where it was."""
    digest = canonical_sha256(content)
    return f"{given}~{digest[:_SUFFIX_CHARS]}" if given else digest[:_ID_CHARS]


def _metadata(test: RawTest) -> dict[str, object]:
    described = {"description": str(test.description)} if test.description is not None else {}
    return {**described, **test.metadata}


def _block(files: SuiteFiles, test: RawTest) -> Block:
    named = test.metadata.get("block", PRIMARY_BLOCK)
    block = next((block for block in BLOCKS if block == named), None)
    if block is None:
        files.refuse(test.origin, f"metadata.block is {named!r}; it is one of {', '.join(BLOCKS)}")
    return block


def _check_split(files: SuiteFiles, test: RawTest) -> None:
    split = test.metadata.get("split", "dev")
    if split not in SPLITS:
        files.refuse(test.origin, f"metadata.split is {split!r}; it is one of {', '.join(SPLITS)}")


def _given_id(files: SuiteFiles, test: RawTest) -> str:
    given = test.metadata.get("case_id")
    if given is None:
        return ""
    if isinstance(given, bool) or not isinstance(given, str | int) or not str(given).strip():
        files.refuse(test.origin, f"metadata.case_id is {given!r}; it is a short text")
    text = str(given)
    # 200: an id is shown in a line, and typed by hand.
    if len(text) > 200 or not text.isprintable():
        files.refuse(test.origin, f"metadata.case_id {text[:40]!r} is over 200 characters or holds a control character")
    return text


def check_options(files: SuiteFiles, origin: object, options: Mapping[str, object]) -> None:
    """Refuse, at the line of what declares them, options that are code or unknown."""
    for key in options:
        if key in _KEYS_REFUSED:
            files.refuse(origin, f"options.{key} is refused: {_KEYS_REFUSED[key]}")
        if key in _TRANSFORMS:
            files.refuse(origin, f"options.{key} is code, which is never run; grade the output as it is")
        if key not in _OPTIONS:
            files.refuse(origin, f"options.{key} is not supported; remove it (known: {', '.join(sorted(_OPTIONS))})")


def _chosen_prompts(files: SuiteFiles, test: RawTest, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    if test.prompts is None:
        return prompts
    wanted = test.prompts if isinstance(test.prompts, list) else [test.prompts]
    chosen = [prompt for prompt in prompts if prompt.label in wanted]
    if len(chosen) < len(set(map(str, wanted))):
        labels = ", ".join(repr(prompt.label[:40]) for prompt in prompts)
        files.refuse(test.origin, f"prompts {wanted!r} are not all labels of prompts here: {labels}")
    return chosen


def _combinations(files: SuiteFiles, test: RawTest) -> list[dict[str, object]]:
    """promptfoo's product: a list that begins with text stands for its items, any other list for itself."""
    options: list[list[tuple[str, object]]] = []
    for name, value in test.vars.items():
        if (
            isinstance(value, list)
            and value
            and isinstance(value[0], str)
            and not test.options.get("disableVarExpansion")
        ):
            options.append([(name, text) for item in value for text in _texts_of(files, test, item)])
        elif isinstance(value, str) and value.startswith("file://"):
            options.append([(name, text) for text in _texts_of(files, test, value)])
        else:
            options.append([(name, value)])
    total = math.prod(map(len, options))
    if total > MAX_COMBINATIONS:
        files.refuse(test.origin, f"its vars multiply to {total} cases; at most {MAX_COMBINATIONS}")
    return [dict(combination) for combination in itertools.product(*options)]


def _texts_of(files: SuiteFiles, test: RawTest, item: object) -> list[object]:
    """What a var's value stands for: the files that a `file://` text names, else itself."""
    if isinstance(item, str) and item.startswith("file://"):
        return [_var_of_file(files, path) for path in files.named(item, test.origin)]
    return [item]


def _var_of_file(files: SuiteFiles, path: Path) -> str:
    if path.suffix.lower() in (".yaml", ".yml"):
        return json.dumps(files.load(path), ensure_ascii=False, separators=(",", ":"))
    return files.read(path).strip()


def _number(files: SuiteFiles, near: object, name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):  # True is an int, too
        files.refuse(near, f"{name} is {value!r}; it is a number")
    return float(value)


def _dereferenced(files: SuiteFiles, test: RawTest, raw: object) -> object:
    """The assertion that `$ref: '#/assertionTemplates/NAME'` stands for."""
    seen: list[str] = []
    near = raw
    while isinstance(raw, dict) and "$ref" in raw:
        reference = raw["$ref"]
        name = reference.removeprefix("#/assertionTemplates/") if isinstance(reference, str) else ""
        if not name or name == reference or not isinstance(test.templates, dict) or name not in test.templates:
            files.refuse(near, f"$ref {reference!r} is refused: it may only name an entry of assertionTemplates")
        if reference in seen:
            files.refuse(near, f"$ref cycle: {' → '.join([*seen, reference])}; write the assertion out")
        seen.append(reference)
        raw = test.templates[name]
    return raw


def _assertion(
    files: SuiteFiles, test: RawTest, raw: object, values: Mapping[str, object], nested: bool = False
) -> Assertion:
    declared = _dereferenced(files, test, raw)
    if not isinstance(declared, dict) or not isinstance(kind := declared.get("type"), str):
        files.refuse(declared if isinstance(declared, dict) else test.origin, "an assertion is a mapping with a type")
    raw = declared
    if kind == ASSERT_SET:
        if nested:
            files.refuse(raw, "an assert-set inside an assert-set is not supported; put its members in the outer one")
        return _assert_set(files, test, raw, values)
    _check_declared(files, raw, kind)
    if "value" not in raw and TYPES[kind.removeprefix("not-")].needs_value:
        files.refuse(raw, f"{kind} needs a value")
    value = _or_refuse(files, raw, lambda: _value(files, raw, values))
    assertion = _weighted(files, raw, values, Assertion(type=kind, value=value))
    _or_refuse(files, raw, lambda: check_assertion(assertion))
    return assertion


def _check_declared(files: SuiteFiles, raw: dict[str, object], kind: str) -> None:
    base = kind.removeprefix("not-")
    instead = _INSTEAD.get(base) or next((why for lead, why in _INSTEAD_PREFIXES.items() if base.startswith(lead)), "")
    if instead:
        files.refuse(raw, f"the assertion type {kind!r} is refused: {instead}")
    for key, why in _KEYS_REFUSED.items():
        if key in raw:
            files.refuse(raw, f"{key!r} in an assertion is refused: {why}")
    for key in _TRANSFORMS:
        if key in raw:
            files.refuse(raw, f"{key!r} in an assertion is code, which is never run; grade the output as it is")
    _or_refuse(files, raw, partial(type_named, kind))
    if unknown := raw.keys() - _ASSERTION_KEYS:
        files.refuse(
            raw,
            f"unknown key {sorted(unknown)[0]!r} in assertion {kind!r}; known: {', '.join(sorted(_ASSERTION_KEYS))}",
        )


def _assert_set(files: SuiteFiles, test: RawTest, raw: dict[str, object], values: Mapping[str, object]) -> Assertion:
    members = raw.get("assert")
    if not isinstance(members, list) or not members:
        files.refuse(raw, "an assert-set needs a list of assertions under assert")
    if unknown := raw.keys() - {"type", "assert", "threshold", "weight", "metric"}:
        files.refuse(raw, f"unknown key {sorted(unknown)[0]!r} in an assert-set")
    children = tuple(_assertion(files, test, member, values, nested=True) for member in members)
    whole = _weighted(files, raw, values, Assertion(type=ASSERT_SET, children=children))
    _or_refuse(files, raw, partial(check_assertion, whole))
    return whole


def _weighted(
    files: SuiteFiles, raw: dict[str, object], values: Mapping[str, object], assertion: Assertion
) -> Assertion:
    """The assertion with what its declaration says of threshold, weight and metric."""
    weight = _number(files, raw, "weight", raw.get("weight"))
    if weight is not None and weight < 0:
        files.refuse(raw, f"weight is {weight:g}; it is 0 or more")
    metric = raw.get("metric")
    if metric is not None and not isinstance(metric, str):
        files.refuse(raw, f"metric is {metric!r}; it is a name")
    changes = {
        "threshold": _number(files, raw, "threshold", raw.get("threshold")),
        "weight": 1.0 if weight is None else weight,
        "metric": _or_refuse(files, raw, partial(render, metric, values, files.budget)) if metric else None,
    }
    return assertion.model_copy(update=changes)


def _value(files: SuiteFiles, raw: dict[str, object], values: Mapping[str, object]) -> object:
    """The value with its templates filled in: text, and the texts of a list, as promptfoo does; not inside objects."""
    value = raw.get("value")
    if isinstance(value, str):
        return _file_value(files, raw, value) if value.startswith("file://") else render(value, values, files.budget)
    if isinstance(value, list):
        return [render(item, values, files.budget) if isinstance(item, str) else item for item in value]
    files.budget.take_value(value)
    return value


def _file_value(files: SuiteFiles, raw: dict[str, object], reference: str) -> object:
    paths = files.named(reference, raw)
    if paths[0].suffix.lower() in (".json", ".yaml", ".yml"):
        return files.load(paths[0])
    return files.read(paths[0]).strip()

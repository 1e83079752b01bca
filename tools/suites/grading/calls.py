"""Assertions on tool calls: valid against the tools that were offered, and the right tools called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tunesmith.tools.suites.grading import javascript as js
from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Response, assertion_type
from tunesmith.tools.suites.grading.schema import check_schema, violations


def _need_tools(assertion: Assertion) -> None:
    if assertion.value not in (None, ""):
        check_tools(assertion.value)


@assertion_type("is-valid-openai-tools-call", check=_need_tools, needs_value=False)
def is_valid_openai_tools_call(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """At least one call, each naming an offered tool with arguments that conform to its parameters.

    With a value, a list of tools, there are as many calls as tools, and each call is one of another tool of the list:
    with parameters that one set of arguments alone fits, these are the calls that are right.
    """
    output = response.output
    calls = output.get("tool_calls") if isinstance(output, Mapping) else output
    expected = "be valid calls of the offered tools"
    if not isinstance(calls, list) or not calls:
        return Finding(False, expected, "no tool call")
    broken = next((wrong for call in calls if (wrong := wrong_call(call, context.tools))), "")
    if not broken and isinstance(assertion.value, list):
        broken = _other_calls(calls, assertion.value)
        expected = f"be the {len(assertion.value)} calls that are right"
    return Finding(not broken, expected, broken)


def _other_calls(calls: Sequence[object], wanted: Sequence[Mapping[str, object]]) -> str:
    """What is wrong with calls that should be one of each of the tools `wanted`; empty where nothing is."""
    if len(calls) != len(wanted):
        return f"{len(calls)} calls"
    left = list(wanted)
    for call in calls:
        fitting = next((tool for tool in left if not wrong_call(call, [tool])), None)
        if fitting is None:
            return next(wrong_call(call, [tool]) for tool in left)
        left.remove(fitting)
    return ""


def wrong_call(call: object, tools: Sequence[Mapping[str, object]]) -> str:
    """What is wrong with one call in OpenAI's shape; empty when nothing is."""
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not isinstance(arguments, str):
        return f"not a tool call: {js.as_json(call)[:120]}"  # any length, from a model
    parameters = next((p for offered, p in _parameters(tools) if offered == name), None)
    if parameters is None:
        return f"a call of {name!r}, which is not among the offered tools with parameters"
    try:
        given = js.parse_json(arguments)
    except ValueError as error:
        return f"arguments of {name!r} that are no JSON: {error}"
    broken = violations(parameters, given)
    return f"arguments of {name!r} that do not fit: {broken}" if broken else ""


def _parameters(tools: Sequence[Mapping[str, object]]) -> Iterator[tuple[str, dict[str, object] | None]]:
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping):
            yield str(function.get("name")), function.get("parameters")


def check_tools(tools: object) -> list[dict[str, object]]:
    """The tools. Refuses, by ValueError, tools that are not OpenAI's function tools with valid parameter schemas."""
    if not isinstance(tools, list):
        raise ValueError("tools is a list of {type: function, function: {name, parameters}}")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"tools[{index}] is not {{type: function, function: {{name, parameters}}}}")
        if function.get("parameters") is not None:
            check_schema(function["parameters"])
    return tools


def _expected_names(assertion: Assertion) -> set[str]:
    value = assertion.value
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return {name for item in names if (name := js.trim(js.as_text(item)))}


def _need_names(assertion: Assertion) -> None:
    if not _expected_names(assertion):
        raise ValueError("tool-call-f1 needs the expected tool names: a list, or one text with commas")


@assertion_type("tool-call-f1", check=_need_names, is_share=True)
def tool_call_f1(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """F1 of the set of names called against those expected, at least `threshold` (1); order and repeats are free."""
    expected, actual = _expected_names(assertion), called_names(response.output)
    hits = len(expected & actual)
    f1 = 2 * hits / (len(expected) + len(actual))
    threshold = 1.0 if assertion.threshold is None else assertion.threshold
    goal = f"call {sorted(expected)} (F1 at least {threshold:g})"
    return Finding(f1 >= threshold, goal, f"{sorted(actual)}, F1 {f1:.3f}", f1, f1)


def called_names(output: object) -> set[str]:
    """Names of the tools called, in the shapes of OpenAI, Anthropic and Google, as objects or as JSON text."""
    if isinstance(output, str):
        return _names_in_text(output)
    if isinstance(output, Mapping):
        return _names_in_object(output)
    return {name for item in output if (name := _name_of(item))} if isinstance(output, list) else set()


def _names_in_object(message: Mapping[str, object]) -> set[str]:
    if isinstance(listed := message.get("tool_calls"), list):
        return {name for call in listed if (name := _name_of(call))}
    nested = message.get("toolCall")
    if isinstance(nested, Mapping):
        calls = nested.get("functionCalls")
        return {name for call in calls if (name := _name_of(call))} if isinstance(calls, list) else set()
    if message.get("type") in ("tool_use", "function_call") or "functionCall" in message:
        name = _name_of(message)
        return {name} if name else set()
    return set()


def _name_of(call: object) -> str | None:
    if not isinstance(call, Mapping):
        return None
    if call.get("type") == "tool_use" and isinstance(call.get("name"), str):
        return str(call["name"])
    for key in ("functionCall", "function"):
        if isinstance(call.get(key), Mapping):
            name = call[key].get("name")
            return name if isinstance(name, str) else None
    name = call.get("name")
    return name if isinstance(name, str) else None


def _names_in_text(text: str) -> set[str]:
    """A text that is JSON, or whose lines are: calls written out in the middle of a sentence do not count."""
    try:
        return _names_in_value(js.parse_json(text))
    except ValueError:  # not as a whole: its lines may be
        pass
    names: set[str] = set()
    for line in text.splitlines():
        try:
            names |= _names_in_value(js.parse_json(line))
        except ValueError:  # a line of words, between calls
            continue
    return names


def _names_in_value(value: object) -> set[str]:
    return set() if isinstance(value, str) else called_names(value)

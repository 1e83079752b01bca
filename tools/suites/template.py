"""`{{var}}` templates that can only print what a case holds.

A whitelist of Jinja's syntax in its immutable sandbox: names, fields, a few filters, if, and one level of for. No
calls, no arithmetic, no globals, no environment, so neither code nor a size bomb fits in. Values print as
promptfoo's nunjucks prints them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from jinja2 import Template, TemplateError, nodes
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.tools.suites.budget import BudgetSpent, TextBudget
from tunesmith.tools.suites.grading.javascript import as_json, as_text

MAX_TEMPLATE_CHARS = 200_000  # long texts stand in vars, which are no templates and are not parsed
MAX_RENDERED_CHARS = 2_000_000
"""A template in a loop over a long var writes any number of times what it was given."""
_MARKERS = ("{{", "{%", "{#")
_NAME = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_PASSES = 5  # rounds in which vars are filled into vars: two that name each other would never end
LONE_SURROGATE = "a text holds half of a surrogate pair (such as \\ud83d alone), which is no character; write it whole"
_LOOP_FIELDS = ("index", "index0", "first", "last", "length")
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Filter, nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.For,
)  # fmt: skip


_NOT_CARRIED = (
    "_conversation is not known here, since each case is asked by itself; write the turns before into the prompt, as "
    "messages of user and assistant"
)


class _Missing(Undefined):
    """A name the case does not hold: false in a test, an error when printed."""

    def __str__(self) -> str:
        raise TemplateError(
            f"{{{{{self._undefined_name}}}}} names no var of this case; add the var or correct the name"
        )


def _join(value: Iterable[object], separator: str = "") -> str:
    texts = [as_text(item) for item in value]
    if sum(map(len, texts)) + len(separator) * len(texts) > MAX_RENDERED_CHARS:
        raise TemplateError(f"join makes over {MAX_RENDERED_CHARS} characters")
    return str(separator).join(texts)


def _default(value: object, other: object = "", falsy: bool = False) -> object:
    return other if isinstance(value, Undefined) or (falsy and not value) else value


_FILTERS: dict[str, Callable[..., object]] = {
    "capitalize": lambda value: as_text(value).capitalize(),
    "default": _default,
    "dump": lambda value: as_json(value),
    "first": lambda value: value[0] if value else "",
    "join": _join,
    "last": lambda value: value[-1] if value else "",
    "length": lambda value: len(value),
    "lower": lambda value: as_text(value).lower(),
    "safe": lambda value: value,
    "tojson": lambda value: as_json(value),
    "trim": lambda value: as_text(value).strip(),
    "upper": lambda value: as_text(value).upper(),
}


def _printed(value: object) -> object:
    if isinstance(value, Undefined | str):
        return value
    if isinstance(value, dict):
        return as_json(value)
    return "" if value is None else as_text(value)


class _Environment(ImmutableSandboxedEnvironment):
    """Fields are looked up in the data only: never a Python attribute, so `x.items` is a key like any other."""

    def getattr(self, obj: object, attribute: str) -> object:
        return self.getitem(obj, attribute)

    def getitem(self, obj: object, argument: object) -> object:
        if isinstance(obj, LoopContext):
            name = str(argument)
            return getattr(obj, name) if name in _LOOP_FIELDS else self.undefined(obj=obj, name=name)
        if isinstance(obj, dict) and argument in obj:
            return obj[argument]
        if isinstance(obj, list | str) and argument == "length":
            return len(obj)
        if isinstance(obj, list | str) and type(argument) is int and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(obj=obj, name=str(argument))


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    # 512: as many as a suite usually has; compiling one takes a millisecond.
    environment = _Environment(undefined=_Missing, keep_trailing_newline=True, finalize=_printed, cache_size=512)
    # Only what a suite's templates need: `range` and `lipsum` alone could fill the memory.
    environment.globals.clear()
    environment.filters.clear()
    environment.filters.update(_FILTERS)
    environment.tests.clear()
    return environment


def has_lone_surrogate(text: str) -> bool:
    """Whether `text` holds half a surrogate pair, which no file and no request can hold."""
    try:
        return not text.isascii() and not text.encode()  # what is not ASCII encodes to something, or raises
    except UnicodeEncodeError:
        return True


def render(text: str, values: Mapping[str, object], budget: TextBudget) -> str:
    """`text` with its `{{…}}` filled in. Raises ValueError for syntax outside the whitelist or a missing name."""
    rendered = _rendered(text, values) if any(marker in text for marker in _MARKERS) else text
    budget.take(len(rendered))
    return rendered


def _rendered(text: str, values: Mapping[str, object]) -> str:
    chunks: list[str] = []
    room = MAX_RENDERED_CHARS
    try:
        for chunk in _template(text).generate(values):
            chunks.append(chunk)
            room -= len(chunk)
            if room < 0:
                raise ValueError(f"a template makes over {MAX_RENDERED_CHARS} characters")
            if has_lone_surrogate(chunk):
                raise ValueError(LONE_SURROGATE)
    # whatever a template's own expressions raise
    except (TemplateError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise ValueError(f"the template {text[:60]!r} cannot be filled in: {error}") from None
    return "".join(chunks)


# As many as a suite may hold, and each is filled in for every case.
@lru_cache(maxsize=512)
def _template(text: str) -> Template:
    if len(text) > MAX_TEMPLATE_CHARS:
        raise ValueError(f"a template of {len(text)} characters; at most {MAX_TEMPLATE_CHARS}, put long text in a var")
    try:
        tree = _environment().parse(text)
        _check(tree, in_loop=False)
        return _environment().from_string(tree)
    except TemplateError as error:
        raise ValueError(f"the template {text[:60]!r} is not valid: {error.message}") from None
    except (RecursionError, SyntaxError, MemoryError):  # of the compiler, each at another depth
        raise ValueError(f"the template {text[:60]!r} is nested too deep") from None


def _check(node: nodes.Node, in_loop: bool) -> None:
    kind = type(node).__name__.lower()
    if isinstance(node, nodes.Name) and node.name == "_conversation":
        raise TemplateError(_NOT_CARRIED)
    if not isinstance(node, _ALLOWED):
        raise TemplateError(f"{kind} is not allowed; templates print vars, with if, one level of for, and filters")
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        raise TemplateError(f"no filter {node.name!r}; there are {', '.join(_FILTERS)}")
    if isinstance(node, nodes.Filter) and node.dyn_args is not None:
        raise TemplateError("unpacked arguments are not allowed")
    if isinstance(node, nodes.For):
        if in_loop or node.recursive:
            raise TemplateError("a for inside a for is not allowed; write the inner list out as a var")
        in_loop = True
    for child in node.iter_child_nodes():
        _check(child, in_loop)


def fill_vars(values: Mapping[str, object], budget: TextBudget) -> dict[str, object]:
    """Vars whose text names other vars, filled in, five rounds; text that is no template of known names stays as it is.

    One newline at the end of a text var is dropped, as promptfoo does. Raises ValueError where it grows too long.
    """
    for value in values.values():
        if not isinstance(value, str):  # text is counted as it is filled in
            budget.take_value(value)
    filled = {name: value.removesuffix("\n") if isinstance(value, str) else value for name, value in values.items()}
    for _ in range(_PASSES):
        before = dict(filled)
        for name, value in filled.items():
            if isinstance(value, str) and "{{" in value:
                filled[name] = _fill(value, filled, budget)
        if filled == before:
            break
    return {
        name: _attempt(value, filled, budget) if isinstance(value, str) else value for name, value in filled.items()
    }


def _attempt(text: str, values: Mapping[str, object], budget: TextBudget) -> str:
    """`text` rendered where that works: a var is data, and braces in data are no mistake."""
    try:
        return render(text, values, budget)
    except BudgetSpent:  # a ValueError too, of the suite and not of this text
        raise
    except ValueError:  # a text with braces that are no template
        return text


def _fill(text: str, values: Mapping[str, object], budget: TextBudget) -> str:
    room = MAX_RENDERED_CHARS - len(text)

    def replace(match: re.Match[str]) -> str:
        nonlocal room
        value = values.get(match[1])
        if match[1] not in values:
            return match[0]
        printed = str(_printed(value))
        room -= len(printed)
        if room < 0:
            raise ValueError(f"vars that name each other make over {MAX_RENDERED_CHARS} characters")
        budget.take(len(printed))
        return printed

    return _NAME.sub(replace, text)

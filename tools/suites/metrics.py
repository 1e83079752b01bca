"""derivedMetrics: figures computed from a suite's named scores, by arithmetic that can only compute.

As in promptfoo a name stands for the sum of its weighted scores over all cases and `__count` for their number; a
metric may use those before it. Not covered: mathjs beyond the operators + - * / % ^ and the functions below.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from pydantic import BaseModel, ConfigDict

from tunesmith.tools.suites.grading import Grade

COUNT = "__count"
MAX_CHARS = 500
"""Of an expression: Python parses it, and nests as deep as it is long."""

_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "abs": abs,
    "ceil": math.ceil,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "log10": math.log10,
    "max": lambda *values: max(values),
    "mean": lambda *values: math.fsum(values) / len(values),
    "min": lambda *values: min(values),
    "pow": operator.pow,
    "round": lambda value: math.copysign(math.floor(abs(value) + 0.5), value),
    "sqrt": math.sqrt,
}


class DerivedMetric(BaseModel):
    """A name and the expression that it stands for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: str


def check_metric(metric: DerivedMetric, known: Iterable[str]) -> None:
    """Refuse, by ValueError, an expression outside the subset, or a name that is not among `known`."""
    known = {*known, COUNT}
    for node in ast.walk(_parsed(metric.value)):
        if isinstance(node, ast.Name) and node.id not in known and node.id not in _FUNCTIONS:
            raise ValueError(
                f"derivedMetrics: {metric.name!r} uses {node.id!r}, which no assertion names as its metric"
            )


def derive(metrics: Sequence[DerivedMetric], grades: Iterable[Grade]) -> dict[str, float | None]:
    """Each metric's value over the cases that were graded without an error; None where it cannot be computed."""
    grades = [grade for grade in grades if not grade.error]
    values = {**named_sums(grades)[0], COUNT: float(len(grades))}
    derived: dict[str, float | None] = {}
    for metric in metrics:
        derived[metric.name] = value = _value(metric.value, values)
        if value is not None:
            values[metric.name] = value
    return derived


def named_sums(grades: Iterable[Grade]) -> tuple[dict[str, float], dict[str, float]]:
    """For each metric the sum of its weighted scores over the cases, and the sum of those weights."""
    scores: dict[str, float] = {}
    weights: dict[str, float] = {}
    for grade in grades:
        for name, score in grade.named_scores.items():
            scores[name] = scores.get(name, 0.0) + score * grade.named_weights[name]
            weights[name] = weights.get(name, 0.0) + grade.named_weights[name]
    return scores, weights


def _value(expression: str, values: Mapping[str, float]) -> float | None:
    try:
        value = _evaluate(_parsed(expression).body, values)
        return value if not isinstance(value, complex) and math.isfinite(value) else None
    except (ArithmeticError, ValueError, KeyError, TypeError):  # such as a mean of none; a metric decides nothing
        return None


@cache
def _parsed(expression: str) -> ast.Expression:
    """The expression's tree. Raises ValueError for what is not arithmetic."""
    excerpt = expression[:60]
    if len(expression) > MAX_CHARS:
        raise ValueError(f"derivedMetrics: an expression of {len(expression)} characters; at most {MAX_CHARS}")
    if "**" in expression or "//" in expression or "\n" in expression.strip():
        raise ValueError(f"derivedMetrics: {excerpt!r} is no arithmetic; powers are written ^")
    try:
        tree = ast.parse(expression.strip().replace("^", "**"), mode="eval")
    # Python's parser may say MemoryError for what is nested too deep.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"derivedMetrics: {excerpt!r} is no arithmetic") from None
    _check(tree.body, excerpt)
    return tree


def _check(node: ast.AST, excerpt: str) -> None:
    operands: Sequence[ast.AST]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        operands = (node.left, node.right)
    elif isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        operands = (node.operand,)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args and not node.keywords:
        name = node.func.id
        if name not in _FUNCTIONS:
            raise ValueError(f"derivedMetrics: {name!r} is no function here; there are {', '.join(_FUNCTIONS)}")
        operands = node.args
    elif isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        operands = ()
    else:
        kind = type(node).__name__.lower()
        raise ValueError(
            f"derivedMetrics: {excerpt!r} holds a {kind}; only numbers, metric names, + - * / % ^ and calls"
        )
    for operand in operands:
        _check(operand, excerpt)


def _evaluate(node: ast.expr, values: Mapping[str, float]) -> float:
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_evaluate(node.left, values), _evaluate(node.right, values))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_evaluate(node.operand, values))
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)  # `check_metric` let nothing else through
        return float(_FUNCTIONS[node.func.id](*(_evaluate(argument, values) for argument in node.args)))
    if isinstance(node, ast.Name):
        return values[node.id]
    assert isinstance(node, ast.Constant) and isinstance(node.value, int | float)  # as above
    return float(node.value)

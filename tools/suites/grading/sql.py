"""Assertions on SQL: it parses (sqlglot), and touches only the tables and columns that are allowed.

Grammars differ from parser to parser: where sqlglot and promptfoo's node-sql-parser disagree, sqlglot decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunesmith.tools.suites.grading import javascript as js
from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Response, assertion_type
from tunesmith.tools.suites.grading.text import quoted

if TYPE_CHECKING:
    from sqlglot import exp

MAX_CHARS = 100_000
"""Ten times the longest answer's; outputs that a person stored may have any length."""
# promptfoo's names → sqlglot's.
_DIALECTS = {
    "mysql": "mysql", "mariadb": "mysql", "postgresql": "postgres", "sqlite": "sqlite", "transactsql": "tsql",
    "bigquery": "bigquery", "snowflake": "snowflake", "redshift": "redshift", "hive": "hive", "athena": "athena",
    "trino": "trino",
}  # fmt: skip
_KEYS = frozenset(("databaseType", "allowedTables", "allowedColumns"))
_QUOTED = re.compile(
    r"'(?:\\.|''|[^'\\])*(?:'|\Z)|\"(?:\\.|\"\"|[^\"\\])*(?:\"|\Z)|`(?:\\.|``|[^`\\])*(?:`|\Z)"
    r"|--[^\r\n]*|\#[^\r\n]*|/\*.*?(?:\*/|\Z)|\$(\w*)\$.*?(?:\$\1\$|\Z)",
    re.DOTALL,
)
_MODIFIER = (
    r"(?:all|distinct(?:row)?|high_priority|straight_join|"
    r"sql_(?:big_result|buffer_result|cache|calc_found_rows|no_cache|small_result))"
)
# "SELECT name age FROM": two names without a comma parse as an alias and are far more often a mistake.
_NO_COMMA = re.compile(
    rf"\bselect\s+(?:{_MODIFIER}\s+)*(?!{_MODIFIER}\b)[a-z_]\w*\s+[a-z_]\w*\s+from\b", re.IGNORECASE | re.ASCII
)
_FENCE = re.compile(r"^[ \t]{0,3}(`{3,}|~{3,})(.*)$")


def _need_rules(assertion: Assertion) -> None:
    value = assertion.value
    if value in (None, ""):
        return
    if not isinstance(value, dict) or value.keys() - _KEYS:
        raise ValueError(f"{assertion.type} takes an object with {', '.join(sorted(_KEYS))}")
    name = value.get("databaseType", "MySQL")
    if not isinstance(name, str) or name.lower() not in _DIALECTS:
        raise ValueError(f"{assertion.type}: databaseType {name!r} is not known; one of {', '.join(sorted(_DIALECTS))}")
    for key in ("allowedTables", "allowedColumns"):
        rules = value.get(key) or []
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
            raise ValueError(f"{assertion.type}: {key} is a list of patterns such as ['select::null::orders']")
        for rule in rules:
            try:
                js.compiled(f"^(?:{rule})$")
            except ValueError as error:
                raise ValueError(f"{assertion.type}: {rule!r} in {key} is no pattern: {error}") from None


@assertion_type("is-sql", check=_need_rules, needs_value=False)
def is_sql(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """The whole output is SQL in the dialect `databaseType` (MySQL), with `allowedTables` and `allowedColumns` only."""
    broken = wrong_sql(response.output_text, _rules(assertion))
    return Finding(not broken, "be SQL", broken)


@assertion_type("contains-sql", check=_need_rules, needs_value=False)
def contains_sql(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """A fenced block of SQL that `is-sql` would pass; without any such block, the whole output."""
    text = response.output_text
    candidates = [block for block in _sql_blocks(text) or [text] if js.trim(block)]
    reasons = [wrong_sql(candidate, _rules(assertion)) for candidate in candidates]
    return Finding("" in reasons, "contain SQL", reasons[0] if reasons else quoted(text))


def _rules(assertion: Assertion) -> dict[str, object]:
    return assertion.value if isinstance(assertion.value, dict) else {}


def _sql_blocks(text: str) -> list[str]:
    blocks: list[str] = []
    body: list[str] | None = None
    mark, is_sql = "", False
    for line in re.split(r"\r\n?|\n", text):
        fence = _FENCE.match(line)
        if body is None:
            if fence:
                body, mark, is_sql = [], fence[1], js.trim(fence[2]).lower() in ("", "sql")
        elif fence and not fence[2].strip(" \t") and fence[1][0] == mark[0] and len(fence[1]) >= len(mark):
            blocks += ["\n".join(body).strip()] if is_sql else []
            body = None
        else:
            body.append(line)
    return blocks


def wrong_sql(text: str, rules: dict[str, object]) -> str:
    """Why `text` is not SQL that the rules allow; empty when it is. Raises CannotGrade for one that is too long."""
    if len(text) > MAX_CHARS:
        raise js.CannotGrade(f"is-sql: {len(text)} characters; at most {MAX_CHARS}")
    name = str(rules.get("databaseType") or "MySQL")
    plain = _QUOTED.sub(" ? ", js.trim(text))
    if not js.trim(text) or text.count("`") % 2 or _NO_COMMA.search(plain):
        return f"not {name}'s syntax"
    try:
        statements = _statements(text, _DIALECTS[name.lower()])
    except ValueError as error:
        return f"not {name}'s syntax: {error}"
    for key, read in (("allowedTables", _tables), ("allowedColumns", _columns)):
        listed = rules.get(key)
        allowed = [str(rule) for rule in listed] if isinstance(listed, list) else []
        # A rule for a table's column also allows that column where the query names no table.
        allowed += [re.sub(r"^([^:]*)::.*::", r"\1::null::", rule) for rule in allowed if key == "allowedColumns"]
        for use in (use for statement in statements for use in read(statement)) if allowed else ():
            if not any(js.matches(f"^(?:{rule})$", use.lower()) for rule in map(str.lower, allowed)):
                return f"{use} is not among the {key}"
    return ""


def _statements(text: str, dialect: str) -> list[exp.Expression]:
    """The parsed statements. Raises ValueError for anything that is no statement of SQL."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    kinds = (
        exp.Query, exp.DML, exp.DDL, exp.Drop, exp.Alter, exp.Use, exp.Show, exp.Set, exp.TruncateTable, exp.Describe,
    )  # fmt: skip
    try:
        statements = sqlglot.parse(text, dialect=dialect)
    except (SqlglotError, RecursionError) as error:  # of a nesting that its parser cannot follow
        raise ValueError(str(error).split("\n")[0][:200]) from None
    statements = [statement for statement in statements if statement is not None]
    if not statements or not all(isinstance(statement, kinds) for statement in statements):
        raise ValueError("no statement")
    return statements


def _tables(statement: exp.Expression) -> Iterator[str]:
    """Every table touched as promptfoo writes it: `select::DATABASE::TABLE`, the target of a change by its verb."""
    from sqlglot import exp

    ctes = {cte.alias for cte in statement.find_all(exp.CTE)}
    target = None if isinstance(statement, exp.Query) else statement.find(exp.Table)
    for table in statement.find_all(exp.Table):
        if table.name not in ctes:
            yield f"{_verb(statement) if table is target else 'select'}::{table.db or 'null'}::{table.name}"


def _verb(statement: exp.Expression) -> str:
    return str(statement.key).removesuffix("table")


def _columns(statement: exp.Expression) -> Iterator[str]:
    """Every column read or written, as `select::TABLE::COLUMN`; TABLE is null where the query names none."""
    from sqlglot import exp

    names = {table.alias_or_name: table.name for table in statement.find_all(exp.Table)}
    written = {id(change.this) for change in statement.args.get("expressions") or [] if isinstance(change, exp.EQ)}
    for column in statement.find_all(exp.Column):
        table = names.get(column.table, column.table) or "null"
        name = "(.*)" if isinstance(column.this, exp.Star) else column.name
        yield f"{'update' if id(column) in written else 'select'}::{table}::{name}"
    for star in statement.find_all(exp.Star):
        if isinstance(star.parent, exp.Select):
            yield "select::null::(.*)"
    for definition in statement.find_all(exp.ColumnDef):
        yield f"create::null::{definition.name}"
    if isinstance(statement, exp.Insert | exp.Delete):
        target = statement.find(exp.Table)
        schema = statement.this if isinstance(statement.this, exp.Schema) else None
        for name in [part.name for part in schema.expressions] if schema else ["(.*)"]:
            yield f"{_verb(statement)}::{target.name if target else 'null'}::{name}"

"""Assertions on code in the output: it is parsed, and never run.

promptfoo has no such type: `is-code` is tunesmith's own.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Mapping

from tunesmith.tools.core.yaml_nodes import YamlRefused, parse_yaml
from tunesmith.tools.suites.grading import javascript as js
from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Response, assertion_type
from tunesmith.tools.suites.grading.text import quoted

MAX_CHARS = 20_000
"""Twice the longest answer's; outputs that a person stored may have any length."""
_KEYS = frozenset(("language", "same", "fenced"))
_FENCE = re.compile(r"\s*(`{3,}|~{3,})[ \t]*[\w+-]*[ \t]*\n(?P<code>.*)\n[ \t]*\1\s*", re.DOTALL)


def _python(text: str) -> object:
    return ast.dump(ast.parse(text))  # nothing is folded: 9**9**9 stays three numbers


def _yaml(text: str) -> object:
    value = parse_yaml(text, "output").plain
    if not isinstance(value, dict | list):
        raise ValueError("it is neither a mapping nor a list")  # any sentence is YAML
    return value


def _sql(text: str) -> object:
    import sqlglot

    statements = sqlglot.parse(text)
    if not statements or None in statements or any(s and s.key == "command" for s in statements):
        raise ValueError("it is no SQL that can be parsed")
    return [s.sql(normalize=True, comments=False) for s in statements if s]


_PARSERS: Mapping[str, Callable[[str], object]] = {
    "json": js.parse_json,
    "python": _python,
    "sql": _sql,
    "toml": tomllib.loads,
    "yaml": _yaml,
}


def is_parsed(language: str) -> bool:
    """Whether code of this language can be parsed here."""
    return language in _PARSERS


def _need_language(assertion: Assertion) -> None:
    value = assertion.value
    if not isinstance(value, dict) or value.keys() - _KEYS or value.get("language") not in _PARSERS:
        raise ValueError(f"is-code takes an object with a language out of {', '.join(_PARSERS)}, and same or fenced")
    if not isinstance(value.get("fenced", False), bool):
        raise ValueError("is-code: fenced is true or false")
    if "same" in value:
        _, wrong = _parsed(str(value["language"]), str(value["same"]), None)
        if wrong:
            raise ValueError(f"is-code: the text to compare with is no {value['language']}: {wrong}")


@assertion_type("is-code", check=_need_language)
def is_code(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """The whole output is code of `language`, which is parsed and never run; with `same`, code that parses alike.

    `fenced`: whether it is one block in a fence; either way where nothing is said. Comments, white space and the kind
    of quotes make no difference, names and the order of statements do.
    """
    value = assertion.value
    assert isinstance(value, dict)
    language = str(value["language"])
    parsed, wrong = _parsed(language, response.output_text, value.get("fenced"))
    if wrong:
        return Finding(False, f"be {language}", wrong)
    if "same" not in value:
        return Finding(True, f"be {language}")
    wanted, _ = _parsed(language, str(value["same"]), None)
    holds = parsed == wanted if isinstance(wanted, str) else js.strictly_equal(parsed, wanted)
    return Finding(holds, f"be {language} that parses like {quoted(str(value['same']))}", quoted(response.output_text))


def _parsed(language: str, text: str, fenced: object) -> tuple[object, str]:
    """What the code is, and what is wrong with it; empty: nothing."""
    if len(text) > MAX_CHARS:
        return None, f"{len(text):,} characters; at most {MAX_CHARS:,} are parsed"
    block = _FENCE.fullmatch(text)
    if fenced is not None and bool(block) != fenced:
        return None, "no block in a fence" if fenced else "a block in a fence"
    code = block["code"] if block else text
    if not code.strip():
        return None, "nothing"
    try:
        return _PARSERS[language](code), ""
    # Python's parser ends some nestings so
    except (SyntaxError, ValueError, YamlRefused, RecursionError, MemoryError) as error:
        return None, f"{quoted(text)}: {str(error)[:120] or type(error).__name__}"
    except Exception as error:  # sqlglot's own, which must not be imported at the top
        if not type(error).__module__.startswith("sqlglot"):
            raise
        return None, f"{quoted(text)}: {str(error)[:120]}"

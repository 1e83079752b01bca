# ruff: noqa: E501  (tables of one-line suites read best unbroken)
"""Broken and hostile suites, through the real command: exit code 2, the place, the reason, and a bounded price.

All are forked off one small process that has done the command's imports, so that a suite's peak memory is its own and
not the test's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# One process runs them all, so one worker asks for it: each of four would run it again.
pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("bad suites")]

PEAK_KB = 200 * 1024
HEAD = "prompts: ['{{q}}']\n"
ONE = HEAD + "tests:\n  - vars: {q: hello}\n    assert:\n      - "  # its assertion stands on line 5


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _schema_that_doubles() -> str:
    twice = ", ".join(
        f'd{i}: {{allOf: [{{$ref: "#/definitions/d{i + 1}"}}, {{$ref: "#/definitions/d{i + 1}"}}]}}' for i in range(40)
    )
    return f'{{type: is-json, value: {{allOf: [{{$ref: "#/definitions/d0"}}], definitions: {{{twice}, d40: {{}}}}}}}}'


def _vars_that_double() -> str:
    return "".join(f"      v{i}: '{{{{v{i + 1}}}}}{{{{v{i + 1}}}}}'\n" for i in range(40))


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))

# Name → the suite, what its message must say, and the files beside it.
BAD: dict[str, tuple[Any, str, dict[str, Any]]] = {
    # bombs
    "billion laughs": (LAUGHS, r"suite.yaml:\d+: aliases unfold", {}),
    "merge bomb": (MERGES, r"suite.yaml:\d+: aliases unfold", {}),
    "deep flow": ("a: " + "[" * 100_000, r"suite.yaml:1: .*nest", {}),
    "deep block": ("".join(" " * i + "a:\n" for i in range(2000)), r"suite.yaml:\d+: nested over", {}),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(600_000)), r"suite.yaml:\d+: over 300000 values", {}),
    "many items": ("tests:\n" + "- a\n" * 2_000_000, r"suite.yaml:\d+: over 300000 values", {}),
    "10 MB string": (HEAD + "tests: [{vars: {q: '" + "x" * (10 << 20) + "'}}]", r"suite.yaml: over 10 MB", {}),
    "9 MB prompt": ("prompts: ['" + "x" * (9 << 20) + "{{q}}']\ntests: [{vars: {q: a}}]", r"suite.yaml:2: a template of", {}),
    "9 MB key": ("? " + "k" * (9 << 20) + "\n: 1", r"suite.yaml:1: a key of 9437184 characters", {}),
    "9 MB JSON key": (HEAD + "tests: t.json", r"t.json:1: unknown key", {"t.json": '[{"' + "k" * (9 << 20) + '": 1}]'}),
    "quotes": ('"' * 3_000_000, r"suite.yaml:1: not valid YAML", {}),
    "braces": ("{{{" * 3_000_000, r"suite.yaml:1: ", {}),
    "many flow items": ("tests: [" + "1," * 4_000_000 + "]", r"suite.yaml:1: over 300000 values", {}),
    "9 MB of text for tests": ("tests: '" + "x" * (9 << 20) + "'", r"suite.yaml:1: ", {}),
    "deep json": (HEAD + "tests: t.json", r"t.json:1: nested too deep", {"t.json": "[" * 500_000}),
    "many json lists": (HEAD + "tests: t.json", r"t.json: over \d+ values", {"t.json": "[" + "[]," * 3_000_000 + "[]]"}),
    "json number of a million digits": (HEAD + "tests: t.json", r"t.json:1: not valid JSON", {"t.json": '[{"vars": {"q": ' + "9" * 1_000_000 + "}}]"}),
    "vars that multiply": (HEAD + "tests: [{vars: {" + ", ".join(f"v{i}: [a, b, c, d, e, f, g, h, i, j]" for i in range(9)) + ", q: a}}]", "suite.yaml:2: its vars multiply to 1000000000", {}),
    "vars that double": (HEAD + "tests:\n  - vars:\n      q: '{{v0}}'\n" + _vars_that_double() + "      v40: xxxxxxxxxx\n", r"suite.yaml:3: .*over 2000000 characters|suite.yaml:3: .*names no var", {}),
    "too many cases in a test": ("prompts: [" + ", ".join(f"'{i} {{{{q}}}}'" for i in range(500)) + "]\ntests:\n" + "- vars: {q: [" + ", ".join(f"t{i}" for i in range(100)) + "]}\n", r"suite.yaml:3: .*multiply to 50000 cases", {}),
    "too many cases in all": (HEAD + "tests:\n" + "".join(f"- vars: {{q: [{', '.join(f't{i}x{k}' for i in range(200))}]}}\n" for k in range(110)), r"suite.yaml:\d+: over 20000 cases", {}),
    "endless repeat": (HEAD + "tests: [{vars: {q: a}, options: {repeat: 1000000000}}]", "suite.yaml:2: repeat is a whole number", {}),
    "schema that doubles": (ONE + _schema_that_doubles(), "suite.yaml:5: the JSON schema unfolds to over", {}),
    # patterns and templates
    "huge regex": (ONE + "{type: regex, value: '" + "a" * 1_000_000 + "'}", "suite.yaml:5: .*1000000 characters", {}),
    "deep regex": (ONE + "{type: regex, value: '" + "(" * 2400 + "a" + ")" * 2400 + "'}", "suite.yaml:5: the regex .* is not valid", {}),
    "repeats of repeats": (ONE + "{type: regex, value: '((((a{9999}){9999}){9999}){9999})b{99999999999}'}", "suite.yaml:5: the regex .* is not valid", {}),
    "schema with a huge pattern": (ONE + "{type: is-json, value: {type: string, pattern: '" + "a|" * 4000 + "'}}", "suite.yaml:5: .*pattern at # is not valid", {}),
    "template that multiplies": (ONE + "{type: contains, value: \"{{ 'a' * 999999999 }}\"}", "suite.yaml:5: .*mul is not allowed", {}),
    "deep template": (HEAD + "tests: [{vars: {q: a}, assert: [{type: contains, value: '{{ " + "(" * 3000 + "q" + ")" * 3000 + " }}'}]}]", "suite.yaml:2: .*nested too deep|suite.yaml:2: .*not valid", {}),
    # paths
    "path out": (HEAD + "tests: '../outside.yaml'", "suite.yaml:1: '../outside.yaml' leaves the suite's folder", {}),
    "path out by a var": (HEAD + "tests: [{vars: {q: ['file://../../etc/passwd']}}]", "suite.yaml:2: .*leaves the suite's folder", {}),
    "absolute path": (HEAD + "tests: 'file:///etc/passwd'", "suite.yaml:1: .*leaves the suite's folder", {}),
    "link out": (HEAD + "tests: link.yaml", "suite.yaml:1: link.yaml goes through a symbolic link", {"link.yaml": _link("/etc/hostname")}),
    "folder link out": (HEAD + "tests: 'linked/*.yaml'", "suite.yaml:1: .*(symbolic link|no file matches)", {"linked": _link("/etc")}),
    "pipe": (HEAD + "tests: pipe.yaml", "pipe.yaml is not a regular file", {"pipe.yaml": _pipe}),
    "itself": (HEAD + "tests: suite.yaml", "suite.yaml:1: unknown key '(prompts|tests)' in a test", {}),
    # code
    "javascript": (ONE + "{type: javascript, value: 'process.exit()'}", "suite.yaml:5: the assertion type 'javascript' is refused: it runs code; use", {}),
    "program": (HEAD + "providers: ['exec: rm -rf .']\ntests: [{vars: {q: a}}]", "suite.yaml:1: the provider .* runs a program", {}),
    "python object": (HEAD + "tests: !!python/object/apply:os.system ['true']", "suite.yaml:2: the YAML tag .* is refused", {}),
    # values of the wrong kind
    "pattern of half a folder": (HEAD + "tests: 'a**/*.yaml'", r"suite.yaml:1: the pattern 'a\*\*/\*.yaml' cannot be read", {}),
    "file name of 300 characters": (HEAD + "tests: [{vars: {q: 'file://" + "n" * 300 + ".txt'}}]", "suite.yaml:2: .*cannot be read \\(File name too long", {}),
    "evaluateOptions that are text": ("evaluateOptions: fast\n" + HEAD + "tests: [{vars: {q: a}}]", "suite.yaml:1: evaluateOptions is a mapping", {}),
    "number of 400 digits": (HEAD + "tests: t.json", "t.json:1: not valid JSON: a number of 400 digits", {"t.json": '[{"vars": {"q": ' + "9" * 400 + "}}]"}),
    "half a surrogate pair": (HEAD + "tests: t.json", "t.json:2: a text holds half of a surrogate pair", {"t.json": '[{"vars": {"q": "a"}},\n {"vars": {"q": "\\ud83d"}}]'}),
    "half a pair as a name": (HEAD + "tests: t.jsonl", "t.jsonl:1: a text holds half of a surrogate pair", {"t.jsonl": '{"vars": {"q": "a", "\\ud83d": 1}}'}),
    "half a pair in a template": ("prompts: ['{{ \"\\ud83d\" }}{{q}}']\ntests: [{vars: {q: a}}]", "suite.yaml:2: .*half of a surrogate pair", {}),
    "half a pair in messages as text": ("prompts: ['[{\"role\": \"user\", \"content\": \"\\ud83d {{q}}\"}]']\ntests: [{vars: {q: a}}]", "suite.yaml:[12]: .*half of a surrogate pair", {}),
    **{
        f"{key}: {value}": (f"providers: [{{id: 'openai:chat:x', config: {{{key}: {value}}}}}]\n" + HEAD + "tests: [{vars: {q: a}}]", f"suite.yaml:1: {key} (in a provider's config )?is ", {})
        for key, value in (("max_tokens", "lots"), ("max_tokens", "null"), ("max_tokens", "0"), ("temperature", "hot"), ("temperature", "true"), ("seed", "abc"), ("stop", "[5]"), ("response_format", "json"), ("tool_choice", "5"))
    },
    # cycles and doubles
    "schema cycle": (ONE + '{type: is-json, value: {$ref: "#/definitions/a", definitions: {a: {$ref: "#/definitions/b"}, b: {$ref: "#/definitions/a"}}}}', r"suite.yaml:5: \$ref cycle", {}),
    "template cycle": ("assertionTemplates: {a: {$ref: '#/assertionTemplates/b'}, b: {$ref: '#/assertionTemplates/a'}}\n" + ONE + "{$ref: '#/assertionTemplates/a'}", r"suite.yaml:6: \$ref cycle", {}),
    "an id twice": (HEAD + "tests:\n- {vars: {q: a}, metadata: {case_id: x}}\n- {vars: {q: b}, metadata: {case_id: x}}\n", "suite.yaml:4: the case id 'x' is taken by the test at .*suite.yaml:3", {}),
    # encodings and tables
    "no UTF-8": (b"prompts: [a]\ntests: \xff\xfe", "suite.yaml:2: not UTF-8", {}),
    "UTF-16": ("prompts: [a]".encode("utf-16"), "suite.yaml:1: not UTF-8", {}),
    "NUL": (b"prompts: [a\x00b]", "suite.yaml:1: not valid YAML", {}),
    "control character in an id": (HEAD + 'tests: [{vars: {q: a}, metadata: {case_id: "a\\u001b[2J"}}]', "suite.yaml:2: .*control character", {}),
    "endless CSV cell": (HEAD + "tests: t.csv", "t.csv:\\d+: not valid CSV", {"t.csv": 'q\n"' + "x" * 3_000_000}),
    "JSON test with a typo": (HEAD + "tests: t.json", "t.json:3: unknown key 'asert' in a test; did you mean 'assert'", {"t.json": '[{"vars": {"q": "a"}},\n\n  {"vars": {"q": "b"}, "asert": []}]'}),
    "broken JSON line": (HEAD + "tests: t.jsonl", "t.jsonl:3: not valid JSON", {"t.jsonl": '{"vars": {"q": "a"}}\n\n{"vars": \n'}),
}  # fmt: skip

# Runs the command on every suite it is told of; a line of JSON for each.
_RUNNER = """
import json, os, sys
from tunesmith.agent import cli
from tunesmith.agent.commands import output, parser, settings, suites
from tunesmith.tools.suites import loading, parse
for path in sys.stdin.read().splitlines():
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(theirs, 1), os.dup2(theirs, 2), os.close(theirs), os.close(ours)
        code = cli.main(["suite", "check", path])
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    os.close(theirs)
    with open(ours, "rb") as told:
        said = told.read()
    _, status, used = os.wait4(child, 0)
    code, text = os.waitstatus_to_exitcode(status), said[:2000].decode("utf-8", "replace")
    print(json.dumps([path, code, used.ru_maxrss, len(said), text]), flush=True)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Name → [exit code, peak KB, characters said, what was said]."""
    paths = {name: written(tmp_path_factory.mktemp("bad"), *BAD[name][::2]) for name in BAD}
    told = "".join(f"{path}\n" for path in paths.values())
    done = subprocess.run([sys.executable, "-c", _RUNNER], input=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    by_path = {line[0]: line[1:] for line in map(json.loads, done.stdout.splitlines())}
    return {name: by_path[str(path)] for name, path in paths.items()}


def written(folder: Path, text: Any, beside: dict[str, Any]) -> Path:
    for name, content in {"suite.yaml": text, **beside}.items():
        path = folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "suite.yaml"


def test_a_bad_suite_is_refused_with_place_and_reason_in_bounded_memory(runs: dict[str, list[Any]]) -> None:
    wrong = {}
    for name, (code, peak_kb, length, said) in runs.items():
        told = re.search(BAD[name][1], said.replace("\n", " ")) and "Traceback" not in said and length < 1500
        if code != 2 or not told or peak_kb >= PEAK_KB:
            wrong[name] = (code, peak_kb, length, said)
    assert not wrong


def test_there_are_thirty_of_them() -> None:
    assert len(BAD) >= 30

"""What a stranger's suite, template or answer may cost: each hostile one ends, in little memory, in a line.

How soon, `bench/limits.py` measures.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tunesmith.agent.cli import main
from tunesmith.memory.errors import BadInput
from tunesmith.tools.imports.formats import convert
from tunesmith.tools.models.chat_template import takes_tools
from tunesmith.tools.suites.budget import MAX_SUITE_CHARS, BudgetSpent, TextBudget
from tunesmith.tools.suites.files import SuiteFiles
from tunesmith.tools.suites.grading import Assertion, CannotGrade, Response, json_output, schema
from tunesmith.tools.suites.grading.core import TYPES, GradingContext
from tunesmith.tools.suites.grading.schema import violations
from tunesmith.tools.suites.loading import load_suites
from tunesmith.tools.suites.template import fill_vars, render

# --- graders

UNIQUE = {"type": "array", "uniqueItems": True}
MANY = {"items": {"anyOf": [{"type": "string"}] * 500 + [{"type": "integer"}]}}
ANSWERS: dict[str, tuple[str, str, object]] = {
    "loose objects": ("contains-json", ("{a: [" + "{b: 1}, " * 12_000 + "]}") * 20, {"required": ["z"]}),
    "loose numbers": ("contains-json", ("{a: [" + "1, 2, " * 16_000 + "]}") * 20, {"required": ["z"]}),
    "objects that are none": ("contains-json", "{a b c " * 50_000, None),
    "unique objects": ("is-json", json.dumps([{"a": number} for number in range(20_000)]), UNIQUE),
    "unique, of two kinds": ("is-json", json.dumps([n if n % 2 else str(n) for n in range(20_000)]), UNIQUE),
    "many schemas for many items": ("is-json", json.dumps([0] * 200_000), MANY),
    "long texts apart": ("levenshtein", "ab" * 500_000, "ba" * 500_000),
    "texts at the limit": ("levenshtein", "ab" * 50_000, "cd" * 50_000),
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_is_graded_or_said_to_be_too_long(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    kind, text, value = ANSWERS[name]
    for module, limit in ((schema, "CHECK_S"), (json_output, "_LOOSE_S")):  # what takes all its seconds has few here
        monkeypatch.setattr(module, limit, getattr(module, limit) / 8)
    try:
        TYPES[kind].handler(Assertion(type=kind, value=value), Response(text=text), GradingContext())
    except CannotGrade as refused:
        assert len(str(refused)) < 300


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ([1, 1.0], False), ([1, True], True), ([0, False], True), ([{"a": 1}, {"a": 1.0}], False), ([], True),
        ([{"a": 1}, {"a": True}], True), ([[1], [True]], True), ([[1, 2], [2, 1]], True), (["1", 1], True),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False), ([None, None], False), ([["list"], "list"], True),
        ([{}, []], True), ([[], []], False), ([["bool", True], True], True),
    ],
)  # fmt: skip
def test_unique_items_are_those_that_json_schema_calls_so(items: list[object], unique: bool) -> None:
    import jsonschema

    assert jsonschema.Draft7Validator(UNIQUE).is_valid(items) is unique
    assert (violations(UNIQUE, items) == "") is unique


# --- suites


def suite(folder: Path, text: str, **beside: str) -> Path:
    for name, content in {"suite.yaml": text, **beside}.items():
        (folder / name).write_text(content)
    return folder / "suite.yaml"


def _cases(count: int, var: str, prompt: str = "{{doc}} {{n}}", more: str = "") -> str:
    tests = "".join(f"  - vars: {{n: 'x{number}'}}\n" for number in range(count))
    return f"prompts: ['{prompt}']\ndefaultTest:\n  vars: {{doc: '{var}'}}\n{more}tests:\n{tests}"


LONG = "word " * 380_000
ONE = "tests:\n  - vars:\n      a: {}\n"
SUITES: dict[str, tuple[str, dict[str, str]]] = {
    "a long document in every case": (_cases(1000, LONG), {}),
    "a long document that no prompt shows": (_cases(1000, LONG, "{{n}}"), {}),
    "a long document beside": (_cases(1000, "file://doc.txt"), {"doc.txt": LONG}),
    "a long value to find": (_cases(1000, "x", more=f"  assert: [{{type: contains, value: '{LONG}'}}]\n"), {}),
    "a long value in a list": (_cases(1000, "x", more=f"  assert: [{{type: contains-any, value: ['{LONG}']}}]\n"), {}),
    "a long value beside": (
        _cases(1000, "x", more="  assert: [{type: contains, value: 'file://doc.txt'}]\n"), {"doc.txt": LONG},
    ),
    "long metadata": (_cases(1000, "x", more=f"  metadata: {{note: '{LONG}'}}\n"), {}),
    "many vars of one case": (
        "prompts: ['{{v1}}']\n" + ONE.format("'" + LONG[:1_900_000] + "'")
        + "".join(f"      v{number}: '{{{{a}}}}'\n" for number in range(1000)), {},
    ),
    "many messages of one case": (
        "prompts:\n  - [" + "{role: user, content: ' {{a}}'}, " * 1000 + "]\n" + ONE.format(f"'{LONG}'"), {},
    ),
    "one file a thousand times": (
        "prompts: ['{{n}}']\ntests: [" + "'file://t.yaml', " * 1000 + "]\n", {"t.yaml": "# " + LONG + "\n[]\n"},
    ),
}  # fmt: skip


def megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.mark.heavy
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_that_grows_is_refused_before_it_fills_the_memory(tmp_path: Path, name: str) -> None:
    text, beside = SUITES[name]
    path = suite(tmp_path, text, **beside)
    before = megabytes()

    with pytest.raises(BadInput, match=f"over {MAX_SUITE_CHARS} characters") as refused:
        load_suites([path])
    assert str(refused.value).startswith(str(tmp_path)) and len(str(refused.value)) < 500
    assert megabytes() - before < 400


def test_a_thousand_cases_of_25_000_tokens_are_a_suite(tmp_path: Path) -> None:
    loaded = load_suites([suite(tmp_path, _cases(1000, LONG[:30_000]))])
    assert len(loaded.cases) == 1000


def test_a_var_that_is_data_does_not_hide_that_the_budget_is_spent() -> None:
    with pytest.raises(BudgetSpent):
        fill_vars({"a": "x" * 600, "b": "{{a}} {% if a %}{{a}}{% endif %}"}, TextBudget(1000))


@pytest.mark.parametrize(
    "text",
    ["{" * 1_000_000 + " env", "{{" + "env " * 250_000, "{% " * 300_000 + "environment", "{{ env" + " " * 1_000_000],
)
def test_a_text_is_searched_for_the_environment_in_one_pass(tmp_path: Path, text: str) -> None:
    """Begun again at each brace, it would be searched for hours."""
    assert SuiteFiles(tmp_path / "suite.yaml")._checked(text) == text


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("{{ env.HOME }}", True), ("{{env['A']}}", True), ("{% if process.env.A %}", True),
        ("{{ a | b(env [0]) }}", True),
        ("{{a}} env.HOME", False), ("{{ a }} {{ env . b }}", True), ("{{ environment.a }}", False),
        ("env.A {{a}}", False), ("{ {env.A}", False), ("{{{env.A", True), ("{% a } env.B", False),
    ],
)  # fmt: skip
def test_what_reads_the_environment_is_still_told_from_what_does_not(tmp_path: Path, text: str, refused: bool) -> None:
    files = SuiteFiles(tmp_path / "suite.yaml")
    try:
        files._checked(text)
        assert not refused
    except BadInput as error:
        assert refused and "reads the environment" in str(error)


PARTS = (
    "**/**/**/**/**/**/**/**/x.yaml",
    "**/a/**/a/**/a/**/a/**/a/**/a/**/x.yaml",
    "/".join(["**"] * 300) + "/x.yaml",
)


@pytest.mark.parametrize("pattern", PARTS)
def test_a_pattern_of_many_folders_ends(tmp_path: Path, pattern: str) -> None:
    deep = tmp_path
    for _ in range(30):
        deep = deep / "a"
        deep.mkdir()
        (deep / "b").mkdir()
    path = suite(tmp_path, f"prompts: [x]\ntests: '{pattern}'\n")

    with pytest.raises(BadInput, match=r"no file matches|\*\* more than 2 times"):
        load_suites([path])


def test_yaml_is_nested_and_a_number_is_long_only_so_far(tmp_path: Path) -> None:
    deep = "".join(" " * level + "a:\n" for level in range(100))
    with pytest.raises(BadInput, match="nested over 60 levels"):
        load_suites([suite(tmp_path, deep)])
    tests = '[{"vars": {"q": ' + "9" * 400 + "}}]"
    with pytest.raises(BadInput, match="a number of 400 digits"):
        load_suites([suite(tmp_path, "prompts: ['{{q}}']\ntests: t.json\n", **{"t.json": tests})])


def test_folders_that_are_named_twice_are_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "t.yaml").write_text("- vars: {n: one}\n")
    for pattern in ("**/t.yaml", "**/**/t.yaml", "**/b/**/t.yaml", "a/**/**/**/*.yaml"):
        path = suite(tmp_path, f"prompts: ['{{{{n}}}}']\ntests: '{pattern}'\n")
        assert len(load_suites([path]).cases) == 1


# --- templates


@pytest.mark.parametrize(
    "text", ["{{" * 100_000, "{%" * 100_000, "{#" * 100_000, "{{ a " * 40_000, "{{" + " " * 199_000]
)
def test_a_template_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        render(text, {"a": "b"}, TextBudget())


@pytest.mark.parametrize(
    ("text", "named"),
    [("{{" * 500_000, False), ("{#" + "{{ x" * 250_000, False), ("{% tool " * 200_000, False),
     ("{" * 1_000_000 + "tools", True)],
)  # fmt: skip
def test_a_chat_template_is_read_in_one_pass(tmp_path: Path, text: str, named: bool) -> None:
    (tmp_path / "chat_template.jinja").write_text(text)
    assert takes_tools(tmp_path) is named


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{% if tools %}", True), ("{{ a }} tools", False), ("{%- for t in\ntools -%}", True),
        ("{{ a }}{{ tools }}", True),
        ("{{ my_tools }}", False), ("tools {{ a }}", False), ("{# tools #}", False), ("{{ a %} tools", False),
    ],
)  # fmt: skip
def test_a_chat_template_names_tools_inside_its_tags_alone(tmp_path: Path, text: str, named: bool) -> None:
    (tmp_path / "chat_template.jinja").write_text(text)
    assert takes_tools(tmp_path) is named


# --- rows


@pytest.mark.parametrize(("length", "rows"), [(200_000, 1), (200_001, 0)])
@pytest.mark.parametrize("cell", ["prompt", "completion"])
def test_a_message_of_an_imported_row_has_a_bound(cell: str, length: int, rows: int) -> None:
    record = {"prompt": "2+2?", "completion": "4", cell: "x" * length}
    taken, problems = convert([record], "prompt/completion", {}, 1)
    assert len(taken) == rows and len(problems) == 1 - rows
    assert all("200,001 characters" in problem.reason for problem in problems)


# --- the command line: bad input is refused in one line, as valid JSON, with code 2

BAD_WORDS = [
    ["base", "--model", "a\0b"], ["base", "--model", "x" * 5000], ["base", "--model", "org/.."],
    ["base", "--model", "./" + "y/" * 2500], ["train", "--epochs", "1e999"], ["train", "--learning_rate", "nan"],
    ["train", "--rank", "9" * 400], ["suite", "check", "a\0b"], ["suite", "check", "z" * 5000],
    ["suite", "grade", "a\0b"], ["suite", "check", "/dev/zero"], ["run", "a\0b"], ["run", "z" * 5000],
    ["run", "/dev/zero"], ["runs", "show", "a\0b"], ["runs", "show", "z" * 5000], ["report", "a\0b"],
    ["teach", "a\0b"], ["teach", "z" * 5000],
    ["compare", "r\0", "--arms", "base,adapter"], ["rows", "import", "a\0b"], ["fits", "a\0b"], ["fits", "z" * 5000],
    ["explain", "a\0b"], ["jobs", "stop", "a\0b"], ["evaluate", "--suites", "a\0b"],
    ["baseline", "--suites", "z" * 5000],
    ["generate", "--behaviour", "a\0b"], ["generate", "--behaviour", "z" * 5000], ["train", "--max_hours", "-inf"], *(
        [*words, "~nobody-of-this-name/x"]
        for words in (
            ["base", "--model"], ["suite", "check"], ["run"], ["teach"], ["fits"], ["rows", "import"],
            ["generate", "--behaviour"], ["baseline", "--suites"],
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("words", BAD_WORDS, ids=lambda words: " ".join(words)[:40].replace("\0", "NUL"))
def test_bad_words_are_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    assert main([*words, "--json"]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and len(err) < 1500 and "nexpected" not in err, err
    for line in out.splitlines() if words[0] == "run" else [out]:
        assert isinstance(json.loads(line, parse_constant=pytest.fail), dict)

# ruff: noqa: E501  (tables of one-line suites read best unbroken)
"""Suites: what is read from promptfoo's format, and what is refused, where, and at what price."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.agent.cli import main
from tunesmith.memory.errors import BadInput
from tunesmith.tools.suites.case import Suite
from tunesmith.tools.suites.loading import CheckedSuite, checked_suite, load_suites
from tunesmith.tools.suites.stored_outputs import grade_outputs

HEAD = "prompts: ['{{q}}']\n"
ONE_TEST = "tests:\n  - vars: {q: hello}\n    assert:\n      - "


def write(folder: Path, text: str, name: str = "suite.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def load(folder: Path, text: str) -> Suite:
    return load_suites([write(folder, text)])


def check_suites(paths: list[Path]) -> CheckedSuite:
    return checked_suite(load_suites(paths, models=("judge", "embedder")))


def refusal(folder: Path, text: str, name: str = "suite.yaml") -> str:
    with pytest.raises(BadInput) as caught:
        load_suites([write(folder, text, name)])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_case_holds_what_is_asked_and_what_is_expected(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        """
prompts: ["Triage this support ticket:\\n\\n{{ticket}}"]
providers:
  - id: openai:chat:any
    config: {temperature: 0, max_tokens: 64, apiKey: ignored, tool_choice: auto, tools: [
      {type: function, function: {name: find, parameters: {type: object}}}]}
tests:
  - description: polite
    vars: {ticket: "Where is order 48213?"}
    threshold: 0.5
    metadata: {case_id: t-001, block: tools, voice: polite}
    assert:
      - {type: is-json, weight: 2, metric: form}
      - {type: not-contains, value: "{{ticket}}"}
""",
    )
    (case,) = suite.cases
    assert (case.case_id, case.block, case.suite, case.threshold) == ("t-001", "tools", "suite", 0.5)
    assert case.messages == ({"role": "user", "content": "Triage this support ticket:\n\nWhere is order 48213?"},)
    assert case.sampling == {"temperature": 0, "max_tokens": 64}
    assert case.tool_choice == "auto"
    assert case.tools[0]["function"]["name"] == "find"
    assert [(a.type, a.value, a.weight, a.metric) for a in case.assertions] == [
        ("is-json", None, 2.0, "form"),
        ("not-contains", "Where is order 48213?", 1.0, None),
    ]
    assert case.metadata["description"] == "polite"
    assert case.metadata["voice"] == "polite"


def test_chat_prompts_as_list_json_and_yaml_become_the_same_messages(tmp_path: Path) -> None:
    json_text = json.dumps([{"role": "system", "content": "Be {{how}}"}, {"role": "user", "content": "{{q}}"}])
    forms = [
        '[{role: system, content: "Be {{how}}"}, {role: user, content: "{{q}}"}]',
        "'" + json_text + "'",
        "\"- role: system\\n  content: Be {{how}}\\n- role: user\\n  content: '{{q}}'\\n\"",
        "chat.json",
    ]
    write(tmp_path, json_text, "chat.json")
    body = "tests: [{vars: {q: 'say \"hi\"', how: brief}}]"
    expected = ({"role": "system", "content": "Be brief"}, {"role": "user", "content": 'say "hi"'})
    for form in forms:
        assert load(tmp_path, f"prompts:\n  - {form}\n{body}").cases[0].messages == expected


def test_lists_of_text_multiply_and_other_lists_do_not(tmp_path: Path) -> None:
    suite = load(tmp_path, "prompts: ['{{q}}{{w}}{{n}}', '{{w}}']\ntests: [{vars: {q: [a, b], w: [c, d], n: [1, 2]}}]")
    # '{{w}}' asks the same for a and for b: one case each.
    assert sorted(c.messages[0]["content"] for c in suite.cases) == ["ac1,2", "ad1,2", "bc1,2", "bd1,2", "c", "d"]


def test_default_test_scenarios_and_disabled_defaults_merge(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        """
prompts: ["{{q}} {{who}}"]
defaultTest:
  vars: {who: nobody}
  threshold: 0.4
  metadata: {block: general}
  assert: [{type: contains, value: "{{who}}"}]
tests:
  - vars: {q: one}
  - vars: {q: two, who: me}
    threshold: 0
    options: {disableDefaultAsserts: true}
    assert: [{type: equals, value: x}]
scenarios:
  - config: [{vars: {who: s1}, assert: [{type: icontains, value: s1}]}, {vars: {who: s2}, metadata: {block: target}}]
    tests: [{vars: {q: three}}]
""",
    )
    found = [(c.messages[0]["content"], c.assertion_types, c.threshold, c.block) for c in suite.cases]
    assert found == [
        ("one nobody", ["contains"], 0.4, "general"),
        ("two me", ["equals"], 0.0, "general"),
        ("three s1", ["contains", "icontains"], 0.4, "general"),
        ("three s2", ["contains"], 0.4, "target"),
    ]


def test_tests_come_from_csv_json_jsonl_and_yaml_files_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write(tmp_path, 'q,__expected,__metadata:case_id\nhi,"contains-any: ""a, b"", c",c1\n', "a.csv")
    write(tmp_path, '[{"vars": {"q": "j"}, "metadata": {"case_id": "j1"}}]', "b.json")
    write(tmp_path, '{"vars": {"q": "l"}, "metadata": {"case_id": "l1"}}\n\n', "more/c.jsonl")
    write(tmp_path, "- vars: {q: y}\n  metadata: {case_id: y1}\n", "more/d.yaml")
    suite = load(tmp_path, HEAD + "tests: [a.csv, file://b.json, 'more/*']\n")
    assert [case.case_id for case in suite.cases] == ["c1", "j1", "l1", "y1"]
    assert suite.cases[0].assertions[0].value == ["a, b", "c"]


def test_a_cell_keeps_its_threshold_and_names_what_cannot_be_graded(tmp_path: Path) -> None:
    """As promptfoo 0.123 reads cells; a threshold that somebody wrote counts for every type."""
    write(
        tmp_path, "q,__expected\na,similar(0.9): Paris\nb,similar: Paris\nc,rouge-n(0.3): x y\nd,rouge-n: x\n", "a.csv"
    )
    found = [
        case.assertions[0] for case in load_suites([write(tmp_path, HEAD + "tests: a.csv")], models=("embedder",)).cases
    ]
    assert [(one.type, one.threshold) for one in found] == [
        ("similar", 0.9), ("similar", 0.8), ("rouge-n", 0.3), ("rouge-n", 0.75)
    ]  # fmt: skip
    write(tmp_path, "q,__expected\na,human: hello\nb,factuality: Paris is a city\n", "a.csv")
    with pytest.raises(BadInput, match="'factuality' is refused: use llm-rubric"):
        load(tmp_path, HEAD + "tests: a.csv")
    write(tmp_path, "q,__expected\na,human: hello\n", "a.csv")
    assert load(tmp_path, HEAD + "tests: a.csv").cases[0].assertions[0].value == "human: hello"


def test_cells_may_be_parted_by_semicolons(tmp_path: Path) -> None:
    """As spreadsheets write them where 1,5 is a number."""
    write(tmp_path, "frage;__expected\nWo, bitte?;icontains: unterwegs\n", "a.csv")
    (case,) = load(tmp_path, "prompts: ['{{frage}}']\ntests: a.csv").cases
    assert (case.asks, case.assertions[0].value) == ("Wo, bitte?", "unterwegs")


def test_several_stored_outputs_are_graded_by_the_same_assertion(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "tests:\n" + "".join(f"- {{providerOutput: {n}a, assert: [{{type: contains, value: a}}]}}\n" for n in "xyz"),
    )
    assert [graded.grade.passed for graded in grade_outputs(path).cases] == [True] * 3
    assert check_suites([path]).seed_rows == {"target": 3}, "they ask nothing, and so not the same"


def test_scenarios_and_vars_come_from_files_too(tmp_path: Path) -> None:
    write(tmp_path, "- config: [{vars: {who: s1}}]\n  tests: [{vars: {q: a}}, {vars: {q: b}}]\n", "scenes.yaml")
    write(tmp_path, "who: first\nq: one\n", "v1.yaml")
    write(tmp_path, "q: two\n", "v2.yaml")
    write(tmp_path, " from a file \n", "q.txt")
    suite = load(
        tmp_path,
        "prompts: ['{{q}} {{who}}']\nscenarios: ['file://scenes.yaml']\n"
        "tests: [{vars: [v1.yaml, v2.yaml]}, {vars: {who: x, q: ['file://q.txt', plain]}}]",
    )
    asked = [case.messages[0]["content"] for case in suite.cases]
    assert asked == ["two first", "from a file x", "plain x", "a s1", "b s1"]


def test_figures_over_the_grades_are_not_computed_and_refuse_no_suite(tmp_path: Path) -> None:
    figures = "derivedMetrics: [{name: rate, value: '100 * form / __count'}]\n"
    assert load(tmp_path, f"{HEAD}{figures}tests: [{{vars: {{q: a}}}}]") == load(
        tmp_path, HEAD + "tests: [{vars: {q: a}}]"
    )


def test_check_explains_what_a_suite_needs(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEAD + "tests: [{vars: {q: a}, options: {repeat: 3}, assert: [{type: llm-rubric, value: kind, metric: tone},"
        " {type: similar, value: x}]}, {vars: {q: b}}]",
    )
    found = check_suites([path])
    assert found.asks == {"llm-rubric": "judge", "similar": "embedder"}
    assert (found.metrics, found.requests, found.types) == (["tone"], 4, {"llm-rubric": 1, "similar": 1})


def test_providers_that_name_arms_say_who_is_asked(tmp_path: Path) -> None:
    head = HEAD + "providers: [openai:chat:base, {id: 'openai:chat:tuned', label: adapter}, merged]\n"
    found = check_suites([
        write(
            tmp_path,
            head + "defaultTest: {providers: [merged]}\ntests:\n"
            "- {vars: {q: a}, providers: ['openai:*']}\n- {vars: {q: b}, providers: [openai]}\n"
            "- {vars: {q: c}, providers: [adapter, 'openai:chat:base']}\n- {vars: {q: d}}\n"
            "- {vars: {q: e}, providers: ['*']}\n",
        )
    ])  # fmt: skip
    both = ["base", "adapter"]
    assert [case.arms for case in found.cases] == [both, both, both, ["merged"], [*both, "merged"]]
    one_arm_each = "".join(
        f"- {{id: x, label: {arm}}}\n" for arm in ("base", "prompted", "adapter", "merged", "quantized")
    )
    plain = [
        load(tmp_path, HEAD + f"providers:\n{listed}tests: [{{vars: {{q: a}}}}]\n")
        for listed in (one_arm_each, "- x\n")
    ]
    assert plain[0].sha256 == plain[1].sha256, "naming every arm restricts nothing"


def test_unquoted_words_mean_what_they_mean_to_javascript(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        "prompts: ['{{a}}|{{b}}|{{c}}|{{d}}|{{e}}']\ntests: [{vars: {a: no, b: 12:30, c: 1.0, d: ~, e: true}}]",
    )
    assert suite.cases[0].messages[0]["content"] == "no|12:30|1||true"


def test_a_case_without_an_id_gets_one_from_its_content(tmp_path: Path) -> None:
    first = load(tmp_path, HEAD + "tests: [{vars: {q: a}}, {vars: {q: b}}]")
    second = load(tmp_path, "# moved\n" + HEAD + "tests:\n  - {vars: {q: b}}\n  - {vars: {q: a}}\n")
    assert {c.case_id for c in first.cases} == {c.case_id for c in second.cases}
    assert len({c.case_id for c in first.cases}) == 2
    changed = load(tmp_path, HEAD + "tests: [{vars: {q: a}, assert: [{type: contains, value: x}]}]")
    assert changed.cases[0].case_id not in {c.case_id for c in first.cases}
    assert changed.cases[0].request_sha256 == first.cases[0].request_sha256


def test_a_given_id_stays_unique_when_its_test_stands_for_several_cases(tmp_path: Path) -> None:
    suite = load(tmp_path, HEAD + "tests: [{vars: {q: [a, b]}, metadata: {case_id: t}}]")
    ids = [case.case_id for case in suite.cases]
    assert len(set(ids)) == 2
    assert all(case_id.startswith("t~") for case_id in ids)


def test_the_digest_is_of_the_content_and_a_stored_suite_proves_itself(tmp_path: Path) -> None:
    suite = load(tmp_path, HEAD + "tests: [{vars: {q: a}}, {vars: {q: b}}]")
    respelled = load(tmp_path, "prompts:\n- '{{q}}'\ntests:\n- vars:\n    q: a\n- vars: {q: 'b'}\n")
    assert suite.sha256 == respelled.sha256
    stored = suite.to_json()
    assert Suite.from_json(stored) == suite
    assert Suite(cases=suite.cases[:1]).sha256 != suite.sha256
    with pytest.raises(BadInput, match="changed"):
        Suite.from_json(re.sub(r'"content": ?"a"', '"content":"z"', stored))


def test_check_has_the_contracts_shape(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEAD
        + "tests: [{vars: {q: a}, metadata: {case_id: k}, assert: [{type: assert-set, assert: [{type: equals, value: a}]}]}]",
    )
    (case,) = check_suites([path]).cases
    assert (case.case_id, case.block, case.assertions) == ("k", "target", ["assert-set", "equals"])


def test_grade_reads_outputs_or_the_suites_own(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEAD
        + "tests:\n- {vars: {q: a}, metadata: {case_id: one}, providerOutput: yes sir, assert: [{type: contains, value: sir}]}\n"
        + "- {vars: {q: b}, metadata: {case_id: two}, assert: [{type: latency, threshold: 10}]}\n",
    )
    own: Any = grade_outputs(path).to_json()
    assert [(c["case_id"], c["passed"], c["score"]) for c in own["cases"]] == [("one", True, 1.0)]
    assert own["missing"] == ["two"]
    assert set(own["cases"][0]["assertions"][0]) == {"type", "passed", "score", "reason"}
    lines = [
        {"case_id": "one", "output": "no"},
        {"case_id": "two", "output": ""},
        {"case_id": "two", "output": "", "latency_ms": 5},
    ]
    outputs = write(tmp_path, "\n".join(map(json.dumps, lines)) + "\n", "out.jsonl")
    graded = grade_outputs(path, outputs)
    assert [c.grade.passed for c in graded.cases] == [False, False, True]
    assert graded.to_json()["errors"] == 1
    for bad, reason in [
        ("{", "not JSON"),
        ('{"case_id": "nope", "output": ""}', "no case 'nope'"),
        ('{"output": ""}', "case_id"),
    ]:
        write(tmp_path, "\n" + bad, "out.jsonl")
        with pytest.raises(BadInput, match=f"out.jsonl:2: .*{reason}"):
            grade_outputs(path, outputs)


REFUSED = {
    "javascript": (ONE_TEST + "{type: javascript, value: 'true'}", "suite.yaml:5: .*'javascript' is refused.*runs code"),
    "python": (ONE_TEST + "{type: python, value: 'True'}", "'python' is refused"),
    "not-python": (ONE_TEST + "{type: not-python, value: 'True'}", "'not-python' is refused"),
    "ruby": (ONE_TEST + "{type: ruby, value: 'true'}", "'ruby' is refused"),
    "webhook": (ONE_TEST + "{type: webhook, value: 'http://x'}", "'webhook' is refused"),
    "code file in value": (ONE_TEST + "{type: equals, value: 'file://check.py'}", "check.py' is code"),
    "code file with function": (ONE_TEST + "{type: equals, value: 'file://check.js:fn'}", "is code"),
    "unknown type": (ONE_TEST + "{type: containz, value: x}", "'containz' is not supported; did you mean 'contains'"),
    "type with underscores": (ONE_TEST + "{type: not_contains_all, value: x}", "did you mean 'not-contains-all'"),
    "a call of nothing": (ONE_TEST + "{type: is-valid-openai-tools-call}", "suite.yaml:.: .*none is offered; list tools"),
    "turns that are not carried": (ONE_TEST + "{type: contains, value: '{% for c in _conversation %}{{c.input}}{% endfor %}'}", "_conversation is not known here.*write the turns"),
    "default option": ("defaultTest:\n  options: {rubricPrompt: x}\ntests:\n- {vars: {q: a}}", "suite.yaml:3: options.rubricPrompt is refused"),
    "template without quotes": (ONE_TEST + "{type: contains, value: {{q}}}", "a template such as '{{name}}' stands in quotes"),
    "copies": ("tests: [{vars: {q: a}}, {vars: {q: a}},\n  {vars: {q: b}}, {vars: {q: a}}]", "remove the copy; 1 more test likewise: .*suite.yaml:3"),
    "a list in quotes": (ONE_TEST + "{type: contains-all, value: '[\"a\",\"b\"]'}", "a list is written \\[a, b\\]"),
    "a pattern between slashes": (ONE_TEST + "{type: regex, value: '/^yes$/i'}", "'/\\^yes\\$/i' stands between slashes"),
    "percent of a test": ("tests: [{vars: {q: a}, threshold: 80, assert: [{type: is-json}]}]", "suite.yaml:.: threshold is 80, and no score is over 1"),
    "percent of a set": (ONE_TEST + "{type: assert-set, threshold: 50, assert: [{type: is-json}]}", "threshold is 50"),
    "percent of a type": (ONE_TEST + "{type: not-similar, value: x, threshold: 75}", "threshold is 75"),
    "unknown assertion key": (ONE_TEST + "{type: contains, value: x, treshold: 1}", "unknown key 'treshold'"),
    "transform in assertion": (ONE_TEST + "{type: contains, value: x, transform: output.y}", "'transform'.*is code"),
    "no value": (ONE_TEST + "{type: contains}", "contains needs a value"),
    "bad regex": (ONE_TEST + "{type: regex, value: '(unclosed'}", "suite.yaml:5: the regex .* is not valid"),
    "python regex": (ONE_TEST + "{type: regex, value: 'x\\Z'}", "no escape in promptfoo's JavaScript"),
    "huge regex": (ONE_TEST + "{type: regex, value: '" + "a" * 6000 + "'}", "6000 characters"),
    "bad schema": (ONE_TEST + "{type: is-json, value: {type: objekt}}", "not a valid JSON schema"),
    "schema typo": (ONE_TEST + "{type: is-json, value: {requierd: [a]}}", "keyword 'requierd'"),
    "remote ref": (ONE_TEST + "{type: is-json, value: {$ref: 'http://x/y'}}", "leaves the schema"),
    "inner id": (ONE_TEST + "{type: is-json, value: {properties: {a: {$id: 'http://x'}}}}", "keep it at the top"),
    "ref cycle": (
        ONE_TEST + "{type: is-json, value: {$ref: '#/definitions/a', definitions: "
        "{a: {$ref: '#/definitions/b'}, b: {$ref: '#/definitions/a'}}}}",
        r"\$ref cycle",
    ),
    "ref to nothing": (ONE_TEST + "{type: is-json, value: {$ref: '#/definitions/a'}}", "points at nothing"),
    "ref bomb": (
        ONE_TEST + "{type: is-json, value: {allOf: [{$ref: '#/definitions/d0'}], definitions: {"
        + ", ".join(f"d{i}: {{allOf: [{{$ref: '#/definitions/d{i + 1}'}}, {{$ref: '#/definitions/d{i + 1}'}}]}}" for i in range(30))
        + ", d30: {type: object}}}}",
        "unfolds to over",
    ),
    "template ref cycle": (
        "assertionTemplates: {a: {$ref: '#/assertionTemplates/b'}, b: {$ref: '#/assertionTemplates/a'}}\n"
        + ONE_TEST + "{$ref: '#/assertionTemplates/a'}",
        r"\$ref cycle",
    ),
    "nested set": (ONE_TEST + "{type: assert-set, assert: [{type: assert-set, assert: []}]}", "inside an assert-set"),
    "negative weight": (ONE_TEST + "{type: contains, value: x, weight: -1}", "weight is -1"),
    "text threshold": (ONE_TEST + "{type: contains, value: x, threshold: high}", "threshold is 'high'"),
    "empty needle": (ONE_TEST + "{type: contains, value: ''}", "needs a value"),
    "option transform": ("tests: [{vars: {q: a}, options: {transform: output}}]", "options.transform is code"),
    "scoring function": ("tests: [{vars: {q: a}, assertScoringFunction: 'file://x.js'}]", "scoring function is code"),
    "extensions": ("extensions: ['file://x.js']\ntests: [{vars: {q: a}}]", "extensions run code"),
    "env block": ("env: {A: b}\ntests: [{vars: {q: a}}]", "'env' is refused"),
    "env template": ("tests: [{vars: {q: '{{env.HOME}}'}}]", "suite.yaml:2: .*reads the environment"),
    "env by index": ("tests: [{vars: {q: \"{{ env['HOME'] }}\"}}]", "reads the environment"),
    "exec provider": ("providers: ['exec:rm -rf x']\ntests: [{vars: {q: a}}]", "runs a program"),
    "python provider": ("providers: [{id: 'file://p.py'}]\ntests: [{vars: {q: a}}]", "runs a program"),
    "generator": ("tests: [{path: 'gen.py', config: {}}]", "generator is code"),
    "tests in code": ("tests: 'file://gen.py'", "is code"),
    "remote tests": ("tests: 'https://docs.google.com/x'", "is remote"),
    "escape": ("tests: '../secret.yaml'", "leaves the suite's folder"),
    "absolute": ("tests: '/etc/passwd'", "leaves the suite's folder"),
    "escape by var": ("tests: [{vars: {q: 'file://../../etc/passwd'}}]", "leaves the suite's folder"),
    "missing file": ("tests: 'none.yaml'", "there is no file none.yaml"),
    "duplicate id": (
        "tests:\n- {vars: {q: a}, metadata: {case_id: x}}\n- {vars: {q: b}, metadata: {case_id: x}}\n",
        "suite.yaml:4: the case id 'x' is taken by the test at .*suite.yaml:3",
    ),
    "same case twice": ("tests:\n- {vars: {q: a}}\n- {vars: {q: a}}\n", "is taken"),
    "bad block": ("tests: [{vars: {q: a}, metadata: {block: other}}]", "one of target, general, tools, adversarial"),
    "missing var": ("tests: [{vars: {x: a}}]", "names no var of this case"),
    "template call": ("tests: [{vars: {q: a}, assert: [{type: contains, value: '{{ range(9) }}'}]}]", "call is not allowed"),
    "template arithmetic": ("tests: [{vars: {q: a}, assert: [{type: contains, value: \"{{ 'a' * 999999999 }}\"}]}]", "mul is not allowed"),
    "template power": ("tests: [{vars: {q: a}, assert: [{type: contains, value: '{{ 9 ** 9 ** 9 }}'}]}]", "pow is not allowed"),
    "dunder": ("tests: [{vars: {q: a}, assert: [{type: contains, value: '{{ q.__class__ }}'}]}]", "cannot be filled in"),
    "no tests": ("", "the suite is empty"),
    "empty tests": ("tests: []", "the suite is empty"),
    "unknown key": ("test: []", "unknown key 'test'; did you mean 'tests'"),
    "python tag": ("tests: !!python/object/apply:os.system ['true']", "suite.yaml:2: the YAML tag .* is refused"),
    "custom tag": ("tests: !mine [1]", "YAML tag !mine is refused"),
    "self alias": ("tests: &a [*a]", "names no finished"),
    "twice a key": ("tests: []\ntests: []", "suite.yaml:3: the key 'tests' stands twice"),
    "two documents": ("---\na: 1", "several YAML documents"),
    "broken yaml": ("tests: [", "suite.yaml:[0-9]+: not valid YAML"),
    "product bomb": ("tests: [{vars: {" + ", ".join(f"v{i}: [a, b, c, d, e, f, g, h, i, j]" for i in range(9)) + ", q: a}}]", "multiply to"),
    "tools misshapen": ("providers: [{id: x, config: {tools: [{name: y}]}}]\ntests: [{vars: {q: a}}]", "tools\\[0\\]"),
    "providers differ": ("providers: [{id: x, config: {temperature: 0}}, y]\ntests: [{vars: {q: a}}]", "providers differ"),
    "repeat": ("tests: [{vars: {q: a}, options: {repeat: 0}}]", "repeat is a whole number"),
    "judge": (ONE_TEST + "{type: llm-rubric, value: kind}", "suite.yaml:3: the assertion type 'llm-rubric' asks a judge, and none is given"),
    "judge in a set": (ONE_TEST + "{type: assert-set, assert: [{type: g-eval, value: kind}]}", "'g-eval' asks a judge"),
    "best": (ONE_TEST + "{type: select-best, value: kindest}", "'select-best' is refused: arms are compared by `tunesmith compare`"),
    "similar": (ONE_TEST + "{type: not-similar, value: x}", "'not-similar' needs an embedding model, and none is given"),
    "factuality": (ONE_TEST + "{type: factuality, value: x}", "'factuality' is refused: use llm-rubric or g-eval"),
    "moderation": (ONE_TEST + "{type: moderation}", "'moderation' is refused: it asks an outside service"),
    "traces": (ONE_TEST + "{type: 'trajectory:tool-used', value: x}", "traces are not recorded; use tool-call-f1"),
    "cost": (ONE_TEST + "{type: cost, threshold: 1}", "'cost' is refused: .*use latency"),
    "meteor": (ONE_TEST + "{type: meteor, value: x}", "use rouge-n"),
    "sql": (ONE_TEST + "{type: is-sql, value: {databaseType: SQLite}}", "'is-sql' is refused: use is-code .*sql"),
    "no sql": (ONE_TEST + "{type: not-contains-sql}", "'not-contains-sql' is refused: use is-code"),
    "xml": (ONE_TEST + "{type: contains-xml, value: a.b}", "'contains-xml' is refused: use regex, or contains"),
    "html": (ONE_TEST + "{type: is-html}", "'is-html' is refused: use regex, or contains"),
    "perplexity": (ONE_TEST + "{type: not-perplexity-score}", "'not-perplexity-score' is refused: .*use llm-rubric"),
    "gleu": (ONE_TEST + "{type: gleu, value: x}", "'gleu' is refused: use rouge-n, or llm-rubric"),
    "bleu": (ONE_TEST + "{type: bleu, value: x}", "'bleu' is refused: use rouge-n, or llm-rubric"),
    "a judge of one's own": (ONE_TEST + "{type: llm-rubric, value: x, provider: 'openai:gpt-5'}", "'provider' in an assertion is refused: the judge is the locally served one"),
    "a judge by option": ("tests: [{vars: {q: a}, options: {rubricPrompt: x}}]", "options.rubricPrompt is refused"),
    "a test's own provider": ("tests: [{vars: {q: a}, provider: 'openai:x'}]", "every arm is asked the same way"),
    "a provider that is none of the suite's": ("providers: [{id: x, label: base}]\ntests: [{vars: {q: a}, providers: [adapter]}]", r"suite.yaml:3: the provider 'adapter' is none of the suite's providers \('base'\)"),
    "a provider that names no arm": ("providers: [x, y]\ntests: [{vars: {q: a}, providers: [x]}]", "names no arm; label it"),
    "arms and others": ("providers: [openai:chat:base, openai:chat:gpt]\ntests: [{vars: {q: a}}]", "'openai:chat:gpt' names no arm, and others do"),
    "an arm twice": ("providers: [openai:chat:base, {id: x, label: base}]\ntests: [{vars: {q: a}}]", "two providers stand for the arm 'base'"),
    "no provider at all": ("providers: [base]\ntests: [{vars: {q: a}, providers: []}]", "an empty list"),
    "a provider's own prompts": ("providers: [{id: base, prompts: [x]}]\ntests: [{vars: {q: a}}]", "every arm is asked the same prompts"),
    "metric in a file": ("derivedMetrics: [{name: a, value: 'file://m.js'}]\ntests: [{vars: {q: a}}]", "is code"),
}  # fmt: skip


@table("name", REFUSED)
def test_refused_by_name_with_the_line(name: str, tmp_path: Path) -> None:
    body, pattern = REFUSED[name]
    message = refusal(tmp_path, HEAD + body)
    assert re.search(pattern, message), message
    assert "suite.yaml" in message


@pytest.mark.heavy
def test_a_schema_pattern_cannot_hang_a_grade(tmp_path: Path) -> None:
    suite = load(tmp_path, HEAD + ONE_TEST + "{type: is-json, value: {type: string, pattern: '^(a|aa)+$'}}")
    from tunesmith.tools.suites.grading import Response, grade

    assert grade(suite.cases[0], Response(json.dumps("a" * 40 + "b"))).error


def test_links_pipes_and_binaries_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text("[{vars: {q: a}}]")
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "link.yaml").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    assert "symbolic link" in refusal(folder, HEAD + "tests: link.yaml")
    assert "symbolic link" in refusal(folder, HEAD + "tests: linked/outside.yaml")
    assert "symbolic link" in refusal(folder, HEAD + "tests: 'li*k.yaml'")
    os.mkfifo(folder / "pipe.yaml")
    assert "not a regular file" in refusal(folder, HEAD + "tests: pipe.yaml")
    (folder / "bytes.yaml").write_bytes(b"a: b\nc: \xff\xfe")
    with pytest.raises(BadInput, match=r"bytes.yaml:2: not UTF-8"):
        load_suites([folder / "bytes.yaml"])
    with pytest.raises(BadInput, match=r"absent\.yaml is not there; check the name$"):
        load_suites([folder / "absent.yaml"])
    (folder / "dir.yaml").mkdir()
    with pytest.raises(BadInput, match=r"dir.yaml is a folder; name a text file"):
        load_suites([folder / "dir.yaml"])


@pytest.mark.heavy
def test_a_regex_in_a_suite_cannot_hang_a_grade(tmp_path: Path) -> None:
    from tunesmith.tools.suites.grading import Response, grade

    case = load(tmp_path, HEAD + ONE_TEST + "{type: not-regex, value: '(a|aa)+$'}").cases[0]
    result = grade(case, Response("a" * 60 + "b"))
    assert result.error
    assert not result.passed


@pytest.mark.heavy
def test_ten_thousand_cases_of_a_file_are_all_read(tmp_path: Path) -> None:
    rows = "".join(
        f'{{"vars": {{"q": "question {i}"}}, "metadata": {{"case_id": "c{i}"}}, "assert": [{{"type": "contains", "value": "{i}"}}]}}\n'
        for i in range(10_000)
    )
    write(tmp_path, rows, "rows.jsonl")
    suite = load(tmp_path, HEAD + "tests: rows.jsonl")
    assert len(suite.cases) == 10_000


def test_loading_a_suite_imports_nothing_heavy() -> None:
    code = "import sys, tunesmith.tools.suites.loading, tunesmith.tools.evaluation.statistics; print([m for m in ('torch','transformers','scipy','numpy','vllm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_check_says_where_several_cases_come_from_one_seed_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "suite.yaml"
    tests = [{"vars": {"q": str(n)}, "metadata": {"seed_row": n // 3}} for n in range(6)]
    path.write_text(json.dumps({"prompts": ["{{q}}"], "tests": tests}))
    assert check_suites([path]).seed_rows == {"target": 2}
    assert main(["suite", "check", str(path)]) == 0
    assert "6 target cases count as 2 in a comparison" in " ".join(capsys.readouterr().out.split())

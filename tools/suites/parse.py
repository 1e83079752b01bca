"""One promptfoo config, from its file to its cases: which keys are read, which are refused, and how tests merge.

Merging follows promptfoo 0.123: defaultTest under every test, scenario data under its tests, lists of text vars
multiplied out, default assertions first.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.plain_file import read_plain_text
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.csv_tests import test_of_row
from tunesmith.tools.suites.expand import MAX_CASES, RawTest, build_cases, check_options, names_type
from tunesmith.tools.suites.files import SuiteFiles
from tunesmith.tools.suites.prompts import Prompt, read_prompts
from tunesmith.tools.suites.providers import Providers, read_providers

_READ = (
    "description", "prompts", "providers", "targets", "tests", "defaultTest", "scenarios", "evaluateOptions",
)  # fmt: skip
_FIGURES = "derivedMetrics"
"""Over the grades: they change none, so they are not computed."""
_IGNORED = (
    "$schema", "tags", "sharing", "outputPath", "writeLatestResults", "commandLineOptions", "metadata", _FIGURES,
)  # fmt: skip
_TEMPLATES = "assertionTemplates"
_SETTINGS = "evaluateOptions"
_REFUSED = {
    "env": "it sets environment variables, which suites may not read; write the values into vars",
    "extensions": "extensions run code; remove them",
    "nunjucksFilters": "filters are code; use the built-in ones or write the text out",
    "redteam": "red-team generation is not part of a suite here; write its cases out under block: adversarial",
    "tracing": "traces are not read; remove it",
}
_TEST_KEYS = frozenset((
    "description", "vars", "assert", "threshold", "options", "metadata", "prompts", "providerOutput", "providers",
))  # fmt: skip
_TEST_REFUSED = {
    "assertScoringFunction": "a scoring function is code; use weight and threshold",
    "provider": "every arm is asked the same way; list arms under the suite's providers and name them in providers",
}


def parse_suite(path: Path) -> Iterator[tuple[Case, str]]:
    """The cases of one suite file, each with its `file:line`, made as they are asked for; nothing is run or fetched.

    Raises BadInput, also while they are taken.
    """
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        read_plain_text(path)
        raise BadInput(f"{path}: a suite is a YAML (or JSON) file in promptfoo's format")
    files = SuiteFiles(path)
    config = files.load(path)
    if not isinstance(config, dict):
        raise BadInput(f"{path}:1: a suite is a mapping with prompts and tests; this is {_kind(config)}")
    _check_keys(files, config)
    return _cases(files, config)


def _kind(value: object) -> str:
    return "empty" if value is None else {"list": "a list", "str": "text", "dict": "a mapping"}.get(
        type(value).__name__, type(value).__name__
    )  # fmt: skip


def _cases(files: SuiteFiles, config: dict[str, object]) -> Iterator[tuple[Case, str]]:
    default = _default_test(files, config)
    raw = [*_tests(files, config, config.get("tests")), *_scenario_tests(files, config)]
    if not raw:
        files.refuse(config, "the suite is empty: it has no tests; add one under tests:")
    stored_only = all("providerOutput" in test for test in raw)
    bare = stored_only and "prompts" not in config  # nothing is asked, only graded
    prompts = [Prompt(label="")] if bare else read_prompts(files, config)
    providers = read_providers(files, config)
    count = 0
    for test in raw:
        for case in build_cases(_merged(files, config, default, test, providers), prompts, providers.offer, files):
            count += 1
            if count > MAX_CASES:
                files.refuse(test, f"over {MAX_CASES} cases; use fewer values in vars, or several suites")
            yield case, files.at(test)


def _check_keys(files: SuiteFiles, config: dict[str, object]) -> None:
    for key in config:
        if key in _REFUSED:
            files.refuse(config, f"{key!r} is refused: {_REFUSED[key]}")
        if key not in (*_READ, *_IGNORED, _TEMPLATES) and not str(key).startswith("x-"):
            files.refuse(config, f"unknown key {key!r}{_hint(key, _READ)}")
    if not isinstance(config.get(_SETTINGS) or {}, dict):
        files.refuse(config, f"{_SETTINGS} is a mapping such as {{repeat: 3}}; this is {_kind(config[_SETTINGS])}")
    for figure in _list(config, _FIGURES):
        if isinstance(figure, dict) and str(figure.get("value")).startswith("file://"):
            files.refuse(figure, f"{_FIGURES}: {figure['value']!r} is code, which is never run; remove it")


def _hint(key: object, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(key)[:60], known, 1)  # quadratic in the length; no known key is longer
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"


def _checked_test(files: SuiteFiles, test: object, near: object) -> dict[str, object]:
    if not isinstance(test, dict):
        files.refuse(near, f"a test is a mapping with vars and assert; this is {_kind(test)}")
    for key in test:
        if key in _TEST_REFUSED:
            files.refuse(test, f"{key!r} is refused: {_TEST_REFUSED[key]}")
        if key not in _TEST_KEYS:
            files.refuse(test, f"unknown key {key!r} in a test{_hint(key, _TEST_KEYS)}")
    for key in ("options", "metadata"):
        if not isinstance(test.get(key) or {}, dict):
            files.refuse(test, f"{key} is a mapping")
    if not isinstance(test.get("assert") or [], list):
        files.refuse(test, "assert is a list of assertions")
    if isinstance(test.get("vars"), str | list):
        test = files.mark({**test, "vars": _vars_of_files(files, test)}, files.at(test))
    if not isinstance(test.get("vars") or {}, dict):
        files.refuse(test, "vars is a mapping of names to values")
    return test


def _vars_of_files(files: SuiteFiles, test: dict[str, object]) -> dict[str, object]:
    """The vars of every file that `vars` names, a later file over an earlier one."""
    merged: dict[str, object] = {}
    named = test["vars"]
    for name in named if isinstance(named, list) else [named]:
        for path in files.named(name, test) if isinstance(name, str) else ():
            loaded = files.load(path)
            if not isinstance(loaded, dict):
                files.refuse(test, f"vars: {path.name} holds {_kind(loaded)}; it is a mapping of names to values")
            merged |= loaded
    return merged


def _default_test(files: SuiteFiles, config: dict[str, object]) -> dict[str, object]:
    default = config.get("defaultTest")
    if default is None:
        return {}
    if isinstance(default, str):
        default = files.load(files.named(default, config)[0])
    checked = _checked_test(files, default, config)
    check_options(files, default, _mapping(checked, "options"))
    return checked


def _tests(files: SuiteFiles, near: object, tests: object) -> Iterator[dict[str, object]]:
    """Inline tests, and those of the files that are named among them."""
    if tests is None:
        return
    for item in tests if isinstance(tests, list) else [tests]:
        if isinstance(item, dict) and "path" in item and not item.keys() & _TEST_KEYS:
            files.refuse(item, "a test generator is code, which is never run; write its tests into a file")
        if isinstance(item, str):
            for path in files.named(item, near):
                yield from _tests_of_file(files, path)
        else:
            yield _checked_test(files, item, near)


def _tests_of_file(files: SuiteFiles, path: Path) -> Iterator[dict[str, object]]:
    loaded = files.load(path)
    for item in loaded if isinstance(loaded, list) else [loaded]:
        if path.suffix.lower() == ".csv" and isinstance(item, dict):
            try:
                test = test_of_row(item, names_type)
            except ValueError as error:
                files.refuse(item, str(error))
            item = files.mark(test, files.at(item))
        yield _checked_test(files, item, loaded)


def _scenario_tests(files: SuiteFiles, config: dict[str, object]) -> Iterator[dict[str, object]]:
    scenarios = config.get("scenarios") or []
    if not isinstance(scenarios, list):
        files.refuse(config, "scenarios is a list")
    for scenario in _scenarios(files, config, scenarios):
        if not isinstance(scenario, dict) or not isinstance(scenario.get("config"), list | str):
            files.refuse(
                scenario if isinstance(scenario, dict) else config, "a scenario has config and tests, both lists"
            )
        if unknown := scenario.keys() - {"config", "tests", "description"}:
            files.refuse(scenario, f"unknown key {sorted(unknown)[0]!r} in a scenario")
        tests = list(_tests(files, scenario, scenario.get("tests"))) or [{}]
        for data in _tests(files, scenario, scenario["config"]):
            for test in tests:
                yield files.mark(_scenario_test(data, test), files.at(test if test else data))


def _scenarios(files: SuiteFiles, near: object, listed: list[object]) -> Iterator[object]:
    for item in listed:
        if isinstance(item, str):
            for path in files.named(item, near):
                loaded = files.load(path)
                yield from loaded if isinstance(loaded, list) else [loaded]
        else:
            yield item


def _scenario_test(data: Mapping[str, object], test: Mapping[str, object]) -> dict[str, object]:
    merged = {**data, **test}
    for key in ("vars", "options", "metadata"):
        merged[key] = {**_mapping(data, key), **_mapping(test, key)}
    merged["assert"] = [*_list(data, "assert"), *_list(test, "assert")]
    return merged


def _mapping(test: Mapping[str, object], key: str) -> dict[str, object]:
    """A part of a checked test that is a mapping, or left out."""
    value = test.get(key)
    return value if isinstance(value, dict) else {}


def _list(test: Mapping[str, object], key: str) -> list[object]:
    value = test.get(key)
    return value if isinstance(value, list) else []


def _merged(
    files: SuiteFiles,
    config: dict[str, object],
    default: Mapping[str, object],
    test: dict[str, object],
    providers: Providers,
) -> RawTest:
    own_options, default_options = _mapping(test, "options"), _mapping(default, "options")
    options = {**default_options, **own_options}
    for key in ("prefix", "suffix"):
        # An empty one of a test does not take the default away, as in promptfoo.
        options[key] = own_options.get(key) or default_options.get(key) or ""
    keeps_default = own_options.get("disableDefaultAsserts") is not True
    threshold = test.get("threshold")
    repeat = options.get("repeat", _mapping(config, _SETTINGS).get("repeat", 1))
    # A slip beyond that: a case is asked so often of every arm.
    if isinstance(repeat, bool) or not isinstance(repeat, int) or not 1 <= repeat <= 1000:
        files.refuse(test, f"repeat is a whole number from 1 to 1000, not {repeat!r}")
    return RawTest(
        origin=test,
        description=test.get("description"),
        vars={**_mapping(default, "vars"), **_mapping(test, "vars")},
        assertions=[*(_list(default, "assert") if keeps_default else []), *_list(test, "assert")],
        templates=config.get(_TEMPLATES) or {},
        threshold=default.get("threshold") if threshold is None else threshold,
        options=options,
        metadata={**_mapping(default, "metadata"), **_mapping(test, "metadata")},
        prompts=test.get("prompts", default.get("prompts")),
        provider_output=test.get("providerOutput"),
        repeat=repeat,
        arms=providers.arms_of(files, test, test.get("providers", default.get("providers"))),
    )

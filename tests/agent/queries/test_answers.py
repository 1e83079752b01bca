"""Every kind of question takes what it declares, answers, and refuses what it does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.agent.queries.runs import RunQuery
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store


@pytest.mark.heavy
def test_every_kind_and_what_each_can_be_asked_about_answers_or_says_why_not(two_runs: Store) -> None:
    for kind, request in REQUESTS.items():
        needed = {"figure": "steps", "case": "target-001", "row": "g003", "stage": "train", "fields": ["epochs"]}
        given = {name: needed[name] for name, field in request.model_fields.items() if field.is_required()}
        about = next((name for name in ("about", "part", "decision", "outcome", "figure", "metric")
                      if name in request.model_fields and name not in given), "")  # fmt: skip
        for value in get_args(request.model_fields[about].annotation) if about else ():
            try:
                result = asked(two_runs, kind, **given, **{about: value})
                assert result.of or result.facts, (kind, value)
                json.dumps(result.as_json(), default=str)
            except (NotFound, BadInput) as refused:
                assert str(refused).strip(), (kind, value)


def test_an_argument_that_a_kind_does_not_have_is_refused_and_no_request_is_changed() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        REQUESTS["jobs"].model_validate({"run": "r1"})
    request = RunQuery(run="r1")
    with pytest.raises(ValueError, match="frozen"):
        request.run = "r2"  # type: ignore[misc]


@pytest.fixture
def of_two_bases(tmp_path: Path) -> Store:
    """r1 of a 0.5B, the newer r2 of a 1.5B."""
    build = stored_runs.new_builder(tmp_path / "home")
    build.artifact(build.step("base"), "base", name="Qwen2.5-0.5B-Instruct")
    build.run = build.store.new_run("larger")
    build.artifact(build.step("base"), "base", name="Qwen2.5-1.5B-Instruct")
    return build.store


def test_a_question_that_names_a_base_is_answered_of_its_run_alone(of_two_bases: Store) -> None:
    assert asked(of_two_bases, "run").of["run"] == "r2"
    for base in ("0.5B", "qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct"):
        assert asked(of_two_bases, "run", run=base).of["run"] == "r1", base
        assert asked(of_two_bases, "served", run=base).of["run"] == "r1", base
    for other in ("5b", "3B", "Qwen3-0.5B"):
        with pytest.raises(NotFound, match=r"-1\.5B-Instruct in r2 and Qwen2\.5-0\.5B-Instruct in r1\."):
            asked(of_two_bases, "run", run=other)

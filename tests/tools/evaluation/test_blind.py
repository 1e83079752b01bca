"""Blind cases are counts in every place that shows a run, until somebody opens them, and that is an event."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import RenderableType

from tests.fixtures import stored_runs
from tests.fixtures.stored_runs import finished_run
from tunesmith.agent.commands import explain
from tunesmith.agent.commands.comparison_view import comparison_view
from tunesmith.agent.commands.terminal import SafeConsole
from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.registry import REQUESTS, ask
from tunesmith.agent.queries.table import view, whole_page
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import ask_sql
from tunesmith.memory.records import BLIND_SHOWN
from tunesmith.memory.store import Store
from tunesmith.memory.views import VIEWS
from tunesmith.tools.evaluation.blind import hidden_cases, open_blind
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.export.deploy_job import case_to_show
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.report import page
from tunesmith.tools.suites.case import Suite

MADE = stored_runs.suite


def blind_targets(hostile: str = "") -> Suite:
    cases = MADE(hostile).cases
    told = {name: "blind" if name == "target" else "dev" for name in stored_runs.CASES}
    return Suite(cases=tuple(c.model_copy(update={"metadata": {"split": told[c.block]}}) for c in cases))


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, str]:
    monkeypatch.setattr(stored_runs, "suite", blind_targets)
    return finished_run(tmp_path / "home")


def printed(*parts: RenderableType) -> str:
    file = io.StringIO()
    for part in parts:
        SafeConsole(file=file, width=400).print(part)
    return file.getvalue()


def asked(store: Store, run: str, kind: str = "cases", **query: object) -> str:
    try:
        found = ask(REQUESTS[kind].model_validate({"run": run, **query}), Context(workspace(store), store.run(run)))
    except NotFound as refused:  # it is read too
        return str(refused)
    return "\n".join((printed(view(found), whole_page(found)()), found.for_model(), str(found.as_json())))


def workspace(store: Store) -> Workspace:
    return Workspace(store, None, lambda event, **data: None)


def compared(store: Store, run: str, a: str, b: str) -> str:
    found = compare_with_hops(store, run, a, b)
    view = comparison_view(store, found, whole=True, in_repl=False)
    return printed(*view) + json.dumps(found.to_json()["known_limits"]) + json.dumps(found.to_json()["flips"])


SPEAKERS: dict[str, Callable[[Store, str], str]] = {
    "compare": lambda store, run: compared(store, run, "base", "adapter"),
    "compare quantized": lambda store, run: compared(store, run, "adapter", "quantized"),
    "explain": lambda store, run: printed(explain.view(workspace(store), run, whole=True, in_repl=False)),
    "explain --json": lambda store, run: json.dumps(explain.document(workspace(store), run)),
    "report": lambda store, run: page.render(page.gather(store, run)),
    "sql": lambda store, run: str(ask_sql(store.path, "SELECT * FROM v_flips", only=VIEWS).rows),
    "which failed": lambda store, run: asked(store, run, outcome="failed"),
    "which were gained": lambda store, run: asked(store, run, outcome="gained"),
    "the cases": lambda store, run: asked(store, run, kind="suite", block="target"),
    "one case": lambda store, run: asked(store, run, kind="case", case="target-017"),
}
SILENT = ("explain", "one case")
"""They name no target case of this run in any event, or say so in other words."""


@pytest.mark.heavy
@pytest.mark.parametrize("speaker", SPEAKERS)
def test_no_speaker_names_or_quotes_a_blind_case_before_it_is_opened(speaker: str, finished: tuple[Store, str]) -> None:
    store, run = finished
    text = SPEAKERS[speaker](store, run).replace("like case target-0", "")  # of rows that this run stored as they are
    assert "target-0" not in text.replace("asked no case target-017", "").replace("speaks of “target-017”", "")
    assert not any(str(48_000 + number) in text for number in range(34, 60)), (
        "neither question, answer nor right answer"
    )
    if speaker not in SILENT:
        open_blind(store, run, "ada")
        assert "target-0" in SPEAKERS[speaker](store, run)


def test_a_deployment_shows_the_answer_to_no_blind_case(finished: tuple[Store, str]) -> None:
    store, run = finished
    assert case_to_show(store, run, "adapter") is None
    mixed = [c.model_copy(update={"metadata": {}}) if c.case_id == "target-003" else c for c in blind_targets().cases]
    store.artifacts(run, "suite")[-1].path.write_text(Suite(cases=tuple(mixed)).to_json())
    shown = case_to_show(store, run, "adapter")
    assert shown is not None and shown.case_id == "target-003"


def test_opening_is_one_event_with_who_did_it(finished: tuple[Store, str]) -> None:
    store, run = finished
    assert len(hidden_cases(store, run)) == 60
    assert (open_blind(store, run, "ada"), open_blind(store, run, "bob")) == (60, 0)
    events = store.read("SELECT run, data FROM events WHERE event = ?", BLIND_SHOWN)
    assert [(e["run"], json.loads(e["data"])) for e in events] == [(run, {"by": "ada", "cases": 60})]


def test_counts_hold_the_blind_cases(finished: tuple[Store, str]) -> None:
    store, run = finished
    found = compare_with_hops(store, run, "base", "adapter")
    assert found.whole.blocks["target"].fail_to_pass == 57 and found.blind_limits == 1
    assert found.to_json()["known_limits_blind"] == 1 and found.known_limits == ()
    told = json.dumps(explain.document(workspace(store), run), ensure_ascii=False)
    assert "target 59 → 57 of 60" in told and "(2 lost, 0 gained)" in told


def test_a_home_of_before_names_its_blind_cases_as_its_suites_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_runs, "suite", blind_targets)
    store, run = finished_run(tmp_path / "home")
    with store.write() as conn:
        conn.execute("UPDATE artifacts SET meta = json_remove(meta, '$.blind')")
    assert len(hidden_cases(store, run)) == 60, "the file says it where the record does not"

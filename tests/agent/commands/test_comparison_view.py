"""The verdict stands first, cases are told as asked, answered and wanted, and the next step can be typed."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tests.fixtures.terminal import Tunesmith
from tunesmith.agent.commands import parser
from tunesmith.agent.commands.comparison_view import command, comparison_view, rounded
from tunesmith.agent.commands.fields import of_words
from tunesmith.agent.commands.terminal import SafeConsole
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.evaluation.findings import Proposal, findings
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.suites.case import Suite


def told(store: Store, run: str, *, whole: bool = False, in_repl: bool = False) -> list[str]:
    file = io.StringIO()
    for part in comparison_view(store, compare_with_hops(store, run, "base", "adapter"), whole=whole, in_repl=in_repl):
        SafeConsole(file=file).print(part)
    return file.getvalue().splitlines()


@pytest.mark.heavy
def test_the_first_line_is_the_verdict_with_its_numbers(tmp_path: Path) -> None:
    first = told(*finished_run(tmp_path))[0]
    assert first.startswith("r1 learned: adapter, 59 of 60 people's cases right, the base 2 (exact p < 0.001, ")


@pytest.mark.heavy
def test_a_lost_and_a_failing_case_are_asked_answered_and_wanted(tmp_path: Path) -> None:
    text = "\n".join(told(*finished_run(tmp_path)))
    lost, failing = text.split("adapter still fails: 1 case")
    assert "lost from base to adapter: 1 case" in lost and "general-021  “hi, you took" in lost
    assert "→ “I am not sure.”" in lost
    assert "target-017  “hi, you took 49.90 twice for order #48017!! please fix”" in failing
    assert "→ wanted order 48017 (is-json: expected" in failing


@pytest.mark.heavy
def test_five_of_each_are_shown_and_all_of_them_with_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = {**stored_runs.FAILS, "adapter": {**stored_runs.FAILS["adapter"], "target": set(range(10, 22))}}
    monkeypatch.setattr(stored_runs, "FAILS", fails)
    store, run = finished_run(tmp_path)
    some, every = told(store, run), told(store, run, whole=True)
    assert sum(line.startswith("  target-") for line in some) == 5 and "  and 7 more cases" in some
    assert sum(line.startswith("  target-") for line in every) == 12
    assert len(some) < 40


@pytest.mark.heavy
def test_a_blind_case_is_counted_and_none_of_its_text_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stored_runs.suite

    def blind(hostile: str = "") -> Suite:
        cases = made(hostile).cases
        split = {"metadata": {"split": "blind"}}
        hidden = (case.model_copy(update=split) if case.block == "target" else case for case in cases)
        return made(hostile).model_copy(update={"cases": tuple(hidden)})

    monkeypatch.setattr(stored_runs, "suite", blind)
    for whole in (False, True):
        text = "\n".join(told(*finished_run(tmp_path / str(whole)), whole=whole))
        assert "adapter still fails: 1 case" in text and "and 1 blind case, not shown before --open-blind" in text
        assert "48017" not in text and "sorry to hear" not in text


@pytest.mark.heavy
def test_the_next_step_can_be_typed_into_a_shell_and_at_the_prompt(tmp_path: Path) -> None:
    store, run = finished_run(tmp_path)
    proposals = [one.next for one in findings(store, run) if one.next is not None]
    assert proposals
    for one in proposals:
        args, rest = parser.parse(shlex.split(command(one, run, in_repl=False))[1:])
        assert args.command == one.stage and not rest
        name, _, words = command(one, run, in_repl=True).removeprefix("/").partition(" ")
        given = of_words(words, catalog.BY_NAME[name].load().request)
        assert given["run"] == run and set(one.fields) <= set(given)
    last = [line for line in told(store, run) if line.startswith("next: ")]
    assert len(last) == 1 and last[0].startswith("next: tunesmith ")
    assert any(line.startswith("next: /") for line in told(store, run, in_repl=True))


@table(
    ("value", "text"),
    [(0.0006299999999999999, "6.3e-04"), (5e-4, "5e-04"), (0.0015, "0.0015"), (2.2, "2.2"), (4.0, "4"), (16, "16"),
     ("merged", "merged"), (0.0, "0"), (True, "True"), (1 / 3, "0.3333")],
)  # fmt: skip
def test_figures_are_rounded_where_people_read_them(value: object, text: str) -> None:
    assert rounded(value) == text


def test_a_rounded_figure_is_still_the_fields_value() -> None:
    line = command(Proposal("train", {"learning_rate": 0.0006299999999999999}, ""), "r1", in_repl=True)
    given = of_words(line.partition(" ")[2], catalog.BY_NAME["train"].load().request)
    assert float(str(given["learning_rate"])) == 6.3e-4


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["compare", "explain"])
def test_compare_and_explain_begin_with_the_verdict(tmp_path: Path, name: str) -> None:
    tunesmith = Tunesmith(tmp_path / "home")
    finished_run(tunesmith.home)
    told = tunesmith(name, "r1").stdout
    assert told.startswith("r1 learned: ") and told.count("next: ") == 1

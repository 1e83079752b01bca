"""What stands in `examples/` is what it says: the behaviour, its suite and its rows load and are priced; the scripts
start nothing before a yes, and write what they promise."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import arc, endpoint_teacher
from tests.fixtures import FIXTURES, stored_runs
from tests.fixtures.stub_driver import StubDriver
from tunesmith.memory.store import Store
from tunesmith.tools.core.similarity import Likeness
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.behaviour import is_complete, load_behaviour
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.pipeline.run_step import price
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving.traffic import contacts
from tunesmith.tools.suites.loading import load_named_suites

EXAMPLES = Path(arc.__file__).parent
BEHAVIOUR, CASES, ROWS = (EXAMPLES / f"schadenmeldung{end}" for end in (".yaml", "-cases.yaml", ".jsonl"))


def rows_in(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    """A home with a finished run, whose base has its name and whose rows are counted."""
    store, _ = stored_runs.finished_run(tmp_path)
    with store.write() as conn:
        conn.execute("UPDATE artifacts SET meta = json_set(meta, '$.name', 'small') WHERE kind = 'base'")
        conn.execute("UPDATE artifacts SET meta = json_set(meta, '$.rows', 160) WHERE kind = 'rows'")
    yield Workspace(store, str(FIXTURES / "stub_chat.py"), lambda event, **data: None)
    store.close()


def test_the_behaviour_says_all_that_code_needs_and_its_examples_and_rows_keep_its_form() -> None:
    spec = load_behaviour(str(BEHAVIOUR))
    assert is_complete(spec) and spec.language == "German" and spec.rules
    assert [one.name for one in spec.attributes if one.shown] == ["gewerk", "eile", "wohnung"]
    for answer in (*(one.answer for one in spec.examples), *(row["completion"] for row in rows_in(ROWS))):
        assert broken_rule(spec.rules, answer) is None, answer


def test_each_case_has_its_right_answer_and_is_like_no_row() -> None:
    spec, suite = load_behaviour(str(BEHAVIOUR)), load_named_suites((str(CASES),))
    rows = Likeness((row["prompt"], row["prompt"]) for row in rows_in(ROWS))
    for case in suite.cases:
        assert not rows.match(str(case.messages[-1]["content"]), 85), case.case_id
    right = [str(case.assertions[0].value) for case in suite.block("target")]
    assert len(right) == 10 and not [answer for answer in right if broken_rule(spec.rules, answer)]
    assert len(suite.block("over-trigger")) == 4


@pytest.mark.parametrize(
    ("stage", "fields", "said"),
    [
        ("baseline", {"suites": [str(CASES)]}, "14 cases"),
        ("import", {"source": str(ROWS), "behaviour": str(BEHAVIOUR)}, "READY"),
        ("generate", {"behaviour": str(BEHAVIOUR), "rows": 24, "rehearsal_rows": 0}, "schadenmeldung"),
    ],
)
def test_a_stage_prices_what_the_examples_hold(ws: Workspace, stage: str, fields: dict[str, object], said: str) -> None:
    plan = price(ws, StepRequest(stage, fields, "r1"))
    assert plan.estimate.seconds > 0 and not plan.refusals
    assert said in " ".join((plan.summary, *plan.steps, *plan.notes))


@pytest.mark.parametrize(("typed", "code"), [(None, 3), ("n", 1)])
def test_the_arc_shows_a_price_and_starts_nothing_without_a_yes(
    typed: str | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.argv", ["arc.py", "--short"])
    monkeypatch.setattr("sys.stdin", io.StringIO("" if typed is None else f"{typed}\n"))
    assert arc.main() == code
    assert "base: " in (shown := capsys.readouterr().out) and "RAM " in shown
    [step] = Store(tmp_path / "home").priced_steps("r1")
    assert (step.stage, step.pid, step.started_at) == ("base", None, None)


def test_the_arc_shows_each_block_with_its_test_and_the_claim(
    ws: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = compare_with_hops(ws.store, "r1", "base", "quantized")
    arc.show_comparison(ws, "r1", "quantized")
    shown = capsys.readouterr().out.splitlines()
    assert [line.strip().partition(":")[0] for line in shown] == [*compared.whole.blocks, "claim"]
    target = compared.whole.blocks["target"]
    counts = f"base {target.passed['base']}, quantized {target.passed['quantized']} of {target.judged}"
    assert f"  target: {counts}: {target.verdict} (" in "\n".join(shown) and compared.evidence
    assert shown[-1] == f"  claim: {compared.evidence.verdict.sentence}"


def answered(body: dict[str, object]) -> str:
    """Every third answer is no row, or breaks the behaviour's rule; the others are rows about what was asked for."""
    wish = str(body["messages"][-1]["content"])  # type: ignore[index]
    trade = wish.partition("gewerk is ")[2].partition(" ")[0]
    if "eilig" in wish.partition("Here:")[2].partition("\n")[0]:
        return json.dumps({"prompt": "Hilfe", "completion": f"{trade}, sehr eilig"})
    return "Gern:\n" + json.dumps({"prompt": f"{trade} kaputt", "completion": f"{trade} / normal / Wohnung 3"})


@pytest.mark.heavy
def test_an_endpoints_rows_are_held_to_the_rules_and_its_labels_come_in_turn(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = StubDriver(answered)
    monkeypatch.setenv("TUNESMITH_HOME", str(ws.store.home))
    file = tmp_path / "rows.jsonl"
    options = [teacher.url, "big", str(file), "--rows", "16"]
    monkeypatch.setattr("sys.argv", ["endpoint_teacher.py", *options])
    for answer, code in ((io.StringIO("\n"), 1), (io.StringIO(), 3)):  # a no, and nobody there
        monkeypatch.setattr("sys.stdin", answer)
        assert endpoint_teacher.main() == code and not teacher.requests and not file.exists()
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    try:
        assert endpoint_teacher.main() == 0
    finally:
        teacher.close()
    assert "8 rows in" in (said := capsys.readouterr().out) and "it breaks a rule: the answer has the form" in said
    trades = sorted(row["completion"].partition(" ")[0] for row in rows_in(file))
    assert trades == sorted(2 * ["Sanitär", "Heizung", "Elektrik", "Schreiner"])
    assert len(teacher.requests) == 16 and {body["model"] for body in teacher.requests} == {"big"}
    assert price(ws, StepRequest("import", {"source": str(file), "behaviour": str(BEHAVIOUR)}, "r1"))
    assert not contacts(ws.store), "this machine is no host that anything left for"

"""What a stage reads at work is what its plan was agreed to for: whatever changed after the yes is refused, unused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.behaviours import PICKUP
from tests.fixtures.steps import say_yes
from tests.fixtures.tiny_model import CONFIG, make_tiny_model
from tunesmith.memory.errors import ApprovalPending, BadInput, StepFailed
from tunesmith.memory.files import seal, sha256_file
from tunesmith.memory.marks import Mark, add_mark
from tunesmith.memory.records import PLANNED, Artifact, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.rows import write_rows
from tunesmith.tools.evaluation.gate import Gate
from tunesmith.tools.export import deploy, deploy_job
from tunesmith.tools.pipeline import catalog, worker
from tunesmith.tools.pipeline.run_step import continue_step, decide, price, propose, run_pending
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.suites.case import Suite
from tunesmith.tools.suites.grading import embedding
from tunesmith.tools.suites.loading import load_suites

SUITE = """\
prompts: ['{{q}}']
tests:
  - vars: {q: what is the capital of Peru}
    metadata: {case_id: c1, block: target}
    assert: [{type: llm-rubric, value: It says Lima}]
"""
JUDGE = '[judge]\nendpoint = "http://127.0.0.1:1/v1"\nname = "%s"\n'
MODEL: dict[str, Any] = {"name": "tiny", "parameters": 32, "config": CONFIG, "architecture": "llama", "license": ""}
MODEL |= {"source": "tiny", "revision": "", "measured_at": "16"}
ROWS = [
    TrainingRow(
        f"g{number}",
        "generated",
        [{"role": "user", "content": f"Triage: parcel {number} never came"}],
        [{"role": "assistant", "content": f'{{"order": "{number}"}}'}],
    )
    for number in range(12)
]


@dataclass
class World:
    """A run with one artifact of each kind, and the files that its stages read beside them."""

    ws: Workspace
    folder: Path

    @property
    def store(self) -> Store:
        return self.ws.store

    def add(self, kind: str, path: Path, *parents: str, **meta: Any) -> str:
        sha256 = str(seal(path)["sha256"]) if path.is_dir() else sha256_file(path)
        return self.store.add_artifact(Artifact("", "r1", "s1", kind, path, sha256, 64, parents, meta)).id

    def model(self, kind: str, **meta: Any) -> str:
        return self.add(kind, make_tiny_model(self.folder / kind), **{**MODEL, **meta})

    def rows(self, kind: str, *names: str, **meta: Any) -> str:
        folder = self.folder / kind
        for name in names:
            write_rows(folder / name, ROWS)
        return self.add(kind, folder, **meta)

    def tamper(self, kind: str) -> None:
        """Other bytes where an artifact lies."""
        path = self.store.artifacts("r1", kind)[-1].path
        file = path / "added" if path.is_dir() else path
        file.write_text("other")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world, made once: its paths are absolute, so each test puts a copy where it was made."""
    tmp_path = tmp_path_factory.mktemp("made") / "world"
    tmp_path.mkdir()
    (tmp_path / "behaviour").mkdir()
    (tmp_path / "behaviour" / "behaviour.yaml").write_text(json.dumps(PICKUP))
    (tmp_path / "behaviour" / "rehearsal.txt").write_text("Who painted it?\nHow far is it?\n")
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "2+2?", "completion": "4"}\n' * 9)
    make_tiny_model(tmp_path / "model")
    world = World(Workspace(Store(tmp_path / "home"), "/bin/true", lambda event, **data: None), tmp_path)
    (world.store.home / "settings.toml").write_text(JUDGE % "first")
    made = world.store.propose(world.store.new_run("test"), "inspect", plan_hash="h")
    world.store.claim(made, needs_approval=False, pid=1, pid_started=1.0, boot_id="boot")
    world.store.finish(made, {})
    base = world.model("base")
    world.model("teacher")
    behaviour = str(tmp_path / "behaviour")
    of_rows = {"behaviour": behaviour, "behaviour_sha256": load_behaviour(behaviour).sha256, "rows": len(ROWS)}
    world.rows("rows", "rows.jsonl", **of_rows)
    counts = {"train_rows": 12, "valid_rows": 12, "tokens_per_row": 20, "longest_row_tokens": 30, "cases": 0}
    world.rows("dataset", "train.jsonl", "valid.jsonl", **counts)
    (tmp_path / "suite.json").write_text(load_suites([tmp_path / "suite.yaml"], models=("judge",)).to_json())
    world.add("suite", tmp_path / "suite.json", cases=1, context_tokens=4096, thinking="off")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    world.add("adapter", tmp_path / "adapter", base, lora_rank=8)
    world.model("merged")
    world.store.close()
    return tmp_path.rename(tmp_path.with_name("template"))


@pytest.fixture
def world(template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(embedding, "model_folder", lambda: None)
    folder = Path(shutil.copytree(template, template.with_name("world")))
    store = Store(folder / "home")
    store.read("PRAGMA synchronous=OFF")
    yield World(Workspace(store, "/bin/true", lambda event, **data: None), folder)
    store.close()
    shutil.rmtree(folder)


def _write(name: str, text: str) -> Callable[[World, pytest.MonkeyPatch], None]:
    return lambda world, monkeypatch: (world.folder / name).write_text(text) and None


def _marked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = load_behaviour(str(world.folder / "behaviour")).name
    add_mark(world.store, Mark(name, "r1", "s1", "g1", "drop", "parcel 1 never came", "no", "no"))


def _other_behaviour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = world.folder / "behaviour" / "behaviour.yaml", {"criteria": ["The answer says yes to everything"]}
    file.write_text(json.dumps(PICKUP | other))


def _other_embedder(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.folder / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(embedding, "model_folder", lambda: world.folder)


def _asked_otherwise(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.store.write() as conn:
        conn.execute("UPDATE artifacts SET meta = replace(replace(meta, '4096', '8192'), '\"off\"', '\"on\"')")


CHANGES: dict[str, Callable[[World, pytest.MonkeyPatch], None]] = {
    "suite": _write("suite.yaml", SUITE.replace("Peru", "Chile")),
    "marks": _marked,
    "behaviour": _other_behaviour,
    "rehearsal prompts": _write("behaviour/rehearsal.txt", "another prompt\n"),
    "embedding model": _other_embedder,
    "judge": _write("home/settings.toml", JUDGE % "second"),
    "way of asking": _asked_otherwise,
    "model folder": _write("model/chat_template.jinja", "{{ 'evil' }}"),
    "source": _write("rows.jsonl", '{"prompt": "2+2?", "completion": "5"}\n' * 9),
}
"""Pin → how what it stands for is changed."""
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("base", {"model": "@model"}),
    "baseline": ("baseline", {"suites": ["@suite.yaml"], "held_out": True}),
    "import": ("import", {"source": "@rows.jsonl", "behaviour": "@behaviour"}),
    "generate": ("generate", {"behaviour": "@behaviour", "writer": "teacher"}),
    "critique": ("critique", {"suites": ["@suite.yaml"], "judge": "base"}),
    "critique without suites": ("critique", {"suites": [], "judge": "teacher", "embeddings": False}),
    "preflight": ("preflight", {}),
    "train": ("train", {}),
    "evaluate": ("evaluate", {"arm": "adapter"}),
    "evaluate a prompt": ("evaluate", {"arm": "prompted", "behaviour": "@behaviour"}),
    "evaluate merged": ("evaluate", {"arm": "merged"}),
    "merge": ("merge", {}),
    "quantize": ("quantize", {}),
    "deploy": ("deploy", {"arm": "adapter"}),
    "release": ("release", {"format": "hub", "arm": "merged"}),
}
"""Requests of every stage that reads anything; `@` stands for the world's folder."""
READS: dict[str, tuple[str, ...]] = {
    "base": ("model folder",),
    "baseline": ("base", "dataset", "suite", "judge"),
    "import": ("rows", "behaviour", "source"),
    "generate": ("base", "teacher", "behaviour", "rehearsal prompts", "way of asking"),
    "critique": (
        "base",
        "rows",
        "suite",
        "judge",
        "pin suite",
        "marks",
        "behaviour",
        "embedding model",
        "way of asking",
    ),
    "critique without suites": ("base", "rows", "suite", "judge", "marks", "behaviour"),
    "preflight": ("base", "dataset", "way of asking"),
    "train": ("base", "dataset", "way of asking"),
    "evaluate": ("base", "suite", "adapter", "judge", "way of asking"),
    "evaluate a prompt": ("base", "suite", "judge", "behaviour", "way of asking"),
    "evaluate merged": ("suite", "merged", "judge", "way of asking"),
    "merge": ("base", "adapter"),
    "quantize": ("merged", "dataset"),
    "deploy": ("model", "base"),
    "release": ("model", "base"),
}
"""What each of them reads at work: the inputs and the pins of its plan. `pin` tells one from an input of that name."""
NOTHING_READ = {"inspect"}
UNCHANGEABLE = {
    ("evaluate merged", "base"): "the arm answers alone, and nothing of the base is read",
    ("deploy", "way of asking"): "looked at once the server is described, behind the gate (test_run_bench)",
    ("critique without suites", "pin suite"): "no file is read",
}
KIND_OF = {
    ("critique", "judge"): "base",
    ("critique without suites", "judge"): "teacher",
    ("deploy", "model"): "adapter",
    ("release", "model"): "merged",
}


def planned(world: World, name: str) -> tuple[str, Plan]:
    stage, fields = ASKED[name]
    told = json.loads(json.dumps(fields).replace("@", f"{world.folder}/"))
    plan = price(world.ws, StepRequest(stage, told, "r1"))
    return propose(world.ws, plan), plan


def agreed(world: World, name: str) -> str:
    step, plan = planned(world, name)
    if catalog.BY_NAME[plan.stage].expensive:
        assert decide(world.ws, step, plan, say_yes).yes
    return step


def carried_out(world: World, step: str) -> None:
    """As the worker does it, in this process."""
    entry = catalog.BY_NAME[world.store.step(step).stage]
    with worker.claimed(world.store, step, needs_approval=entry.expensive):
        entry.work()(worker.open_job(world.store, step, world.ws.vllm))


def _cases() -> list[tuple[str, str]]:
    return [(name, read) for name, reads in READS.items() for read in reads]


@pytest.fixture
def gate_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What evaluations say of a deployment is another test's."""
    for module in (deploy, deploy_job):
        monkeypatch.setattr(module, "gate_of", lambda *args, **more: Gate())
    monkeypatch.setattr(deploy_job, "audit_refusals", lambda *args: [])


@pytest.mark.usefixtures("gate_open")
@pytest.mark.parametrize(("name", "read"), _cases())
def test_what_changed_after_the_yes_is_refused_in_a_sentence_and_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, read: str
) -> None:
    step, before = agreed(world, name), len(world.store.artifacts("r1"))
    plan, pin = Plan.model_validate(world.store.step(step).plan), read.removeprefix("pin ")
    if read in plan.inputs:
        world.tamper(KIND_OF.get((name, read), read))
    else:
        assert pin in plan.pins
        CHANGES[pin](world, monkeypatch)
    with pytest.raises(StepFailed) as refused:
        carried_out(world, step)
    told = str(refused.value)
    of_input = "changed" in told or "differ" in told or "not there" in told or "added" in told
    assert of_input if read in plan.inputs else f"the {pin} w" in told and "plan the step again" in told, told
    assert "\n" not in told and len(told) < 600
    assert len(world.store.artifacts("r1")) == before and not world.store.results(step) and not world.store.rows(step)
    assert servers.list_servers(world.store.home) == [] and not [*world.store.home.glob("models/*")]


@pytest.mark.usefixtures("gate_open")
@pytest.mark.parametrize("name", ASKED)
def test_everything_that_a_plan_names_is_in_the_table(world: World, name: str) -> None:
    _, plan = planned(world, name)
    named = {*plan.inputs, *(f"pin {pin}" if pin in plan.inputs else pin for pin in plan.pins)}
    apart = {read for where, read in UNCHANGEABLE if where == name}
    assert named - apart == set(READS[name]), "a new pin wants a row, and one that is gone wants it removed"


def test_every_stage_is_in_the_table() -> None:
    assert {stage for stage, _ in ASKED.values()} | NOTHING_READ == {entry.name for entry in catalog.STAGES}
    assert set(ASKED) == set(READS)


# --- what decides about rows


@pytest.mark.parametrize("name", ["suite", "marks", "embedding model"])
def test_a_critique_that_waits_is_asked_about_anew_where_anything_that_decides_changed(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    step, shown = planned(world, "critique")
    CHANGES[name](world, monkeypatch)
    waiting = world.store.step(step)

    def only_the_shown(plan: Plan, step: str) -> Decision:
        if plan.hash != shown.hash:
            raise ApprovalPending("another plan")
        return Decision(True, "--approve")

    with pytest.raises(ApprovalPending):
        run_pending(world.ws, waiting, only_the_shown)
    assert [s.status for s in world.store.priced_steps("r1")[1:]] == ["declined", PLANNED]


def test_no_suite_and_no_mark_are_pinned_as_well(world: World) -> None:
    pins = planned(world, "critique without suites")[1].pins
    assert {len(pins["suite"]), len(pins["marks"])} == {64}


@pytest.mark.parametrize(
    "field", ["on_leak", "near_duplicate", "leak", "held_out", "judge", "valid_share", "embeddings"]
)
def test_how_strict_a_critique_is_is_part_of_its_hash(world: World, field: str) -> None:
    other = {"on_leak": "drop", "near_duplicate": 80.0, "leak": 80.0, "held_out": 1, "judge": "teacher"}
    other |= {"valid_share": 0.2, "embeddings": False}
    fields = {"suites": [str(world.folder / "suite.yaml")]}
    plans = [
        price(world.ws, StepRequest("critique", given, "r1")) for given in (fields, fields | {field: other[field]})
    ]
    assert plans[0].hash != plans[1].hash


def test_a_behaviour_that_its_rows_were_not_made_for_is_refused_before_a_yes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _other_behaviour(world, monkeypatch)
    with pytest.raises(BadInput, match="changed since its rows were made"):
        planned(world, "critique")


def test_a_half_done_critique_whose_suite_was_mended_is_planned_anew_and_an_unchanged_one_goes_on(world: World) -> None:
    step = agreed(world, "critique")
    world.store.fail(step, "3 rows give away a case of a suite")
    request, asked = StepRequest.of(world.store.step(step)), list[str]()

    def decline(plan: Plan, step: str) -> Decision:
        asked.append(step)
        return Decision(False, "test")

    continue_step(world.ws, world.store.step(step), request, decline)
    world.store.fail(step, "again")
    with world.store.write() as conn:
        conn.execute("UPDATE steps SET status = 'failed' WHERE step = ?", (step,))
    (world.folder / "suite.yaml").write_text(SUITE.replace("Peru", "Chile"))
    continue_step(world.ws, world.store.step(step), request, decline)
    assert asked[0] == step and asked[1] != step


def test_a_plan_of_before_there_were_pins_is_for_nothing(world: World) -> None:
    step = agreed(world, "critique")
    with world.store.write() as conn:
        conn.execute("UPDATE steps SET plan = json_set(plan, '$.pins', json('{}')) WHERE step = ?", (step,))
    with pytest.raises(StepFailed, match="does not say which"):
        carried_out(world, step)


def test_a_suite_that_a_step_kept_is_the_one_that_was_agreed_to(world: World) -> None:
    step = agreed(world, "baseline")
    kept = world.store.home / "runs" / "r1" / step / "suite.json"
    kept.parent.mkdir(parents=True)
    other = Suite(cases=())
    kept.write_text(other.to_json())
    with pytest.raises(StepFailed, match="the suite was changed"):
        carried_out(world, step)

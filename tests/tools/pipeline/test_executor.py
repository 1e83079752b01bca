"""Plans and requests: everything wrong is named before anything starts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.stages import stages_that_need_no_file
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.estimate import STORE_BYTES, estimate, room
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.pace import Past
from tunesmith.tools.core.rates import Seconds, usual_card
from tunesmith.tools.core.stage import Estimate, Facts, Plan, Request, Result
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.forecast import forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec, load_pipeline, parse_request
from tunesmith.tools.pipeline.planning_facts import past_steps
from tunesmith.tools.pipeline.run_step import continue_step, price, propose, run_step
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace

GIB = 1 << 30
MACHINE = Machine("cpu", 2, 24 * GIB, 20 * GIB, 0, 50 * GIB)


def facts(**more: object) -> Facts:
    return Facts(home=Path("/nowhere"), machine=MACHINE, run="r1", **more)  # type: ignore[arg-type]


def plan_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def test_every_stage_of_the_catalogue_has_its_declaration() -> None:
    for entry in catalog.STAGES:
        stage = entry.load()
        assert stage.name == entry.name
        assert issubclass(stage.request, Request) and issubclass(stage.result, Result)
        assert [name for name, field in stage.request.model_fields.items() if not field.description] == []
        assert stage.request.model_fields["run"].default == "", "none named: the newest"


@table(
    ("stage", "fields", "told"),
    [
        ("train", {"lora_rnk": 8}, "did you mean 'lora_rank'"),
        (
            "train",
            {"lora_rank": -1},
            "is -1; it takes a whole number of at least 1 and at most 256, such as 8, or auto",
        ),
        ("train", {"learning_rate": "fast"}, "learning_rate"),
        ("trian", {}, "the stages are"),
        ("quantize", {"scheme": "W3A16"}, "W4A16"),
        ("deploy", {"port": 99999}, "port"),
    ],
)
def test_a_wrong_field_is_named_with_the_right_one(stage: str, fields: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        parse_request(stage, fields)


@table(
    ("text", "told"),
    [
        ("name: x\nsteps: [train]", "step 1 .train. has no base to work on; put `base` before it"),
        (
            "name: x\nsteps: [base, baseline, {stage: merge}]",
            "step 3 .merge. has no adapter to work on; put `train` before it",
        ),
        (
            "name: x\nsteps: [base, baseline, {stage: evaluate, arm: merged}]",
            "step 3 .evaluate. has no merged to work on; put `merge` before it",
        ),
        (
            "name: x\nsteps: [{stage: base, role: teacher}, baseline]",
            "step 2 .baseline. has no base to work on; put `base` before it",
        ),
        ("name: x\nsteps: [base, deploy]", "step 2 .deploy. has no quantized to work on; put `quantize` before it"),
        (
            "name: x\nsteps: [base, baseline, generate, critique, train, {stage: deploy, arm: adapter}]",
            "step 6: deploy serves only what was evaluated, and nothing before it would evaluate the adapter model",
        ),
        (
            "name: x\nsteps: [base, baseline, generate, critique, train, {stage: evaluate, arm: adapter}, train, "
            "{stage: deploy, arm: adapter}]",
            "step 8: deploy serves only what was evaluated",
        ),
        (
            "name: x\non: ssh\nsteps: [base, deploy]",
            "`on: ssh` is followed nowhere, for base, deploy can be done only",
        ),
        (
            "name: x\non: ray\nsteps: [base]",
            "`on: ray` is followed nowhere, for base can be done only here; leave `on`",
        ),
        ("name: x\non: mars\nsteps: [base]", "leave `on` out .here, ray."),
        ("name: x\non: ssh\nsteps: [base, baseline]", "baseline: on is 'ssh'; it takes here or ray"),
        ("name: x\non: ray\nsteps: [nosuch]", "no stage 'nosuch'"),
        ("name: x\non: ray\nsteps: [{stage: [base]}]", "no stage"),
        (
            "name: x\nsteps: [{stage: base, on: ray}, baseline]",
            "base: no field 'on' here: it works on files or a port of this machine; to another one can go inspect, ",
        ),
        ("name: x\nsteps: []", "steps"),
        ("steps: [base]", "name"),
        ("name: x\nsteps: [{lora_rank: 3}]", "step 1 names no stage"),
        ("name: x\nsteps: [{stage: base, modell: y}]", "did you mean 'model'"),
        ("name: x\nstep: [base]", "it needs `name` and a list `steps`"),
        ("name: [", "plan.yaml line 1: not valid YAML: "),
        ("name: x\nsteps: [!!python/object/apply:os.system ['id']]", "plan.yaml line 2: the YAML tag"),
    ],
)
def test_a_broken_plan_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        load_pipeline(plan_file(tmp_path, text))


def test_a_plan_says_where_its_steps_are_done_where_one_of_them_can_go(tmp_path: Path) -> None:
    for on, kept in (("ray", "ray"), ("here", "here")):
        plan = load_pipeline(plan_file(tmp_path, f"name: x\non: {on}\nsteps: [base, baseline]"))
        assert [spec.fields.get("on") for spec in plan.steps] == [None, kept]
    assert load_pipeline(plan_file(tmp_path, "name: x\non: here\nsteps: [base]")).steps[0].fields == {}


def test_the_bundled_plans_bring_their_rows_and_hold_every_stage_that_needs_no_file_of_the_user() -> None:
    from importlib.resources import files

    for name in ("plan.yaml", "plan-fast.yaml"):
        plan = load_pipeline(Path(str(files("tunesmith.prompts"))) / "demo" / name)
        assert {spec.stage for spec in plan.steps} == stages_that_need_no_file() | {"import"}


def done(stage: str, taken: float, run: str = "r0", *, like: str = "", device: str = "", **priced: float) -> Past:
    """A finished step that was priced so by kind of work."""
    return Past(stage, like, run, tuple(priced.items()), taken, device=device)


def test_an_estimate_follows_this_machine_and_says_so() -> None:
    fresh = estimate("train", facts(), seconds=Seconds(train=100))
    assert fresh.seconds == 100 and "no train has ended on this machine" in fresh.basis
    slow = tuple(done("train", taken, train=100) for taken in (200, 200, 1000, 200))
    prices = [estimate("train", facts(past=slow[:count]), seconds=Seconds(train=100)) for count in range(5)]
    seconds = [price.seconds for price in prices]
    assert 100 < seconds[1] < seconds[2] < 200, "the more runs say so, the nearer to them"
    assert seconds[4] < 270, "one disturbed night changes little"
    assert prices[4].calibrated_seconds == 100 and "4 past runs of train" in prices[4].basis
    assert all(price.least_seconds < price.seconds < price.most_seconds for price in prices)
    widths = [math.log(price.most_seconds / price.least_seconds) for price in prices]
    assert widths[:3] == sorted(widths[:3], reverse=True) and widths[3] > widths[2], (
        "and the surer, but for such a night"
    )


def test_the_first_steps_of_a_run_correct_the_prices_of_other_stages_and_weigh_more_than_another_run() -> None:
    work, slow = Seconds(fixed=3, answer=40), {"start": 20.0, "answer": 10.0}
    mine, others = (facts(past=(done("baseline", 90, run, **slow),)) for run in ("r9", "r1"))
    now, before = (replace(one, run="r9") for one in (mine, others))
    price, weaker = (estimate("generate", one, seconds=work) for one in (now, before))
    assert price.seconds > weaker.seconds > 1.2 * work.total
    assert price.basis == "what this run's baseline took; no generate has ended on this machine yet"
    assert weaker.basis == "1 past step of other kinds on this machine; no generate has ended on this machine yet"
    idle = done("preflight", 10, "r9", start=10)
    both = estimate("generate", replace(before, past=(*before.past, idle)), seconds=work)
    assert both.seconds < weaker.seconds, "its own steps say otherwise"


def test_until_the_device_is_measured_a_price_is_a_range_and_a_limit_is_held_against_its_lower_end() -> None:
    work, unknown = Seconds(fixed=10, train=3600), usual_card()
    price = estimate("train", facts(), seconds=work, rates=unknown, vram_bytes=GIB)
    measured = estimate("train", facts(), seconds=work, rates=replace(unknown, spread=1.0), vram_bytes=GIB)
    assert price.promised_seconds == price.least_seconds < measured.least_seconds < measured.promised_seconds
    assert "until this one is measured" in price.basis and "measured rates" in measured.basis
    assert measured.promised_seconds == measured.seconds == price.seconds
    ran = facts(past=(done("merge", 40, device="GPU", read=20),))
    known = estimate("train", ran, seconds=work, rates=unknown, vram_bytes=GIB)
    assert known.promised_seconds == known.seconds > price.seconds


def test_what_a_step_took_on_the_cpu_does_not_correct_its_price_on_a_gpu() -> None:
    known = facts(past=(done("train", 30, train=10), done("evaluate", 20, like="adapter", device="GPU", answer=10)))
    on_cpu = estimate("train", known, seconds=Seconds(train=100), ram_bytes=GIB)
    on_gpu = estimate("train", facts(past=known.past[:1]), seconds=Seconds(train=100), vram_bytes=GIB)
    assert on_gpu.seconds == 100 < on_cpu.seconds and on_cpu.like != on_gpu.like
    measured = estimate("evaluate", known, seconds=Seconds(answer=100), vram_bytes=GIB, like="adapter")
    assert 120 < measured.seconds < 200 and measured.basis == "1 past run of evaluate (adapter, GPU) on this machine"


def test_every_arm_of_an_evaluation_is_a_kind_of_its_own(tmp_path: Path) -> None:
    ws = Workspace(Store(tmp_path / "home"), "/bin/true", lambda event, **data: None)
    arms = [{"arm": arm} for arm in ("adapter", "merged", "quantized")]
    stages = ["base", "baseline", "generate", "critique", "train", "merge", "quantize"]
    steps = [*(StepSpec(stage=stage) for stage in stages), *(StepSpec(stage="evaluate", fields=arm) for arm in arms)]
    prices = forecast(ws, PipelinePlan(name="p", steps=tuple(steps)))
    assert [p.estimate.like for p in prices if p.stage == "evaluate" and p.estimate] == [
        "adapter",
        "merged",
        "quantized",
    ]


@pytest.mark.heavy
def test_a_base_that_only_had_to_be_verified_does_not_price_one_that_has_to_be_copied(tmp_path: Path) -> None:
    ws = Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)
    first, other = (str(make_tiny_model(tmp_path / name)) for name in ("first", "other"))
    for _ in range(3):
        run_step(
            ws,
            StepRequest("base", {"model": first}, ws.store.new_run("test")),
            lambda plan, step: Decision(True, "test"),
        ).done()
    known = {past.like for past in past_steps(ws.store, measure_machine(ws.store.home))}
    assert known == {"folder", "folder, here already"}
    again, fresh = (price(ws, StepRequest("base", {"model": model})).estimate for model in (first, other))
    assert "2 past runs of base (folder, here already)" in again.basis and again.disk_bytes == STORE_BYTES
    assert "1 past run of base (folder)" in fresh.basis and fresh.disk_bytes > STORE_BYTES


def test_what_each_kind_of_work_took_is_kept_and_counts_on_the_same_machine_alone(tmp_path: Path) -> None:
    ws = Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)
    fields = {"model": str(make_tiny_model(tmp_path / "model"))}
    step = run_step(
        ws, StepRequest("base", fields, ws.store.new_run("test")), lambda plan, step: Decision(True, "test")
    ).done()
    here = measure_machine(ws.store.home)
    [past] = past_steps(ws.store, here)
    priced = {kind: seconds for kind, seconds in step.plan["estimate"]["work"].items() if seconds}
    assert dict(past.priced) == priced and past.seconds == sum(dict(past.took).values())
    assert {"start", "read"} >= set(dict(past.took)) and 0 < past.seconds <= step.seconds + 0.1
    assert past_steps(ws.store, replace(here, cores=here.cores + 2)) == ()
    with ws.store.write() as conn:  # as a version left it that kept neither the kinds nor the machine
        conn.execute("UPDATE events SET data = '{}' WHERE event = 'step.done'")
        conn.execute("UPDATE steps SET plan = json_remove(plan, '$.estimate.work', '$.estimate.parts')")
    [older] = past_steps(ws.store, here)
    assert sum(seconds for _, seconds in older.priced) == pytest.approx(step.plan["estimate"]["calibrated_seconds"])
    assert older.seconds == step.seconds and not older.took


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    told = room(Estimate(seconds=1, basis="", peak_ram_bytes=27 * GIB, disk_bytes=80 * GIB), facts(), remedy="less")
    assert told == (
        "needs 27.0 GiB of RAM and swap, there is room for 23.6 GiB; try less",
        "needs 80.0 GiB of disk, 50.0 GiB free; try making room, or TUNESMITH_HOME on another disk",
    )


def test_a_plan_hash_holds_the_price_and_the_arguments_but_not_what_is_free() -> None:
    plan = Plan(
        stage="train", run="r1", summary="", steps=(), request={"a": 1}, estimate=Estimate(seconds=1, basis="x")
    )
    assert plan.hash == plan.model_copy(update={"free_ram_bytes": 7}).hash
    assert plan.hash != plan.model_copy(update={"request": {"a": 2}}).hash
    assert plan.hash != plan.model_copy(update={"estimate": Estimate(seconds=2, basis="x")}).hash
    assert plan.hash != plan.model_copy(update={"replaces": ("the adapter",)}).hash


@pytest.mark.parametrize("older", [True, False])
def test_a_step_that_an_older_version_planned_without_its_pins_is_planned_and_asked_about_anew(
    tmp_path: Path, older: bool
) -> None:
    ws = Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)
    request = StepRequest("base", {"model": str(make_tiny_model(tmp_path / "model"))}, ws.store.new_run("test"))
    begun = propose(ws, price(ws, request))
    ws.store.fail(begun, "the plug was pulled")
    if older:
        with ws.store.write() as conn:
            conn.execute("UPDATE steps SET plan = json_remove(plan, '$.pins') WHERE step = ?", (begun,))
    asked: list[tuple[str, Plan]] = []

    def decline(plan: Plan, step: str) -> Decision:
        asked.append((step, plan))
        return Decision(False, "test")

    continue_step(ws, ws.store.step(begun), request, decline)
    [(step, plan)] = asked
    assert plan.pins["model folder"] and (step != begun) == older


def test_a_yes_is_for_the_price_and_not_for_how_well_it_is_known() -> None:
    price_ = Estimate(seconds=60, basis="b")
    plan = Plan(stage="train", run="r1", summary="s", steps=(), request={}, estimate=price_)
    known = price_.model_copy(
        update={"fixed_seconds": 10, "least_seconds": 20, "most_seconds": 80, "parts": {"start": 60.0}, "answers": 3}
    )
    assert plan.model_copy(update={"estimate": known, "free_ram_bytes": 9}).hash == plan.hash
    dearer = price_.model_copy(update={"seconds": 61})
    assert plan.model_copy(update={"estimate": dearer}).hash != plan.hash

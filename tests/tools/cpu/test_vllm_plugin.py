"""The plugin's arithmetic against the definition: each token gets its own adapter, and nothing else."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.tools.cpu.settings import VLLM_PLUGIN, preloaded
from tunesmith.tools.machine.vllm_program import find_vllm

pytestmark = pytest.mark.lab

RANK, INPUTS, SLICES = 4, 24, (16, 8, 8)


def plugin() -> Any:
    spec = importlib.util.spec_from_file_location("tunesmith_vllm", VLLM_PLUGIN / "tunesmith_vllm.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("runs", [[(5, 0)], [(3, -1), (4, 1), (1, 0)], [(1, 0), (1, -1)] * 4], ids=str)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_token_gets_its_own_adapter_and_one_without_keeps_its_output(
    runs: list[tuple[int, int]], scale: float
) -> None:
    import torch

    torch.manual_seed(0)
    slots = [slot for length, slot in runs for _ in range(length)]
    a = tuple(torch.randn(2, 1, RANK, INPUTS) for _ in SLICES)
    b = tuple(torch.randn(2, 1, width, RANK) for width in SLICES)
    x, before = torch.randn(len(slots), INPUTS), torch.randn(len(slots), sum(SLICES))
    metadata = (None, torch.tensor([n for n, _ in runs]), torch.tensor([s for _, s in runs]), len(runs), 0, 0)
    batch = SimpleNamespace(no_lora=False, prefill_metadata=metadata)

    y = before.clone()
    plugin().add_lora_linear(batch, y, x, a, b, scale, SLICES)

    for token, slot in enumerate(slots):
        delta = [scale * b[i][slot, 0] @ (a[i][slot, 0] @ x[token]) for i in range(len(SLICES))]
        expected = before[token] + torch.cat(delta) if slot >= 0 else before[token]
        assert torch.allclose(y[token], expected, atol=1e-4), f"token {token} of slot {slot}"
    assert all(torch.equal(y[i], before[i]) for i, slot in enumerate(slots) if slot < 0)


@pytest.mark.parametrize("slots", [[0, 0], [1, -1, 0, 1], [-1, -1]], ids=str)
def test_a_rows_logits_get_its_own_adapters_part_where_it_has_one(slots: list[int]) -> None:
    import torch

    torch.manual_seed(0)
    a, b = torch.randn(2, 1, RANK, INPUTS), torch.randn(2, 1, 40, RANK)
    b[0] = 0  # an adapter without a part on the output layer
    x, before = torch.randn(len(slots), INPUTS), torch.randn(len(slots), 40)
    batch = SimpleNamespace(no_lora=False, sampler_indices=torch.tensor([*slots, 1]))  # vLLM's may be longer

    y = before.clone()
    plugin().add_lora_logits(batch, y, x, a, b, 0.5)

    for row, slot in enumerate(slots):
        added = 0.5 * b[1, 0] @ (a[1, 0] @ x[row]) if slot == 1 else 0
        assert torch.allclose(y[row], before[row] + added, atol=1e-4), f"row {row} of slot {slot}"


def test_without_an_adapter_in_the_batch_logits_are_left_alone() -> None:
    import torch

    y = torch.randn(3, 40)
    before = y.clone()
    plugin().add_lora_logits(SimpleNamespace(no_lora=True), y, torch.randn(3, INPUTS), None, None, 1.0)
    assert torch.equal(y, before)


NORMS = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from vllm import ir
from vllm.platforms import current_platform
import tunesmith_norms as ours
ours.register(current_platform)
torch.manual_seed(0)
for shape in ((1, 576), (64, 576), (7, 2048), (5, 4, 64), (3, 24)):
    x, residual, weight = torch.randn(shape), torch.randn(shape) * 3, torch.randn(shape[-1])
    x, residual, weight = (one.to(torch.bfloat16) for one in (x, residual, weight))
    alone, both = ir.ops.rms_norm.impls, ir.ops.fused_add_rms_norm.impls
    if not ours._fits_both(x, residual, weight, 1e-5):
        print("left", shape[-1])
        continue
    wanted = alone["native"].impl_fn(x, weight, 1e-5), *both["native"].impl_fn(x, residual, weight, 1e-5)
    given = ours.rms_norm(x.clone(), weight, 1e-5), *ours.fused_add_rms_norm(x.clone(), residual.clone(), weight, 1e-5)
    for one, other in zip(given, wanted):
        torch.testing.assert_close(one.float(), other.float(), rtol=2**-6, atol=2**-6)
    print("like PyTorch's", *shape)
"""


def test_vllms_norms_are_pytorchs_for_every_shape_that_they_are_used_for() -> None:
    """In vLLM's own environment; two roundings of bfloat16 are allowed."""
    vllm = find_vllm(None)
    if vllm is None:
        pytest.skip("no vLLM here")
    python = str(Path(vllm).parent / "python")
    done = subprocess.run(
        [python, "-c", NORMS, str(VLLM_PLUGIN)], capture_output=True, text=True, timeout=180, cwd=VLLM_PLUGIN
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith(("like", "left"))]
    assert lines == [
        *("like PyTorch's 1 576", "like PyTorch's 64 576", "like PyTorch's 7 2048", "like PyTorch's 5 4 64"),
        "left 24",
    ]


FORKS = """
import os
import sys
sys.path.insert(0, sys.argv[1])
import torch
import tunesmith_engine
torch.set_num_threads(2)
wide = torch.ones(4_000_000)
wide.exp().sum()  # from here on OpenMP has a pool of threads, and a fork would wait for the second one
print(tunesmith_engine.can_fork())
child = os.fork()
if not child:
    print(float((wide * 2).sum()), flush=True)
    os._exit(0)
os.waitpid(child, 0)
os.environ["LD_PRELOAD"] += ":another"
print(tunesmith_engine.can_fork())
"""


def test_a_forked_engine_computes_although_openmps_threads_were_used_before() -> None:
    vllm = find_vllm(None)
    if vllm is None:
        pytest.skip("no vLLM here")
    assert preloaded(vllm)["LD_PRELOAD"]
    done = subprocess.run(
        [str(Path(vllm).parent / "python"), "-c", FORKS, str(VLLM_PLUGIN)],
        **{"capture_output": True, "text": True, "timeout": 60, "env": os.environ | preloaded(vllm)},
    )
    assert done.stdout.split() == ["True", "8000000.0", "False"], done.stderr[-2000:]


@pytest.mark.parametrize(("folder", "is_there"), [("plain", True), ("with space", False), ("a:b", False)])
def test_a_server_is_given_an_openmp_whose_path_a_list_can_hold(tmp_path: Path, folder: str, is_there: bool) -> None:
    vllm = tmp_path / folder / "bin" / "vllm"
    assert preloaded(str(vllm)) == {}, "there is none yet"
    library = tmp_path / folder / "lib/python3.11/site-packages/torch/lib/libgomp.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    assert preloaded(str(vllm)) == ({"LD_PRELOAD": str(library)} if is_there else {})


def test_a_servers_python_collects_seldom_and_still_runs_what_the_machine_has_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('the machine its own')")
    path = os.pathsep.join(map(str, (VLLM_PLUGIN, tmp_path)))
    asked = [sys.executable, "-c", "import gc; print(gc.isenabled(), gc.get_threshold()[0])"]
    told = subprocess.run(asked, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["the machine its own", "True 200000"]

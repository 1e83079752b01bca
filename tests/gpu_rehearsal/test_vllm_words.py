"""Every argument and variable that a server is started with is one that vLLM's own source knows.

The source is that of the installed vLLM, which is one for the CPU here, and of the pinned wheel for CUDA where a copy
of it is named: `TUNESMITH_VLLM_WHEEL=vllm-0.32.0-….whl pytest tests/gpu_rehearsal` (its file is read, not installed).
"""

from __future__ import annotations

import ast
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.planted_gpus import gpu
from tunesmith.tools.machine.bootstrap import VLLM_CUDA, VLLM_VERSION
from tunesmith.tools.machine.gpus import server_environment
from tunesmith.tools.models.shape import ATTENTION
from tunesmith.tools.serving.budget import claim
from tunesmith.tools.serving.spec import ServerSpec, arguments, environment

ROOT = Path(__file__).resolve().parents[2]
WHEEL = os.environ.get("TUNESMITH_VLLM_WHEEL", "")
ARGUMENTS = ("engine/arg_utils.py", "entrypoints/common/cli_args.py", "entrypoints/launchers/cli_args.py")
"""Where they are declared: a class's field `max_model_len` is the flag `--max-model-len`."""
KERNELS = "model_executor/kernels/linear/scaled_mm/__init__.py"
SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"
SPECS = [
    ServerSpec(
        model_dir="/m", served_name="m", max_lora_rank=rank, lora_modules=modules, tool_parser=parser, device=device,
        gpu_bytes=1, gpu_cache_bytes=1,
    )
    for device in ("cpu", "cuda")
    for rank, modules in ((0, ()), (16, ()), (16, ATTENTION))
    for parser in ("hermes", "")
]  # fmt: skip


def sources() -> list[str]:
    installed = sorted(ROOT.glob(".venv-serve/lib/python3*/site-packages/vllm"))
    return [*map(str, installed), *([WHEEL] if WHEEL else [])]


@cache
def text(source: str, path: str) -> str:
    """A file of vLLM's package; empty where this release has none such."""
    if source.endswith(".whl"):
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(f"vllm/{path}").decode() if f"vllm/{path}" in wheel.namelist() else ""
    file = Path(source, path)
    return file.read_text() if file.is_file() else ""


@cache
def flags(source: str) -> frozenset[str]:
    """What `vllm serve` takes, by the fields of its argument classes."""
    known = {"--host", "--port"}
    for path in ARGUMENTS:
        for node in ast.walk(ast.parse(text(source, path))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Args"):
                names = [
                    one.target.id
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                ]
                known |= {f"--{name.replace('_', '-')}" for name in names}
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--"):
                known.add(node.value)
    return frozenset(known | {f"--no-{flag.removeprefix('--')}" for flag in known})


def given(spec: ServerSpec) -> Iterator[str]:
    memory = [word for alone in (True, False) for word in claim(spec, [gpu(0, free=23.6)], alone=alone).arguments]
    return (word.partition("=")[0] for word in arguments(spec, 8000, memory) if word.startswith("--"))


@pytest.fixture(params=sources() or [""], ids=lambda source: "wheel" if source.endswith(".whl") else "installed")
def source(request: pytest.FixtureRequest) -> str:
    if not request.param:
        pytest.skip("no vLLM is installed; make setup")
    return str(request.param)


@pytest.mark.parametrize(
    "spec", SPECS, ids=lambda spec: f"{spec.device}-{spec.max_lora_rank}{len(spec.lora_modules)}-{spec.tool_parser}"
)
def test_every_argument_is_known(source: str, spec: ServerSpec) -> None:
    assert len(flags(source)) > 100, "the declarations were found"
    unknown = [flag for flag in given(spec) if flag not in flags(source)]
    assert not unknown


def test_every_variable_is_known_and_the_sampler_is_on_unless_it_is_named(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    cards = (gpu(0), replace(gpu(0), compute_capability="12.0"))
    environments = [environment(spec, "vllm") for spec in SPECS] + [server_environment([card]) for card in cards]
    named = {name for env in environments for name in env if name.startswith("VLLM_")}
    assert SAMPLER in named
    unknown = {name for name in named if f'"{name}":' not in text(source, "envs.py")}
    assert not unknown
    assert re.search(rf"{SAMPLER}: bool = True", text(source, "envs.py")), "without compilers it would not start"


def test_the_kernel_that_is_left_out_on_blackwell_has_this_name(source: str) -> None:
    [disabled] = {server_environment([replace(gpu(0), compute_capability="12.0")])["VLLM_DISABLED_KERNELS"]}
    assert disabled in text(source, KERNELS)


def test_a_cache_of_given_size_is_taken_unseen_and_a_share_that_is_not_free_refused_all_the_same(source: str) -> None:
    """Why both are given: the share is looked at before the size of the cache is."""
    worker = text(source, "v1/worker/gpu_worker.py")
    assert worker.index("request_memory(\n") < worker.index("if kv_cache_memory_bytes := ")
    assert "kv_cache_memory_bytes" not in text(source, "v1/worker/utils.py").partition("def request_memory")[2][:3000]


def test_an_adapter_of_attention_leaves_experts_without_slots(source: str) -> None:
    """By the last part of a module's name, or one of what was joined in it: `qkv_proj`, and never `experts`."""
    tree = ast.parse(text(source, "lora/utils.py"))
    [function] = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "is_in_target_modules"]
    scope: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), "lora/utils.py", "exec"), scope)
    joined = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
    names = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.experts", "mlp.gate", "lm_head", "embed_tokens")
    taken = [name for name in names if scope["is_in_target_modules"](f"model.layers.0.{name}", list(ATTENTION), joined)]
    assert taken == ["self_attn.qkv_proj", "self_attn.o_proj"]


def test_what_is_checked_here_is_what_is_installed() -> None:
    assert re.fullmatch(r"vllm==\d+\.\d+\.\d+", VLLM_CUDA), "an exact pin: another release has other words"
    installed = [path.name for path in ROOT.glob(".venv-serve/lib/python3*/site-packages/vllm*-*.dist-info")]
    if installed:
        assert any(VLLM_VERSION in name for name in installed)
    if WHEEL:
        assert Path(WHEEL).name.startswith(VLLM_CUDA.replace("==", "-"))

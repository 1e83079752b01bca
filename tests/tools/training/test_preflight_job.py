"""preflight: each link that breaks is named with what to do about it, and what is tried is what will be trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.lab_model import TEMPLATE, write_rows
from tests.fixtures.planted_gpus import gpu, plant
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import seal
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.machine import Gpu, Machine
from tunesmith.tools.core.stage import GIB, Estimate, Facts, Plan
from tunesmith.tools.export import quantize_job
from tunesmith.tools.machine import device
from tunesmith.tools.machine.device import need_priced_device
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.memory_math import GPU_MARGIN_BYTES
from tunesmith.tools.pipeline import run_step
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import serving_memory
from tunesmith.tools.serving.spec import ServerSpec
from tunesmith.tools.training import preflight_job, train_job
from tunesmith.tools.training.choices import TrainingMemory
from tunesmith.tools.training.preflight import PreflightRequest, made_up_rows, plan
from tunesmith.tools.training.rows import tokenize_rows
from tunesmith.tools.training.train import TrainRequest, training_bytes
from tunesmith.tools.training.train_job import LoraSettings, ToTrain, Trained

STUB = str(FIXTURES / "stub_vllm.py")
pytestmark = pytest.mark.lab
MakeJob = Callable[..., Job[PreflightRequest]]


def row(question: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def pretended(metric: Callable[..., None], out: Path, moved: float = 1.0, behaviour_loss: float = 2.0) -> Trained:
    """What two steps leave behind, nothing trained."""
    import torch
    from safetensors.torch import save_file

    out.mkdir(parents=True)
    save_file({"q.lora_A": torch.ones(1), "q.lora_B": torch.full((2,), moved)}, out / "adapter_model.safetensors")
    for _ in range(2):
        metric("loss", 1.0, 1)
        metric("behaviour_loss", behaviour_loss, 1)
    return Trained(2, 1.0, 1.0, None, None, 7, 8, 1.0)


@pytest.fixture
def make_job(tmp_path: Path, tiny_llama: Path) -> Iterator[MakeJob]:
    """A preflight at work on a tiny model; its template and its rows may be planted."""
    store = Store(tmp_path / "home")

    def make(
        rows: list[dict[str, Any]] | None = None, template: str = TEMPLATE, **fields: Any
    ) -> Job[PreflightRequest]:
        run = store.new_run("test")
        base, dataset = tmp_path / "base", tmp_path / "dataset"
        shutil.copytree(tiny_llama, base)
        (base / "chat_template.jinja").write_text(template)
        dataset.mkdir()
        if rows is None:
            write_rows(dataset / "train.jsonl", 6)
        else:
            (dataset / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        config = json.loads((base / "config.json").read_text())
        metas = {"base": {"config": config, "parameters": 10**5}, "dataset": {"train_rows": 6, "tokens_per_row": 50}}
        inputs = {}
        for kind, folder in (("base", base), ("dataset", dataset)):
            made = store.propose(run, kind, plan_hash=kind)
            digest = str(seal(folder, kind=kind, step=made)["sha256"])
            inputs[kind] = store.add_artifact(Artifact("", run, made, kind, folder, digest, 10**6, (), metas[kind]))
        ws = Workspace(store, STUB, lambda event, **data: None)
        step = run_step.propose(ws, run_step.price(ws, StepRequest("preflight", fields, run)))
        record = store.step(step)
        folder = store.home / "runs" / run / step
        folder.mkdir(parents=True)
        request = PreflightRequest.model_validate(record.request)
        return Job(store, record, Plan.model_validate(record.plan), request, inputs, folder, STUB)

    yield make
    servers.stop_all(store.home)


def links(job: Job[PreflightRequest]) -> Any:
    return preflight_job._Links(job, job.inputs["base"].path, job.inputs["dataset"].path)


def test_few_rows_still_have_one_of_the_behaviour(make_job: MakeJob) -> None:
    """Of a dataset that begins with what holds the model to its base; `rows=2` took one of each of these alone."""
    beside = [row(f"{origin}?", "no") | {"origin": origin} for origin in ("near_miss", "rehearsal", "near_miss")]
    job = make_job(rows=[*beside, row("teach", "this") | {"origin": "writer"}])
    job = replace(job, request=job.request.model_copy(update={"rows": 2}))
    assert [one.origin for one in links(job).few] == ["near_miss", "writer"]


def test_the_longest_rows_of_each_origin_are_tried_in_parts_as_large_as_trainings(make_job: MakeJob) -> None:
    own = [row(f"teach {'this ' * n}", "yes") | {"origin": "writer"} for n in (1, 9, 4)]
    beside = [row(f"near {'that ' * n}", "no") | {"origin": "near_miss"} for n in (2, 7)]
    job = make_job(rows=[*own, *beside])
    job = replace(job, request=job.request.model_copy(update={"rows": 3}))
    tried = links(job)
    tried.rows_train()
    words = [str(one.prompt[0]["content"]).count("th") for one in tried.few]
    assert [one.origin for one in tried.few] == ["writer", "near_miss", "writer"] and words == [9, 7, 4], words
    assert tried._settings().usual_row_tokens == 50, "as the data set has them, not as these few do"


@pytest.mark.parametrize(
    "fields",
    [{"lora_dropout": 0.3}, {"cards": 2, "micro_batch": 4, "batch_size": 8}, {"micro_batch": 1, "lora_rank": 4}],
)
def test_the_settings_that_are_tried_are_those_of_the_training_that_is_priced(
    make_job: MakeJob, fields: dict[str, Any]
) -> None:
    job = make_job(**fields)
    tried, asked = links(job)._settings(), job.request
    shared = set(TrainingMemory.model_fields) & {one.name for one in dataclass_fields(LoraSettings)}
    assert {*fields} <= shared == {*TrainingMemory.model_fields} - {"on", "run"}, "no setting of memory is left out"
    same = {name: getattr(asked, name) for name in shared - {"batch_size"}}
    assert {name: getattr(tried, name) for name in same} == same
    assert {name: getattr(asked, name) for name in fields} == fields
    assert tried.batch_size % asked.cards == 0 and tried.rows_at_once <= tried.batch_size // asked.cards


def test_two_processes_take_the_two_steps_of_a_training_on_two_cards(make_job: MakeJob) -> None:
    job = make_job(cards=2, lora_dropout=0.1)
    assert job.plan.estimate.cards == 2
    tried = links(job)
    assert "lora_B moved by" in tried.two_steps() and tried._settings().cards == 2


def test_the_two_steps_are_taken_by_a_child_that_is_gone_when_the_server_starts(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On rows of every origin, in the environment of a training; a card's context, and the memory that torch keeps, go
    with it."""
    origins = ["rehearsal"] * 40 + ["generated"] * 20
    rows = [{"origin": origin, **row(f"question {n}", "a b c d")} for n, origin in enumerate(origins)]
    job = make_job(rows=rows)
    before = set(psutil.Process().children(recursive=True))
    found: dict[psutil.Process, dict[str, str]] = {}

    def log(job: Job[Any], text: str) -> None:
        found.update({one: one.environ() for one in psutil.Process().children() if one not in before})

    monkeypatch.setattr(Job, "log", log)
    told = links(job).two_steps()
    assert "4 generated" in told and "4 rehearsal" in told and "lora_B moved by" in told
    assert found and all(TORCH_ENV.items() <= environment.items() for environment in found.values())
    assert set(psutil.Process().children(recursive=True)) <= before


def test_made_up_rows_take_a_base_without_a_data_set_through_every_link(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the child of a training and in a server."""
    monkeypatch.setattr(preflight_job._Links, "_same_tokens", lambda self, server: len(self.few))  # the stand-in's are
    job = make_job(made_up=True)
    job = replace(job, inputs={"base": job.inputs["base"]})
    result = preflight_job.run(job)
    rows, steps, served = (check.evidence for check in result.checks)
    longest = job.request.max_seq_len_tokens
    assert longest == 512 and rows.startswith("8 rows, 4"), "as long as the tiny model takes, but for the prompt"
    assert (
        "4 made up" in steps
        and "4 rehearsal" in steps
        and "lora_B moved by" in steps
        and served.startswith("8 prompts")
    )
    assert [one.kind for one in job.store.artifacts(job.run)] == ["base", "dataset", "smoke"]


@pytest.mark.parametrize("longest", [64, 500, 512])
def test_a_made_up_row_is_as_long_as_training_takes_and_no_longer(make_job: MakeJob, longest: int) -> None:
    tried = links(make_job(made_up=True, max_seq_len_tokens=longest))
    tried.rows_train()
    lengths = [len(one.input_ids) for one in tokenize_rows(tried.tokenizer, tried.rows, longest)]
    assert longest - 4 < min(lengths) <= max(lengths) <= longest, "a number and its space are three tokens"


def test_what_a_card_held_is_recorded_beside_what_was_expected(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_lora(asked: ToTrain) -> Trained:
        return replace(pretended(asked.metric, asked.out_dir), peak_vram_bytes=3 * GIB)

    monkeypatch.setattr(preflight_job, "train_apart", train_lora)
    monkeypatch.setattr(preflight_job._Links, "adapter_served", lambda self: "")
    job = make_job(made_up=True)
    result = preflight_job.run(job)
    needed = training_bytes(job.request, job.inputs["base"], made_up_rows(job.request), on_cpu=False)
    assert (result.peak_vram_bytes, result.expected_vram_bytes) == (3 * GIB, needed)


def test_rows_too_short_for_an_answer_are_not_made_up(make_job: MakeJob) -> None:
    with pytest.raises(StepFailed, match=r"8 of 8 rows end before their stop token at max_seq_len_tokens=16.*raise it"):
        links(make_job(made_up=True, max_seq_len_tokens=16)).rows_train()


def test_what_breaks_in_the_child_is_said_in_its_own_words(make_job: MakeJob) -> None:
    job = make_job(rows=[row("a", "b"), LONG])
    with pytest.raises(StepFailed, match=r"1 of 2 rows end before their stop token at max_seq_len_tokens=512"):
        links(job).two_steps()


# --- links that break


LONG = row("How long?", "x" * 600)
UNENDED = TEMPLATE.replace("+ '<|im_end|>'", "+ ('<|im_end|>' if m['role'] == 'user' else '')")


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        (
            {"rows": [row("a", "b"), LONG]},
            r"1 of 2 rows end before their stop token at max_seq_len_tokens=512 \(the first: line 2\); "
            r"the longest has 6\d\d tokens: raise it, or drop those rows",
        ),
        (
            {"rows": [row("a", "b"), row("q" * 600, "never reached")]},
            r"1 of 2 rows end before their stop token at max_seq_len_tokens=512 \(the first: line 2\).*raise it",
        ),
        (
            {"rows": [row("a", "b"), row("say nothing", "")]},
            r"the answers of 1 of 2 rows hold nothing but their stop token \(the first: row 2\); drop those rows",
        ),
        (
            {"template": UNENDED},
            r"the chat template puts no stop token \(<\|im_end\|>\) after the answer of 6 of 6 rows.*"
            "as eos_token in the base's tokenizer_config.json",
        ),
    ],
    ids=["a long answer", "a prompt that leaves no room", "an empty answer", "a template without an end"],
)
def test_rows_that_cannot_be_trained_on_are_named_with_what_to_do(
    make_job: MakeJob, planted: Mapping[str, Any], told: str
) -> None:
    with pytest.raises(StepFailed, match=told):
        links(make_job(**planted)).rows_train()


def test_a_template_that_the_server_renders_otherwise_is_named(make_job: MakeJob) -> None:
    job = make_job()
    tried = links(job)
    tried.rows_train()
    spec = ServerSpec(model_dir=str(job.inputs["base"].path), served_name="base")
    server = servers.start(job.home, spec, vllm=STUB, log_path=job.dir / "log", owner="s1")
    told = r"prompt of row 1 differently from token 1 on \(\d\d and 1 tokens\).*leave one in the base's folder"
    with pytest.raises(StepFailed, match=told):  # the stand-in answers with one token a message
        tried._same_tokens(server)


def test_steps_that_come_to_no_number_break_their_link_with_the_reason(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(preflight_job, "train_apart", train_job.train_lora)  # a child says it in the same words
    job = make_job()
    weights = job.inputs["base"].path / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(StepFailed, match=r"step 1: the loss is nan: 1 tensors of the base .*layers\.1\.mlp\.up_proj"):
        links(job).two_steps()


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ({"behaviour_loss": 0.0}, "own rows cost nothing .* of 4 rehearsal, 4 generated"),
        ({"moved": 0.0}, "every lora_B at zero"),
    ],
)
def test_steps_that_teach_nothing_break_their_link(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, planted: dict[str, float], told: str
) -> None:
    origins = ["rehearsal"] * 40 + ["generated"] * 4  # in the file's order the behaviour comes after what is tried
    rows = [{"origin": origin, **row(f"question {n}", "answer")} for n, origin in enumerate(origins)]

    def train_lora(asked: ToTrain) -> Trained:
        return pretended(asked.metric, asked.out_dir, **planted)

    monkeypatch.setattr(preflight_job, "train_apart", train_lora)
    with pytest.raises(StepFailed, match=told):
        links(make_job(rows=rows)).two_steps()


def test_the_first_broken_link_fails_the_step_and_every_link_is_on_record(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(self: Any) -> str:
        raise StepFailed("no luck; try again")

    for name in ("two_steps", "adapter_served"):
        monkeypatch.setattr(preflight_job._Links, name, fault)
    job = make_job(rows=[row("a", "b"), LONG])
    with pytest.raises(StepFailed, match=r"3 of 3 links broke; rows train: 1 of 2 rows end before"):
        preflight_job.run(job)
    [checks] = job.store.artifacts(job.run, "preflight")
    assert [check["passed"] for check in json.loads(checks.path.read_text())] == [False] * 3


# --- what is tried is what will be trained


def test_a_row_as_long_as_training_allows_passes(make_job: MakeJob) -> None:
    assert "2 rows" in links(make_job(rows=[row("a", "b"), LONG], max_seq_len_tokens=2048)).rows_train()


@pytest.mark.parametrize("name", ["max_seq_len_tokens", "precision", "load_in_4bit"])
def test_preflight_takes_the_same_fields_as_training(name: str) -> None:
    one, other = (model.model_json_schema()["properties"][name] for model in (PreflightRequest, TrainRequest))
    assert one == other and one["description"]


def test_the_two_steps_are_those_of_the_training(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[LoraSettings] = []

    def train_lora(asked: ToTrain) -> Trained:
        used.append(asked.settings)
        return pretended(asked.metric, asked.out_dir)

    monkeypatch.setattr(preflight_job, "train_apart", train_lora)
    fields = {"lora_rank": 64, "max_seq_len_tokens": 2048, "precision": "fp32", "load_in_4bit": True}
    links(make_job(**fields)).two_steps()
    assert {name: getattr(used[0], name) for name in fields} == fields


def test_an_idle_server_leaves_before_the_two_steps(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job()
    spec = ServerSpec(model_dir="/nowhere", served_name="base", device="cuda")
    servers.start(job.home, spec, vllm=STUB, log_path=job.dir / "log", owner="s1")
    found: list[int] = []

    def train_lora(asked: ToTrain) -> Trained:
        found.append(len(servers.list_servers(job.home)))
        return pretended(asked.metric, asked.out_dir)

    monkeypatch.setattr(preflight_job, "train_apart", train_lora)
    links(job).two_steps()
    assert found == [0]


@pytest.mark.parametrize("stage", [train_job, quantize_job])
def test_a_step_that_was_priced_on_a_gpu_does_not_train_on_the_cpu_in_silence(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, stage: ModuleType
) -> None:
    import torch

    monkeypatch.setattr(device, "trains_on_cpu", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    job = make_job()
    plant(monkeypatch, gpu(0))
    need_priced_device(job)  # the plan priced no VRAM
    estimate = job.plan.estimate.model_copy(update={"peak_vram_bytes": 1})
    job.plan = job.plan.model_copy(update={"estimate": estimate})
    for work in (lambda: stage.run(job), links(job).two_steps):
        with pytest.raises(StepFailed, match=r"cannot use Card 0 with the driver 570\.1; see .*--device cpu"):
            work()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    need_priced_device(job)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "trains_on_cpu", lambda: True)  # the VRAM is the server's
    need_priced_device(job)


QWEN = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
BASE = Artifact(
    "a1",
    "r1",
    "s1",
    "base",
    Path(),
    "",
    3_100_000_000,
    (),
    {"config": {**QWEN, "vocab_size": 151936}, "parameters": 1_543_714_304},
)
DATASET = Artifact("a2", "r1", "s2", "dataset", Path(), "", 1, (), {"train_rows": 80, "tokens_per_row": 1500})


def planned(*gpus: Gpu, **fields: Any) -> Plan:
    machine = Machine("cpu", 2, 64 * GIB, 60 * GIB, 0, 50 * GIB, gpus)
    artifacts = {"base": BASE, "dataset": DATASET}
    return plan(PreflightRequest(**fields), Facts(Path(), machine, "r1", "/bin/true", artifacts=artifacts))


def price(*gpus: Gpu, **fields: Any) -> Estimate:
    return planned(*gpus, **fields).estimate


def trained(*gpus: Gpu, **fields: Any) -> int:
    """Bytes of training as a preflight that is asked for so has decided it."""
    request = PreflightRequest.model_validate(planned(*gpus, **fields).request)
    return training_bytes(request, BASE, DATASET, on_cpu=not gpus)


def test_the_training_half_is_priced_with_the_settings_of_the_training() -> None:
    long = price(max_seq_len_tokens=2048).peak_ram_bytes
    assert long == trained(max_seq_len_tokens=2048) > price().peak_ram_bytes
    assert price(max_seq_len_tokens=2048, load_in_4bit=True).peak_ram_bytes < long
    whole = price(max_seq_len_tokens=2048, precision="fp32", activation_checkpointing="off").peak_ram_bytes
    assert whole > long, "all of it kept"


def test_on_a_gpu_both_halves_are_priced_in_its_memory() -> None:
    card = Gpu(0, "card", 80 * GIB, 79 * GIB, "9.0", "")
    small, long = price(card, rows=2, max_seq_len_tokens=16), price(card, max_seq_len_tokens=2048)
    assert small.peak_vram_bytes == serving_memory(BASE).vram_bytes + GPU_MARGIN_BYTES, "what trained has ended"
    high = price(card, rows=2, max_seq_len_tokens=16, lora_rank=64)
    assert high.peak_vram_bytes == serving_memory(BASE, rank=64).vram_bytes + GPU_MARGIN_BYTES > small.peak_vram_bytes
    assert long.peak_vram_bytes == trained(card, max_seq_len_tokens=2048)
    assert not long.peak_ram_bytes


# --- a written plan


def test_a_plan_tries_the_settings_of_the_training_it_protects() -> None:
    def tried(preflight: dict[str, Any], *train: dict[str, Any]) -> dict[str, Any]:
        steps = [StepSpec(stage="preflight", fields=preflight), *(StepSpec(stage="train", fields=f) for f in train)]
        return PipelinePlan(name="p", steps=tuple(steps)).steps_to_run[0].fields

    long = {"max_seq_len_tokens": 2048, "load_in_4bit": True, "epochs": 2}
    assert tried({"rows": 4}, long) == {"rows": 4, "max_seq_len_tokens": 2048, "load_in_4bit": True}
    assert tried({"max_seq_len_tokens": 64}, long) == {"max_seq_len_tokens": 64, "load_in_4bit": True}
    assert tried({}, {"precision": "fp32"}, long) == {"precision": "fp32"}
    assert tried({"rows": 4}) == {"rows": 4}


def test_a_row_that_alone_is_longer_than_a_part_is_what_the_part_is_priced_at() -> None:
    skewed = replace(DATASET, meta={"train_rows": 80, "tokens_per_row": 100, "longest_row_tokens": 4000})
    even = replace(DATASET, meta={"train_rows": 80, "tokens_per_row": 100, "longest_row_tokens": 150})

    def bytes_of(rows: int, dataset: Artifact) -> int:
        tried = PreflightRequest(max_seq_len_tokens=8192, precision="bf16", micro_batch=rows)
        return training_bytes(tried, BASE, dataset, on_cpu=False)

    assert bytes_of(1, skewed) == bytes_of(20, skewed) > bytes_of(1, even)
    assert bytes_of(40, skewed) == bytes_of(40, even)

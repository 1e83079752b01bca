"""The proof of a merge: each weight and the logits, set against what the adapter does, at every size of a model."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_adapter, write_rows, write_tiny_model
from tests.fixtures.steps import say_yes
from tests.fixtures.wrong_merges import OF_EXPERTS, WRONG, merged_wrongly
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import seal
from tunesmith.memory.records import Artifact, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, Facts
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.data.rows import write_rows as write_row_file
from tunesmith.tools.export import logit_proof_job, merge, merge_job
from tunesmith.tools.export.logit_proof_job import behaviour_rows, compare_logits
from tunesmith.tools.export.offloaded_model import offloaded_model
from tunesmith.tools.pipeline import worker
from tunesmith.tools.pipeline.run_step import decide, price, propose
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

pytestmark = pytest.mark.lab
CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 99,
}
BASE = Artifact("a1", "r1", "s1", "base", Path("b"), "0" * 64, 15 * GIB, (), {"config": CONFIG})
EXPERTS: dict[str, Any] = {
    "target_modules": ["q_proj", "v_proj"],
    "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
}
MACHINE = Machine("cpu", 2, 32 * GIB, 4 * GIB, 0, 64 * GIB)
ADAPTER = Artifact("a2", "r1", "s2", "adapter", Path("a"), "1" * 64, 1, (), {})


def quiet(*_: Any) -> None:
    """No progress."""


def gentle(base: Path, out: Path) -> Path:
    """An adapter that moves logits and hardly any choice."""
    return write_adapter(base, out, lora_alpha=0.1, target_modules=["q_proj", "v_proj"])


def test_a_merge_that_never_happened_is_found_though_it_answers_alike(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    adapter, rows = gentle(tiny_llama, tmp_path / "adapter"), read_rows(rows_file)[:3]
    for some in (rows, []):
        with pytest.raises(StepFailed, match=r"_proj\.weight is off .* by 100% of what the adapter changes"):
            compare_logits(tiny_llama, adapter, tiny_llama, quiet, rows=some)


def test_a_merge_is_near_the_adapter_by_far_less_than_the_adapter_is_from_the_base(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_llama, tmp_path / "adapter")
    merge_job.merge_adapter(tiny_llama, adapter, tmp_path / "merged", quiet)
    proof = compare_logits(tiny_llama, adapter, tmp_path / "merged", quiet, rows=read_rows(rows_file)[:3])
    assert proof["behaviour_rows"] == 3
    assert 0 < proof["update_error"] < 0.1 and 0.95 < proof["update_share"] < 1.05
    assert proof["argmax_agreement"] > 0.9


def computed_as_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the type of its weights, through one layer."""
    monkeypatch.setattr(logit_proof_job, "FP32_BELOW_PARAMETERS", 1)
    monkeypatch.setattr(logit_proof_job, "_MOST_LAYERS", 1)


@pytest.fixture(scope="module")
def adapted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter of it, of experts too where it has some."""
    folder = tmp_path_factory.mktemp(request.param)
    base = write_tiny_model(folder / "base", request.param)
    return base, write_adapter(base, folder / "adapter", **(EXPERTS if request.param == "qwen3_moe" else {}))


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(
    ("adapted", "how"),
    [*(("llama", how) for how in WRONG), *(("qwen3_moe", how) for how in {**WRONG, **OF_EXPERTS})],
    indirect=["adapted"],
)
def test_a_merge_at_another_scale_or_with_a_module_wrong_fails_its_proof_by_a_weights_name(
    how: str, large: bool, adapted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = adapted
    if large:
        computed_as_a_large_one(monkeypatch)
    name = r"\.experts\.\w+_proj" if how in OF_EXPERTS else r"_proj"
    merged = merged_wrongly(base, adapter, tmp_path / "merged", {**WRONG, **OF_EXPERTS}[how])
    off = {"half": "50%", "more": "50%", "none": "100%", "one expert left out": "100%"}.get(how, r"1\d\d%")
    with pytest.raises(StepFailed, match=rf"the merged [\w.]+{name}[\w.]* is off from base \+ adapter by {off}"):
        compare_logits(base, adapter, merged, quiet)


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("adapted", ["llama", "qwen3_moe"], indirect=True)
def test_a_right_merge_passes_its_proof_however_little_the_adapter_does(
    large: bool, adapted: tuple[Path, Path], rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = adapted
    if large:
        computed_as_a_large_one(monkeypatch)
    for alpha in (8, 0.2):
        config = json.loads((adapter / "adapter_config.json").read_text())
        fainter = tmp_path / f"adapter-{alpha}"
        shutil.copytree(adapter, fainter)
        (fainter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": alpha}))
        merge_job.merge_adapter(base, fainter, tmp_path / f"merged-{alpha}", quiet)
        proof = compare_logits(base, fainter, tmp_path / f"merged-{alpha}", quiet, rows=read_rows(rows_file)[:3])
        assert proof["weight_error"] < (0.1 if large else 0.01), "rounded as the merge rounds it"
        assert large or proof["update_share"] > 0.95


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_weights_that_bf16_would_round_are_compared_as_they_are_stored(
    stored: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    computed_as_a_large_one(monkeypatch)
    base = tmp_path / "base"
    shutil.copytree(tiny_llama, base)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.001)
    model.to(getattr(torch, stored)).save_pretrained(base)
    adapter = gentle(base, tmp_path / "adapter")
    merge_job.merge_adapter(base, adapter, tmp_path / "merged", quiet)
    proof = compare_logits(base, adapter, tmp_path / "merged", quiet)
    assert proof["layers_compared"] == 1 and proof["weight_error"] < 1e-2 and proof["update_error"] < 0.1


def test_an_update_that_rounding_takes_away_is_refused_where_it_does_and_only_there(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    """Its weights are what they have to be."""
    import torch
    from transformers import AutoModelForCausalLM

    rows = read_rows(rows_file)[:3]
    wide = tmp_path / "wide"
    shutil.copytree(tiny_llama, wide)
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).save_pretrained(wide)
    for alpha in (0.003, 0.001):  # of the first a share is left, beside more that is rounding
        adapter = write_adapter(tiny_llama, tmp_path / f"adapter-{alpha}", lora_alpha=alpha)
        merge_job.merge_adapter(tiny_llama, adapter, tmp_path / f"merged-{alpha}", quiet)
        for some in (rows, []):
            with pytest.raises(StepFailed, match=r"does \d\d% of what the adapter does to the logits"):
                compare_logits(tiny_llama, adapter, tmp_path / f"merged-{alpha}", quiet, rows=some)
        merge_job.merge_adapter(wide, adapter, tmp_path / f"wide-{alpha}", quiet)
        proof = compare_logits(wide, adapter, tmp_path / f"wide-{alpha}", quiet, rows=rows)
        assert proof["update_error"] < 0.01 and proof["weight_error"] < 0.01


def test_half_the_scale_and_no_merge_at_all_are_seen_in_the_logits_too(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logit_proof_job, "_MOST_WEIGHT_ERROR", math.inf)
    adapter, rows = gentle(tiny_llama, tmp_path / "adapter"), read_rows(rows_file)[:3]
    merged = merged_wrongly(tiny_llama, adapter, tmp_path / "merged", WRONG["half"])
    for some in (rows, []):
        with pytest.raises(
            StepFailed, match=r"does (49|5\d)% of what the adapter does .* \(at least 60% .* by [45]\d%"
        ):
            compare_logits(tiny_llama, adapter, merged, quiet, rows=some)
    computed_as_a_large_one(monkeypatch)
    with pytest.raises(StepFailed, match=r"does 0% of what the adapter does .* \(at least 25% "):
        compare_logits(tiny_llama, adapter, tiny_llama, quiet, rows=rows)


def test_a_scale_that_is_not_pefts_is_refused_by_the_weights_name(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(tiny_llama, tmp_path / "adapter")
    merge_job.merge_adapter(tiny_llama, adapter, tmp_path / "merged", quiet)
    right = logit_proof_job.lora_scale

    def a_little_more(config: Any, module: str, rank: int) -> float:
        return right(config, module, rank) * (1.1 if module.endswith("1.mlp.up_proj") else 1)

    monkeypatch.setattr(logit_proof_job, "lora_scale", a_little_more)
    with pytest.raises(
        StepFailed, match=r"peft adds 2 times B·A to model\.layers\.1\.mlp\.up_proj\.weight, the merge 2\.2"
    ):
        compare_logits(tiny_llama, adapter, tmp_path / "merged", quiet)


def test_rows_are_of_the_behaviour_and_those_held_out_where_there_are_any(tmp_path: Path) -> None:
    def rows(kind: str, count: int) -> list[TrainingRow]:
        said = [{"role": "user", "content": "q"}], [{"role": "assistant", "content": "a"}]
        return [TrainingRow(f"{kind}{n}", kind, *said) for n in range(count)]

    write_row_file(tmp_path / "train.jsonl", [*rows("generated", 9), *rows("rehearsal", 9)])
    drawn = behaviour_rows(tmp_path)
    assert drawn == behaviour_rows(tmp_path) and {row.origin for row in drawn} == {"generated"}
    held = [replace(row, row_id=f"held-{row.row_id}") for row in rows("generated", 2)]
    write_row_file(tmp_path / "valid.jsonl", [*held, *rows("near_miss", 5)])
    assert {row.row_id for row in behaviour_rows(tmp_path)} == {"held-generated0", "held-generated1"}


@pytest.mark.parametrize(("kind", "changes"), [("qwen2", {}), ("mixtral", {"num_local_experts": 4})])
def test_an_offloaded_model_computes_the_same_and_holds_one_module(
    kind: str, changes: dict[str, int], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = write_tiny_model(tmp_path / "m", kind, shard_size="60KB", **changes)
    ids = torch.arange(5, 25)[None]
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with offloaded_model(folder, torch.float32, tmp_path) as model:
        attention = model.get_decoder().layers[0].self_attn
        there: list[set[str]] = []
        attention.q_proj.register_forward_hook(
            lambda *_: there.append({name for name, one in model.named_parameters() if not one.is_meta})
        )
        with torch.inference_mode():
            assert torch.allclose(model(ids).logits, whole(ids).logits, atol=1e-5)
        assert {name.rpartition(".")[0] for name in there.pop()} <= {"model.layers.0.self_attn.q_proj"}
        assert all(one.is_meta for one in model.parameters())
    assert [*tmp_path.iterdir()] == [folder], "what was converted for it is gone"


def test_a_checkpoint_without_one_of_its_weights_is_refused_by_its_name(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_tiny_model(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    missing = pytest.raises(BadInput, match=r"holds no model\.layers\.1\.mlp\.up_proj\.weight")
    with missing, offloaded_model(folder, torch.float32, tmp_path):
        pass


def test_a_merge_is_priced_by_its_largest_layer_and_not_by_its_depth(tmp_path: Path) -> None:
    def priced(layers: int) -> int:
        base = replace(BASE, bytes=layers * GIB, meta={"config": CONFIG | {"num_hidden_layers": layers}})
        facts = Facts(Path(), MACHINE, "r1", artifacts={"base": base, "adapter": ADAPTER})
        plan = merge.plan(merge.MergeRequest(), facts, merge.MergeContext())
        assert plan.refusals == () and any("layer by layer" in step for step in plan.steps)
        return plan.estimate.peak_ram_bytes

    assert priced(2) == priced(20) < 2 * GIB


@pytest.mark.parametrize("known", [True, False])
def test_a_merge_reports_its_audit_with_and_without_logits(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown_layout(*_: Any, **__: Any) -> None:
        raise BadInput("x has no place in a Y")

    if not known:
        monkeypatch.setattr(merge_job, "compare_logits", unknown_layout)
    store = Store(tmp_path / "home")
    ws = Workspace(store, None, lambda event, **data: None)
    run, base = store.new_run("test"), write_tiny_model(tmp_path / "base")
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    write_rows(dataset / "train.jsonl", 6)
    made: list[str] = []
    for stage, kind, folder in (
        ("base", "base", base), ("critique", "dataset", dataset),
        ("train", "adapter", write_adapter(base, tmp_path / "adapter")),
    ):  # fmt: skip
        step = store.propose(run, stage, plan_hash=kind)
        manifest = seal(folder, kind=kind, step=step)
        sealed = Artifact(
            "", run, step, kind, folder, manifest["sha256"], manifest["bytes"], tuple(made), {"config": CONFIG}
        )
        made.append(store.add_artifact(sealed).id)
    plan = price(ws, StepRequest("merge", {}, run))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    store.claim(step, needs_approval=True, pid=1, pid_started=0.0, boot_id="")
    result = merge_job.run(worker.open_job(store, step, None))
    assert result.audit is not None and result.audit.updated == 14 and result.audit.faults == ()
    assert ("x has no place in a Y" in result.logits_left_out) == (not known)
    assert (result.argmax_agreement is None) == (not known)
    assert result.behaviour_rows == (3 if known else 0)


def test_a_large_model_is_compared_through_a_few_layers_and_an_unmerged_one_is_found_there_too(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed_as_a_large_one(monkeypatch)
    adapter, rows = write_adapter(tiny_llama, tmp_path / "adapter"), read_rows(rows_file)[:3]
    merge_job.merge_adapter(tiny_llama, adapter, tmp_path / "merged", quiet)
    proof = compare_logits(tiny_llama, adapter, tmp_path / "merged", quiet, rows=rows)
    assert proof["layers_compared"] == 1 and 0 < proof["update_error"] < 0.3
    with pytest.raises(StepFailed, match=r"by 100% of what the adapter changes"):
        compare_logits(tiny_llama, adapter, tiny_llama, quiet, rows=rows)

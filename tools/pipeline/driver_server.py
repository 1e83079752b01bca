"""The vLLM server of a driver that tunesmith serves itself: how it is served, and when there is room to start it.

The driver is a guest on the accelerator (see `driver_eviction`): it gives its memory back before a step that would not
fit beside it, and comes back with the next words once there is room.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import read_manifest
from tunesmith.memory.records import RUNNING
from tunesmith.memory.store import Store
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.chat_template import thoughts_of
from tunesmith.tools.models.known_drivers import SEQUENCES, KnownDriver
from tunesmith.tools.models.memory_math import (
    GPU_MARGIN_BYTES,
    SERVER_BYTES,
    USUAL_KV_BYTES,
    ServerMemory,
    cpu_server_bytes,
    kv_bytes_per_token,
    server_memory,
)
from tunesmith.tools.pipeline.driver_eviction import blocked_by
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import placed
from tunesmith.tools.serving.eviction import make_room
from tunesmith.tools.serving.spec import ServerSpec


def spec_of(vllm: str | None, folder: Path, listed: KnownDriver | None, context: int, parser: str) -> ServerSpec:
    """How a model folder is served as the driver: one that is `listed` as its measured memory says."""
    manifest = read_manifest(folder)
    place = placed(vllm, listed.served if listed else needed_memory(folder, context))
    return ServerSpec(
        model_dir=str(folder),
        served_name=folder.name,
        weights_sha256=manifest["sha256"] if manifest else "",
        max_model_len_tokens=context,
        max_num_seqs=SEQUENCES,
        tool_parser=parser,
        # Where a choice is held to JSON no thought can be written before it, so the prompt ends an empty one.
        without_thoughts=thoughts_of(folder) == "switch",
        **place._asdict(),
    )


def wait_for_room(home: Path, spec: ServerSpec) -> None:
    """Raises BadInput while a step runs that needs the room: the driver is the guest."""
    machine = measure_machine(home)
    ram_bytes, vram_bytes = SERVER_BYTES, 0
    if spec.device == "cuda":
        vram_bytes = spec.gpu_bytes + GPU_MARGIN_BYTES
    else:
        ram_bytes = cpu_server_bytes(_weight_bytes(Path(spec.model_dir)), spec.kv_cache_gib)
    with contextlib.closing(Store(home)) as store:
        step = blocked_by(machine, store, ram_bytes=ram_bytes, vram_bytes=vram_bytes)
        if spec.device == "cuda" and not store.steps(status=RUNNING):
            make_room(home, ram_bytes=0, log=lambda line: None)  # one that waits may fill the GPU
    if step:
        raise BadInput(
            f"the driver waits until {step.stage} ({step.id}) has ended: it needs the memory; "
            "slash commands work meanwhile"
        )


def running(home: Path, spec: ServerSpec) -> servers.Server | None:
    """The server of this description that is up; drivers of other settings end."""
    for server in servers.list_servers(home):
        if server.spec == spec and server.loader_key and servers.healthy(server):
            return server
    servers.stop_all(home, role=servers.DRIVER)  # of other settings
    return None


def needed_memory(folder: Path, context_tokens: int) -> ServerMemory:
    """Peak memory of a server of this model for conversations: on a GPU its cache holds a few whole contexts."""
    try:
        per_token = kv_bytes_per_token(json.loads((folder / "config.json").read_text()))
    except ValueError:  # a config that is no JSON: vLLM will say so
        per_token = USUAL_KV_BYTES
    return server_memory(
        _weight_bytes(folder), kv_bytes_per_token=per_token, context_tokens=context_tokens, sequences=SEQUENCES
    )


def try_template(folder: Path) -> None:
    """Try a stranger's chat template out before it is served. Raises BadInput for one that takes too much."""
    from tunesmith.tools.models.template_trial import probe_template  # Jinja, which no prompt waits for

    probe_template(folder)


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))

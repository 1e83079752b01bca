"""Where the driver answers: an endpoint that exists already, or a vLLM server that tunesmith starts for it.

The driver is a guest on the accelerator (see tools/guest.py): it gives its memory back before a step that would not
fit beside it, and comes back with the next words once there is room. Its server has a lease, so one that nobody talks
to ends by itself.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_ai.models.test import TestModel

from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import read_manifest
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import chosen_gpu
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.base import bundled_model, source_of
from tunesmith.tools.models.folder import check_model_folder
from tunesmith.tools.models.memory_math import (
    SERVER_BYTES,
    USUAL_KV_BYTES,
    cpu_server_bytes,
    gpu_server_bytes,
    kv_bytes_per_token,
)
from tunesmith.tools.pipeline.driver_eviction import blocked_by
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import placed
from tunesmith.tools.serving.listeners import port_is_free
from tunesmith.tools.serving.spec import LOOPBACK, ServerSpec

if TYPE_CHECKING:
    from pydantic_ai.models import Model

_RENEW_S = 30.0
_SEQUENCES = 8
"""Conversations at once: the turn's own, and what is asked beside it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint and the model to ask it for."""

    url: str
    """With its `/v1`."""
    model: str
    key: str = ""
    timeout_s: float = 180.0


class NotYetStarted(TestModel):
    """Stands for the driver in a turn until a request really needs it; it never answers anything."""


class DriverMissing(BadInput):
    """The driver's model is not here yet; `tunesmith base` fetches it."""


class Driver:
    """The driver of one home, started when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: servers.Server | None = None
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def chosen(self) -> DriverSettings:
        """What the settings say about the driver."""
        return self._settings.driver

    def folder(self) -> Path:
        """The model folder that would be served. Raises DriverMissing, or BadInput for one that cannot be trusted."""
        model = self.chosen.model
        if source_of(model) == "bundled":
            folder = self._settings.home / "models" / bundled_model(model).name
            if read_manifest(folder) is None:
                raise DriverMissing(f"the driver {bundled_model(model).title} is not here yet")
            return folder
        if source_of(model) == "hub":
            raise BadInput(f"the driver {model} must be here already; name its folder in settings.toml, [driver] model")
        folder = (self._settings.home / Path(model).expanduser()).resolve()
        check_model_folder(folder)
        return folder

    def ensure(self, on_wait: Callable[[float], None] = lambda seconds: None) -> Endpoint:
        """The driver's endpoint, healthy; a server is adopted or started where the driver has none of its own.

        Raises DriverMissing, BadInput without vLLM or while a running step needs the room, StepFailed where the server
        does not start.
        """
        chosen = self.chosen
        if chosen.endpoint:
            return Endpoint(chosen.endpoint.rstrip("/"), chosen.name or "default", chosen.key, chosen.timeout_s)
        folder = self.folder()
        if self._settings.vllm is None:
            raise BadInput(
                "the driver needs vLLM and none was found; run `tunesmith setup`, or name an endpoint of your own"
            )
        spec = self._spec(folder)
        server = self._running(spec)
        if server is None:
            self._wait_for_room(spec)
            _try_template(folder)
            server = servers.start(
                self._settings.home,
                spec,
                vllm=self._settings.vllm,
                log_path=self._settings.home / "logs" / "driver.log",
                owner="driver",
                role=servers.DRIVER,
                on_wait=on_wait,
            )
        self._keep(server)
        return Endpoint(f"{server.url}/v1", server.model, server.key, self.chosen.timeout_s)

    def _wait_for_room(self, spec: ServerSpec) -> None:
        """Raises BadInput while a step runs that needs the room: the driver is the guest."""
        machine = measure_machine(self._settings.home)
        ram_bytes, vram_bytes = SERVER_BYTES, 0
        if spec.device == "cuda" and (card := chosen_gpu(machine.gpus)):
            vram_bytes = int(spec.gpu_share * card.total_bytes)
        else:
            ram_bytes = cpu_server_bytes(_weight_bytes(Path(spec.model_dir)), spec.kv_cache_gib)
        with contextlib.closing(Store(self._settings.home)) as store:
            step = blocked_by(machine, store, ram_bytes=ram_bytes, vram_bytes=vram_bytes)
        if step:
            raise BadInput(
                f"the driver waits until {step.stage} ({step.id}) has ended: it needs the memory; "
                "slash commands work meanwhile"
            )

    def served(self) -> bool:
        """Whether a server of ours answers as the driver now."""
        return any(servers.healthy(server) for server in servers.list_servers(self._settings.home, role=servers.DRIVER))

    def _spec(self, folder: Path) -> ServerSpec:
        manifest = read_manifest(folder)
        place = placed(self._settings.vllm, needed_bytes(folder, self.chosen.context_tokens))
        return ServerSpec(
            model_dir=str(folder),
            served_name=folder.name,
            weights_sha256=manifest["sha256"] if manifest else "",
            max_model_len_tokens=self.chosen.context_tokens,
            max_num_seqs=_SEQUENCES,
            gpu_share=place.gpu_share,
            tool_parser=self.chosen.tool_parser,
            device=place.device,
        )

    def _running(self, spec: ServerSpec) -> servers.Server | None:
        for server in servers.list_servers(self._settings.home):
            if server.spec == spec and server.loader_key and servers.healthy(server):
                return server
        servers.stop_all(self._settings.home, role=servers.DRIVER)  # of other settings
        return None

    def _keep(self, server: servers.Server) -> None:
        self._server = server
        servers.renew(server)
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._renew, daemon=True)
            self._keeper.start()

    def _renew(self) -> None:
        while not self._closed.wait(_RENEW_S):
            if self._server and self._server.process.alive():
                servers.renew(self._server)

    def close(self) -> None:
        """Stop renewing the lease; the server ends by itself if nobody else talks to it."""
        self._closed.set()


def needed_bytes(folder: Path, context_tokens: int) -> int:
    """Peak memory of a server of this model for conversations on a GPU: its cache holds a few whole contexts."""
    try:
        per_token = kv_bytes_per_token(json.loads((folder / "config.json").read_text()))
    except ValueError:
        per_token = USUAL_KV_BYTES
    return gpu_server_bytes(
        _weight_bytes(folder), kv_bytes_per_token=per_token, context_tokens=context_tokens, sequences=_SEQUENCES
    )


def _try_template(folder: Path) -> None:
    from tunesmith.tools.models.template_trial import probe_template  # Jinja, which no prompt waits for

    probe_template(folder)


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def is_gone(model: Model) -> bool:
    """Whether the driver was a server of this machine and nothing listens at its port any more."""
    url = getattr(getattr(model, "client", None), "base_url", None)
    return url is not None and url.host == LOOPBACK and url.port is not None and port_is_free(url.port)


def model_of(endpoint: Endpoint) -> Model:
    """The driver as pydantic-ai speaks to it."""
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.vllm import VLLMProvider

    client = AsyncOpenAI(
        base_url=endpoint.url, api_key=endpoint.key or "none", timeout=endpoint.timeout_s, max_retries=1
    )
    return OpenAIChatModel(endpoint.model, provider=VLLMProvider(openai_client=client))


def driver_name(chosen: DriverSettings) -> str:
    """The driver as the user knows it."""
    if chosen.endpoint:
        return chosen.name or chosen.endpoint
    if source_of(chosen.model) == "bundled":
        return bundled_model(chosen.model).title
    return chosen.model.rstrip("/").rpartition("/")[2]

"""Where the driver answers: an endpoint that exists already, or a vLLM server that tunesmith starts for it.

The driver is a guest on the accelerator: it gives its memory back before a step that would not fit beside it, and
comes back with the next words. Its server has a lease, so one that nobody talks to ends by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.agent.settings import DriverSettings, Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import read_manifest
from tunesmith.tools import serving
from tunesmith.tools.base import bundled_model, source_of
from tunesmith.tools.facts import measure_gpus, measure_machine
from tunesmith.tools.model_folder import check_model_folder
from tunesmith.tools.serving_spec import ServerSpec

if TYPE_CHECKING:
    from pydantic_ai.models import Model

_RENEW_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint and the model to ask it for."""

    url: str
    """With its `/v1`."""
    model: str
    key: str = ""
    timeout_s: float = 180.0


class DriverMissing(BadInput):
    """The driver's model is not here yet; `tunesmith base` fetches it."""


class Driver:
    """The driver of one home, started when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: serving.Server | None = None
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

        Raises DriverMissing, BadInput without vLLM, StepFailed where the server does not start.
        """
        chosen = self.chosen
        if chosen.endpoint:
            return Endpoint(chosen.endpoint.rstrip("/"), chosen.name or "default", chosen.key, chosen.timeout_s)
        folder = self.folder()
        if self._settings.vllm is None:
            raise BadInput(
                "the driver needs vLLM and none was found; run `make setup`, or name an endpoint of your own"
            )
        spec = self._spec(folder)
        server = self._running(spec) or serving.start(
            self._settings.home,
            spec,
            vllm=self._settings.vllm,
            log_path=self._settings.home / "logs" / "driver.log",
            owner="driver",
            role=serving.DRIVER,
            on_wait=on_wait,
        )
        self._keep(server)
        return Endpoint(f"{server.url}/v1", server.model, server.key, self.chosen.timeout_s)

    def served(self) -> bool:
        """Whether a server of ours answers as the driver now."""
        return any(serving.healthy(server) for server in serving.list_servers(self._settings.home, role=serving.DRIVER))

    def _spec(self, folder: Path) -> ServerSpec:
        return ServerSpec(
            model_dir=str(folder),
            served_name=folder.name,
            weights_sha256=str((read_manifest(folder) or {}).get("sha256", "")),
            max_model_len_tokens=self.chosen.context_tokens,
            max_num_seqs=8,
            tool_parser=self.chosen.tool_parser,
            device="cuda" if measure_gpus() else "cpu",
        )

    def _running(self, spec: ServerSpec) -> serving.Server | None:
        for server in serving.list_servers(self._settings.home):
            if server.spec == spec and serving.healthy(server):
                return server
        serving.stop_all(self._settings.home, role=serving.DRIVER)  # of other settings
        return None

    def _keep(self, server: serving.Server) -> None:
        self._server = server
        serving.renew(server)
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._renew, daemon=True)
            self._keeper.start()

    def _renew(self) -> None:
        while not self._closed.wait(_RENEW_S):
            if self._server:
                serving.renew(self._server)

    def give_way(self, ram_bytes: int, vram_bytes: int) -> bool:
        """Stop the driver's server if a step that needs this much at its peak would not fit beside it."""
        server = self._server
        if server is None or not server.process.alive() or server.role != serving.DRIVER:
            return False
        machine = measure_machine(self._settings.home)
        fits_ram = ram_bytes <= machine.ram_free_bytes
        fits_vram = not machine.gpus or vram_bytes <= machine.vram_free_bytes
        if fits_ram and fits_vram:
            return False
        serving.stop(server)
        self._server = None
        return True

    def close(self) -> None:
        """Stop renewing the lease; the server ends by itself if nobody else talks to it."""
        self._closed.set()


def model_of(endpoint: Endpoint) -> Model:
    """The driver as pydantic-ai speaks to it."""
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.vllm import VLLMProvider

    client = AsyncOpenAI(
        base_url=endpoint.url, api_key=endpoint.key or "none", timeout=endpoint.timeout_s, max_retries=1
    )
    return OpenAIChatModel(endpoint.model, provider=VLLMProvider(openai_client=client))

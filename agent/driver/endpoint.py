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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model

from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import read_manifest
from tunesmith.memory.records import RUNNING
from tunesmith.memory.store import Store
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.base import source_of
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.chat_template import thoughts_of
from tunesmith.tools.models.folder import check_model_folder
from tunesmith.tools.models.known_drivers import CONTEXT_TOKENS, SEQUENCES, driver_of
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
from tunesmith.tools.serving.addresses import Address, read_address, refuse_key_in_clear
from tunesmith.tools.serving.budget import placed
from tunesmith.tools.serving.client import ChatClient
from tunesmith.tools.serving.eviction import make_room
from tunesmith.tools.serving.listeners import Listener, SendRefused
from tunesmith.tools.serving.spec import ServerSpec
from tunesmith.tools.serving.traffic import ContactLog

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_RENEW_S = 30.0
"""A tenth of a lease: a machine that is fully used may skip some."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint and the model to ask it for."""

    url: str
    """With its `/v1`."""
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 180.0
    listener: Listener | None = None
    """The server of ours that is there; None where it is the user's own endpoint."""
    allow_plain_http: bool = False
    home: Path | None = None
    """Where contacts with another machine are recorded."""
    section: str = "driver"
    """Of settings.toml, that names it."""

    @property
    def address(self) -> Address:
        """Read strictly. Raises BadInput for one that cannot be used, or not with a key."""
        address = read_address(self.url, f"the {self.section}'s endpoint")
        refuse_key_in_clear(address, self.key, allowed=self.allow_plain_http, section=self.section)
        return address

    @property
    def recorder(self) -> ContactLog | None:
        """Who records what leaves this machine for the driver."""
        return ContactLog(self.home, self.address, self.section) if self.home else None

    def chat_client(self) -> ChatClient:
        """Connections for many requests at once."""
        return ChatClient(
            self.url.removesuffix("/v1"),
            self.key,
            listener=self.listener,
            allow_plain_http=self.allow_plain_http,
            section=self.section,
            recorder=self.recorder,
        )

    def client(self, *, timeout_s: float, retries: int = 0) -> AsyncOpenAI:
        """The openai library's client; use it as an async context manager."""
        from openai import AsyncOpenAI

        from tunesmith.tools.serving.driver_http import driver_client

        class Client(AsyncOpenAI):
            listener = self.listener

        has_key = bool(self.key)
        http = driver_client(
            self.address, listener=self.listener, has_key=has_key, recorder=self.recorder, timeout_s=timeout_s
        )
        key = self.key or "none"
        return Client(base_url=self.url, api_key=key, timeout=timeout_s, max_retries=retries, http_client=http)


class NotYetStarted(Model):
    """Stands for the driver in a turn until a request really needs it; it never answers anything."""

    model_name, system = "not yet started", "tunesmith"

    async def request(self, *args: object, **kwargs: object) -> ModelResponse:
        """Raises AssertionError: whoever makes a request has started the driver before."""
        raise AssertionError("the driver was not started")


class DriverMissing(BadInput):
    """The driver's model is not here yet; `tunesmith base` fetches it."""


class Driver:
    """The driver of one home, started when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: servers.Server | None = None
        self._started: servers.Server | None = None
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def chosen(self) -> DriverSettings:
        """What the settings say about the driver."""
        return self._settings.driver

    def folder(self) -> Path:
        """The model folder that would be served. Raises DriverMissing, or BadInput for one that cannot be trusted."""
        model = self.chosen.model
        if "model" not in self.chosen.model_fields_set and (fetched := self._fetched()):
            return fetched
        if source_of(model) == "bundled":
            folder = self._settings.home / "models" / BUNDLED[model].name
            if read_manifest(folder) is None:
                raise DriverMissing(f"the driver {BUNDLED[model].title} is not here yet")
            return folder
        if source_of(model) == "hub":
            raise BadInput(f"the driver {model} must be here already; name its folder in settings.toml, [driver] model")
        folder = (self._settings.home / Path(model).expanduser()).resolve()
        check_model_folder(folder)
        return folder

    def _fetched(self) -> Path | None:
        """The driver of the hub that was agreed to and fetched last, where settings.toml names none."""
        if not (self._settings.home / "tunesmith.db").exists():
            return None
        with contextlib.closing(Store(self._settings.home)) as store:
            drivers = store.newest_of_kind("driver")
        return next((one.path for one in drivers if driver_of(one.path.name) and read_manifest(one.path)), None)

    def ensure(self, on_wait: Callable[[float], None] = lambda seconds: None) -> Endpoint:
        """The driver's endpoint, healthy; a server is adopted or started where the driver has none of its own.

        Raises DriverMissing, BadInput without vLLM or while a running step needs the room, StepFailed where the server
        does not start.
        """
        chosen = self.chosen
        if chosen.endpoint:
            endpoint = Endpoint(
                chosen.endpoint.rstrip("/"),
                chosen.name or "default",
                chosen.key,
                chosen.timeout_s,
                allow_plain_http=chosen.allow_plain_http,
                home=self._settings.home,
            )
            _ = endpoint.address  # refused here, before anything is asked
            return endpoint
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
            self._started = server
        self._keep(server)
        return Endpoint(f"{server.url}/v1", server.model, server.key, self.chosen.timeout_s, server.listener)

    def _wait_for_room(self, spec: ServerSpec) -> None:
        """Raises BadInput while a step runs that needs the room: the driver is the guest."""
        machine = measure_machine(self._settings.home)
        ram_bytes, vram_bytes = SERVER_BYTES, 0
        if spec.device == "cuda":
            vram_bytes = spec.gpu_bytes + GPU_MARGIN_BYTES
        else:
            ram_bytes = cpu_server_bytes(_weight_bytes(Path(spec.model_dir)), spec.kv_cache_gib)
        with contextlib.closing(Store(self._settings.home)) as store:
            step = blocked_by(machine, store, ram_bytes=ram_bytes, vram_bytes=vram_bytes)
            if spec.device == "cuda" and not store.steps(status=RUNNING):
                make_room(self._settings.home, ram_bytes=0, log=lambda line: None)  # one that waits may fill the GPU
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
        listed = driver_of(folder.name) if "context_tokens" not in self.chosen.model_fields_set else None
        context = CONTEXT_TOKENS if listed else self.chosen.context_tokens
        place = placed(self._settings.vllm, listed.served if listed else needed_memory(folder, context))
        return ServerSpec(
            model_dir=str(folder),
            served_name=folder.name,
            weights_sha256=manifest["sha256"] if manifest else "",
            max_model_len_tokens=context,
            max_num_seqs=SEQUENCES,
            tool_parser=listed.tool_parser if listed else self.chosen.tool_parser,
            # Where a choice is held to JSON no thought can be written before it, so the prompt ends an empty one.
            without_thoughts=thoughts_of(folder) == "switch",
            **place._asdict(),
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
            # a process that dies renews no more, and the server ends by itself
            self._keeper = threading.Thread(target=self._renew, daemon=True)
            self._keeper.start()

    def _renew(self) -> None:
        while not self._closed.wait(_RENEW_S):  # a lease outlives ten of these
            if self._server and self._server.process.alive():
                servers.renew(self._server)

    def close(self) -> None:
        """Stop renewing the lease; the server ends by itself if nobody else talks to it."""
        self._closed.set()

    def end(self) -> None:
        """As `close`, and the server that was started here ends now; one that was there before stays."""
        self.close()
        if self._started is not None:
            servers.stop(self._started)


def needed_memory(folder: Path, context_tokens: int) -> ServerMemory:
    """Peak memory of a server of this model for conversations: on a GPU its cache holds a few whole contexts."""
    try:
        per_token = kv_bytes_per_token(json.loads((folder / "config.json").read_text()))
    except ValueError:  # a config that is no JSON: vLLM will say so
        per_token = USUAL_KV_BYTES
    return server_memory(
        _weight_bytes(folder), kv_bytes_per_token=per_token, context_tokens=context_tokens, sequences=SEQUENCES
    )


def _try_template(folder: Path) -> None:
    from tunesmith.tools.models.template_trial import probe_template  # Jinja, which no prompt waits for

    probe_template(folder)


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def is_gone(model: Model) -> bool:
    """Whether the driver was a server of ours that listens no more, whoever has its port now."""
    listener = getattr(getattr(model, "client", None), "listener", None)
    return listener is not None and not listener.is_ours()


def model_of(endpoint: Endpoint) -> Model:
    """The driver as pydantic-ai speaks to it."""
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.vllm import VLLMProvider

    client = endpoint.client(timeout_s=endpoint.timeout_s, retries=1)  # one more try: the turn waits at most twice
    return OpenAIChatModel(endpoint.model, provider=VLLMProvider(openai_client=client))


def refusal_in(error: BaseException | None) -> SendRefused | None:
    """Why a request was not sent, or its answer not taken, where that is behind an error of the openai library."""
    while error is not None:
        if isinstance(error, SendRefused):
            return error
        error = error.__cause__ or error.__context__
    return None


def driver_state(settings: Settings) -> str:
    """What drives the conversation at this moment, in a sentence or two: nothing is claimed that is not there."""
    chosen, name = settings.driver, _driver_name(settings.driver)
    if chosen.endpoint:
        return f"The language model that I talk with is {name}, at {chosen.endpoint}: what is asked of it goes there."
    if servers.list_servers(settings.home, role="driver"):
        return f"The language model that I talk with is {name}, served here; nothing leaves this machine."
    try:
        Driver(settings).folder()
    except BadInput:
        return f"No language model is here yet: I answer from the records, and ask you before {name} is fetched."
    return f"No language model runs now: I answer from the records, and start {name} on this machine when I need it."


def _driver_name(chosen: DriverSettings) -> str:
    """The driver as the user knows it."""
    if chosen.endpoint:
        return chosen.name or chosen.endpoint
    if source_of(chosen.model) == "bundled":
        return BUNDLED[chosen.model].title
    return chosen.model.rstrip("/").rpartition("/")[2]

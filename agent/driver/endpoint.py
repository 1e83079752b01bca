"""Where the driver answers: an endpoint that exists already, or a vLLM server that tunesmith starts for it.

A server of ours (`tools/pipeline/driver_server`) has a lease, so one that nobody talks to ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model

from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import read_manifest
from tunesmith.memory.store import Store
from tunesmith.tools.models.base import source_of
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.folder import check_model_folder
from tunesmith.tools.models.known_drivers import CONTEXT_TOKENS, KnownDriver, driver_of
from tunesmith.tools.pipeline import driver_server
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.endpoint import Endpoint, context_of


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
        self._lease = contextlib.ExitStack()
        self._starting = threading.Lock()  # a turn, and the examination behind one
        self._context: int | None = None

    @property
    def chosen(self) -> DriverSettings:
        """What the settings say about the driver."""
        return self._settings.driver

    @property
    def home(self) -> Path:
        """Where what is known of it is kept."""
        return self._settings.home

    def folder(self) -> Path:
        """The model folder that would be served. Raises DriverMissing, or BadInput for one that cannot be trusted."""
        model = self.chosen.model
        if "model" not in self.chosen.model_fields_set and (fetched := self._fetched()):
            return fetched
        if source_of(model) == "bundled":
            folder = self.home / "models" / BUNDLED[model].name
            if read_manifest(folder) is None:
                raise DriverMissing(f"the driver {BUNDLED[model].title} is not here yet")
            return folder
        if source_of(model) == "hub":
            raise BadInput(f"the driver {model} must be here already; name its folder in settings.toml, [driver] model")
        folder = (self.home / Path(model).expanduser()).resolve()
        check_model_folder(folder)
        return folder

    def _fetched(self) -> Path | None:
        """The driver of the hub that was agreed to and fetched last, where settings.toml names none."""
        if not (self.home / "tunesmith.db").exists():
            return None
        with contextlib.closing(Store(self.home)) as store:
            drivers = store.newest_of_kind("driver")
        return next((one.path for one in drivers if driver_of(one.path.name) and read_manifest(one.path)), None)

    def ensure(self, on_wait: Callable[[float], None] = lambda seconds: None) -> Endpoint:
        """The driver's endpoint, healthy; a server is adopted or started where the driver has none of its own.

        Raises DriverMissing, BadInput without vLLM or while a running step needs the room, StepFailed where the server
        does not start.
        """
        if self.chosen.endpoint:
            return self._of_the_user()
        folder = self.folder()
        if self._settings.vllm is None:
            raise BadInput(
                "the driver needs vLLM and none was found; run `tunesmith setup`, or name an endpoint of your own"
            )
        with self._starting:
            server = self._server_of(folder, on_wait)
        return Endpoint(f"{server.url}/v1", server.model, server.key, self.chosen.timeout_s, server.listener)

    def _server_of(self, folder: Path, on_wait: Callable[[float], None]) -> servers.Server:
        vllm = str(self._settings.vllm)
        spec = driver_server.spec_of(vllm, folder, *self._served_with(folder))
        log = self.home / "logs" / "driver.log"
        server = driver_server.running(self.home, spec)
        if server is None:
            driver_server.wait_for_room(self.home, spec)
            driver_server.try_template(folder)
            server = self._started = servers.start(
                self.home, spec, vllm=vllm, log_path=log, owner="driver", role=servers.DRIVER, on_wait=on_wait
            )
        if server != self._server:
            self._lease.close()
            self._lease.enter_context(servers.lease(server))
        self._server = server
        return server

    def _served_with(self, folder: Path) -> tuple[KnownDriver | None, int, str]:
        """What is known of a model, the context that it is served with, and vLLM's name for how it writes calls."""
        chosen = self.chosen
        if "context_tokens" not in chosen.model_fields_set and (listed := driver_of(folder.name)):
            return listed, CONTEXT_TOKENS, listed.tool_parser
        return None, chosen.context_tokens, chosen.tool_parser

    def _of_the_user(self) -> Endpoint:
        """The endpoint of the settings, asked once for its context. Raises BadInput for one that cannot be used."""
        chosen = self.chosen
        endpoint = Endpoint(
            chosen.endpoint.rstrip("/"),
            chosen.name or "default",
            chosen.key,
            chosen.timeout_s,
            allow_plain_http=chosen.allow_plain_http,
            home=self.home,
        )
        _ = endpoint.address  # refused here, before anything is asked
        if self._context is None:
            self._context = asyncio.run(context_of(endpoint))
        return endpoint

    def seen(self) -> tuple[str, int]:
        """What its examination is kept under, empty where no driver is here; and the tokens that a request may take.

        A model's weights with how they are served, or an endpoint with all that is set of it but the key.
        """
        chosen = self.chosen
        if chosen.endpoint:
            set_here = "context_tokens" in chosen.model_fields_set
            tokens = (not set_here and self._context) or chosen.context_tokens
            rest = chosen.model_dump(mode="json", exclude={"key"})
            return f"{chosen.endpoint} {chosen.name} {_digest(rest)}", tokens
        try:
            folder = self.folder()
        except BadInput:
            return "", chosen.context_tokens
        manifest, (_, tokens, parser) = read_manifest(folder), self._served_with(folder)
        weights = manifest["sha256"] if manifest else [[f.name, f.stat().st_mtime_ns] for f in sorted(folder.iterdir())]
        return _digest([weights, parser, tokens]), tokens

    @property
    def here(self) -> bool:
        """Whether it answered in this session: an endpoint when it was asked for its models, else a server of ours."""
        return self._context is not None or (self._server is not None and self._server.process.alive())

    def served(self) -> bool:
        """Whether a server of ours answers as the driver now."""
        return any(servers.healthy(server) for server in servers.list_servers(self.home, role=servers.DRIVER))

    def close(self) -> None:
        """Stop renewing the lease; the server ends by itself if nobody else talks to it."""
        self._lease.close()

    def end(self) -> None:
        """As `close`, and the server that was started here ends now; one that was there before stays."""
        self.close()
        if self._started is not None:
            servers.stop(self._started)


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


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
    return BUNDLED[chosen.model].title if chosen.model in BUNDLED else chosen.model.rstrip("/").rpartition("/")[2]

"""An OpenAI-compatible endpoint, ours or somebody else's, as the conversation and the reading of words ask it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.tools.serving.addresses import Address, read_address, refuse_key_in_clear
from tunesmith.tools.serving.client import ChatClient
from tunesmith.tools.serving.listeners import Listener, SendRefused
from tunesmith.tools.serving.traffic import ContactLog

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LISTING_S = 2.0
"""A turn waits for it; an endpoint that is slow to say its context answers all the same."""


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


async def context_of(endpoint: Endpoint) -> int | None:
    """Tokens that a request may take, as `/v1/models` says; 0 where it does not, None where nothing answers in time."""
    from openai import APIConnectionError

    try:
        async with asyncio.timeout(_LISTING_S), endpoint.client(timeout_s=_LISTING_S) as client:
            listed = (await client.models.list()).data
        own = next((one for one in listed if one.id == endpoint.model or len(listed) == 1), None)
        told = (own.model_extra if own else None) or {}
        tokens = [told.get(name) for name in ("max_model_len", "context_length", "max_context_length")]
        tokens.append((told.get("meta") or {}).get("n_ctx_train"))
        return next((one for one in tokens if type(one) is int and one > 0), 0)
    except (APIConnectionError, TimeoutError):
        return None
    except Exception:  # it answered, be it with a refusal or with something that is no list
        return 0


def refusal_in(error: BaseException | None) -> SendRefused | None:
    """Why a request was not sent, or its answer not taken, where that is behind an error of the openai library."""
    while error is not None:
        if isinstance(error, SendRefused):
            return error
        error = error.__cause__ or error.__context__
    return None

"""In front of every route of a vLLM server: nothing but its health answers without the key.

It runs inside vLLM, as ASGI middleware. vLLM's own `--api-key` guards `/v1` and a few more; `/invocations`,
`/tokenize`, `/metrics` and whatever a release adds answer anybody who reaches the port. Adapters are loaded and removed
only by who started the server: the key that is handed to users does not open those routes. Standard library only.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

_App = Callable[[dict[str, Any], Callable[..., Awaitable[object]], Callable[..., Awaitable[None]]], Awaitable[None]]
_OPEN = frozenset({("GET", "/health"), ("HEAD", "/health")})
_ADAPTERS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters")


class Guard:
    """Denies by default. Raises RuntimeError where there is no key: then the server does not start."""

    def __init__(self, app: _App) -> None:
        self.app = app
        self._key = os.environ.get("VLLM_API_KEY", "").encode()
        # taken out: vLLM and its children need not know it
        self._loader = os.environ.pop("TUNESMITH_LOADER_KEY", "").encode()
        if not self._key:
            raise RuntimeError("tunesmith: no VLLM_API_KEY, so the server would answer everybody")

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[..., Awaitable[object]], send: Callable[..., Awaitable[None]]
    ) -> None:
        """Hand on what is allowed, answer the rest with 401 or 403."""
        # A lifespan is the server's own start and end, and nobody's request.
        status = 0 if scope["type"] == "lifespan" else self._refusal(scope)
        if not status:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: a 403
        else:
            body = json.dumps({"error": "Unauthorized" if status == 401 else "Forbidden"}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: dict[str, Any]) -> int:
        """The status to refuse a request with; 0: it may pass."""
        method, path = scope.get("method", ""), scope.get("path", "")
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope.get("headers", ()):
            headers.setdefault(name.lower(), []).append(value)
        if (method, path) in _OPEN or (method == "OPTIONS" and _is_preflight(headers)):
            return 0
        if not _same(headers.get(b"authorization", []), b"Bearer " + self._key):
            return 401
        if path.startswith(_ADAPTERS) and not (
            self._loader and _same(headers.get(b"x-tunesmith-loader", []), self._loader)
        ):
            # No 401: the key is right, and is no loader's.
            return 403
        return 0


def _is_preflight(headers: dict[bytes, list[bytes]]) -> bool:
    """Whether a browser asks whether it may ask: vLLM answers that itself, and no route is reached."""
    return b"origin" in headers and b"access-control-request-method" in headers


def _same(given: list[bytes], wanted: bytes) -> bool:
    # Two of one name are refused: what reads them behind this might take the other.
    return len(given) == 1 and hmac.compare_digest(given[0], wanted)

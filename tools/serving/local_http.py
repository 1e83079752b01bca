"""One HTTP request to a server of ours: through no proxy, after no redirect, and to nobody else on its port."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping

from tunesmith.tools.serving.addresses import Address, read_address
from tunesmith.tools.serving.listeners import Guard, Listener
from tunesmith.tools.serving.spec import LOOPBACK


class HttpRefused(OSError):
    """The server answered with a status of 300 and more."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text[:200]}")
        self.status, self.text = status, text


def call(
    listener: Listener,
    path: str,
    key: str,
    body: Mapping[str, object] | None = None,
    *,
    timeout_s: float,
    loader_key: str = "",
) -> object:
    """The answer's JSON, or its text where it is none.

    Raises SendRefused where another program is on the port, HttpRefused for a status of 300 and more, OSError.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Connection": "close"}
    if loader_key:
        headers["X-Tunesmith-Loader"] = loader_key
    connection = _Connection(read_address(f"http://{LOOPBACK}:{listener.port}"), listener, timeout_s)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if data is None else "POST", path, data, headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
    except http.client.HTTPException as error:  # for callers what speaks no HTTP is no server, as where none answers
        raise OSError(f"no answer in HTTP: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if status >= 300:
        raise HttpRefused(status, text.decode(errors="replace"))
    try:
        return json.loads(text)
    except ValueError:  # some routes of vLLM answer in plain text, or in nothing
        return text.decode(errors="replace")


class _Connection(http.client.HTTPConnection):
    """Opened between the two questions of a guard."""

    def __init__(self, address: Address, listener: Listener, timeout_s: float) -> None:
        super().__init__(address.host, address.port, timeout=timeout_s)
        self._guard = Guard(address, listener)

    def connect(self) -> None:
        self._guard.before()
        super().connect()
        self._guard.after(self.sock)

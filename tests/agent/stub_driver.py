"""An OpenAI-compatible endpoint that answers from a script, or misbehaves in one of the ways that endpoints do."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | tuple[str, dict[str, Any]]
"""Words, or the name and the arguments of a tool to call."""
Script = Callable[[dict[str, Any]], Answer]


class StubDriver:
    """A server on a free local port; `script` is given each request's body and says what to answer."""

    def __init__(self, script: Script = lambda body: "Hello.", *, mode: str = "fine") -> None:
        self.requests: list[dict[str, Any]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.requests.append(body)
                getattr(stub, f"_{mode}")(self, body)

            def log_message(self, *args: object) -> None:
                pass

        self._script = script
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """With its `/v1`."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fine(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if "response_format" in body:
            _send(handler, 200, _choice(self._script(body)), "application/json")
            return
        _send(handler, 200, b"".join(_events(self._script(body))), "text/event-stream")

    def _slow(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(2.0)
        with contextlib.suppress(ConnectionError):  # whoever asked has given up
            self._fine(handler, body)

    def _garbage(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        _send(handler, 200, b"<html>not an API</html>", "text/html")

    def _failing(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        _send(handler, 500, b'{"error": {"message": "the engine died"}}', "application/json")

    def _short(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        told = "This model's maximum context length is 2048 tokens. However, you requested 2400 tokens."
        _send(handler, 400, json.dumps({"error": {"message": told, "code": 400}}).encode(), "application/json")

    def _cut(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        first = next(iter(_events("This answer never comes to its end. It")))
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(first)
        handler.wfile.flush()
        handler.connection.close()


def _send(handler: BaseHTTPRequestHandler, status: int, content: bytes, kind: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _choice(answer: Answer) -> bytes:
    """The answer to a request that is held to a schema: the tool and what was said."""
    name, arguments = ("chat", {}) if isinstance(answer, str) else answer
    chosen = {"tool": name, **{key: value for key, value in arguments.items() if value is not None}}
    message = {"role": "assistant", "content": json.dumps(chosen)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    told = {"id": "c", "object": "chat.completion", "created": 1, "model": "stub", "choices": [choice]}
    return json.dumps(told).encode()


def _events(answer: Answer) -> list[bytes]:
    if isinstance(answer, str):
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": word} for word in answer.split(" ")]
        deltas = [{**d, "content": ("" if i == 0 else " ") + d["content"]} for i, d in enumerate(deltas)]
        end = "stop"
    else:
        name, arguments = answer
        function = {"name": name, "arguments": json.dumps(arguments)}
        deltas = [
            {
                "role": "assistant",
                "tool_calls": [
                    {"index": 0, "id": f"call_{time.monotonic_ns()}", "type": "function", "function": function}
                ],
            }
        ]
        end = "tool_calls"
    return [_event(delta, None) for delta in deltas] + [_event({}, end), b"data: [DONE]\n\n"]


def _event(delta: dict[str, Any], end: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": end}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "stub", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()

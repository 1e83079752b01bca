"""A small page of this machine: on 127.0.0.1 alone, under a random path, with nothing loaded from anywhere.

What it shows is data: the page puts it in as text, never as HTML, with what hides or reorders spelled out, and a policy
forbids every script but its own. Any process of this machine can connect: what it sends is bounded in bytes, in time
and in connections, and none of it reaches the terminal.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from tunesmith.agent.commands.startup import unexpected
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import visible

Reads = Mapping[str, Callable[[], object]]
Acts = Mapping[str, Callable[[dict[str, object]], object]]

_LOOPBACK = "127.0.0.1"
_Request = socket.socket | tuple[bytes, socket.socket]
_BODY_MAX = 200_000
"""Of what a page sends: one row with its answer, or some pasted messages."""
_REQUEST_S = 30.0
"""A request that is not there whole after so long is dropped, however it trickles in: a browser keeps several
connections open."""
_REQUEST_MAX = _BODY_MAX + 32_000
"""Bytes of a request, its headers among them."""
_CONNECTIONS_MAX = 32
"""Threads of one page: a browser opens half a dozen."""


class _Bounded(io.RawIOBase):
    """What a connection sends, up to so many bytes and so long a time for each request."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.next_request()

    def next_request(self) -> None:
        """Begin to count anew."""
        self._left, self._until = _REQUEST_MAX, time.monotonic() + _REQUEST_S

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises TimeoutError, or ConnectionAbortedError for a request that is too long."""
        # A timeout of 0 would mean not to wait, and a negative one is an error.
        self._connection.settimeout(max(0.001, self._until - time.monotonic()))
        count = self._connection.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise ConnectionAbortedError(f"a request of over {_REQUEST_MAX} bytes")
        return count


class PageServer(ThreadingHTTPServer):
    """Serves one page and its data. `url` holds the token, without which everything is 404."""

    daemon_threads = True
    request_queue_size = _CONNECTIONS_MAX

    def __init__(self, page: str, port: int, say: Callable[[str], None], *, reads: Reads, acts: Acts) -> None:
        """`reads`: name behind the token → what it shows; `acts`: name → what a JSON object that is sent there does,
        which raises BadInput."""
        try:
            super().__init__((_LOOPBACK, port), _Handler)
        except OSError as error:
            raise BadInput(f"port {port} of {_LOOPBACK}: {error.strerror}; leave --port out for a free one") from None
        self.say, self.reads, self.acts = say, reads, acts
        self.token = secrets.token_urlsafe(24)  # 192 bits: nobody guesses it while a page is open
        self.page = (files("tunesmith.prompts") / page).read_text(encoding="utf-8")
        self.lock = threading.Lock()
        """Around everything that reads or changes what the page shows."""
        self.hosts = {f"{name}:{self.server_address[1]}" for name in (_LOOPBACK, "localhost")}
        self._free = threading.BoundedSemaphore(_CONNECTIONS_MAX)
        self._reported = False

    def process_request(self, request: _Request, client_address: object) -> None:
        """In a thread of its own, where one is free; else the connection is closed."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        """Give the thread back, whatever becomes of the request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        """A connection that broke off is nobody's concern; a defect of ours is said once, its traceback kept."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, OSError) and not self._reported:
            self._reported = True
            self.say(unexpected(error))

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_LOOPBACK}:{self.server_address[1]}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Read through what bounds it."""
        super().setup()
        self.rfile.close()
        self._sent = _Bounded(self.connection)
        self.rfile = io.BufferedReader(self._sent)

    def handle_one_request(self) -> None:
        """Each has its own bounds."""
        self._sent.next_request()
        super().handle_one_request()

    def do_GET(self) -> None:
        what = self._asked()
        if what == "":
            self._answer(200, self.server.page.encode(), "text/html; charset=utf-8")
        elif what is not None and what in self.server.reads:
            with self.server.lock:  # each request has a thread
                content = self.server.reads[what]()
            self._json(200, content)
        else:
            self._json(404, {"error": "there is nothing here"})

    def do_POST(self) -> None:
        length, act = self._length(), self.server.acts.get(self._asked() or "")
        if act is None or not 0 < length <= _BODY_MAX:
            self.close_connection = True  # its body was not read
            self._json(404, {"error": "there is nothing here"})
            return
        body = self.rfile.read(length)
        if not (self.headers.get("Content-Type") or "").startswith("application/json"):
            self._json(415, {"error": "what is sent here is JSON"})  # what another site's form may send is not
            return
        try:
            asked = json.loads(body)
            with self.server.lock:
                done = act(asked if isinstance(asked, dict) else {})
            self._json(200, done)
        except (ValueError, RecursionError) as error:  # what was sent is no JSON, or asks for what there is not
            self._json(400, {"error": visible(error)})
        except Exception as error:  # the page has to say it; its server goes on
            self._json(500, {"error": visible(unexpected(error))})

    def _length(self) -> int:
        """Bytes of the body; 0 where that is not said, said twice, or said in anything but plain digits."""
        lengths = self.headers.get_all("Content-Length") or []
        plain = len(lengths) == 1 and "Transfer-Encoding" not in self.headers and re.fullmatch("[0-9]{1,6}", lengths[0])
        return int(lengths[0]) if plain else 0

    def _asked(self) -> str | None:
        """What is asked for behind the token; None without it, or where another host's name was used."""
        path = self.path.split("?")[0].split("/", 2)
        right = len(path) == 3 and secrets.compare_digest(path[1].encode(), self.server.token.encode())
        hosts = self.headers.get_all("Host") or []
        return path[2] if right and len(hosts) == 1 and hosts[0] in self.server.hosts else None

    def _json(self, status: int, value: object) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.connection.settimeout(_REQUEST_S)  # for who asks and never reads
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Content-Security-Policy": _policy(self.server.page),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: the token would be in it."""


def _policy(page: str) -> str:
    """Nothing but the page's own script and style, by their digests."""
    digests = []
    for tag in ("script", "style"):
        own = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = hashlib.sha256(own[1].encode() if own else b"").digest()
        digests.append(f"'sha256-{base64.b64encode(digest).decode()}'")
    return (
        f"default-src 'none'; script-src {digests[0]}; style-src {digests[1]}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

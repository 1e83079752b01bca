"""The same review as a small page: on 127.0.0.1 alone, under a random path, with nothing loaded from anywhere.

Rows are data: the page puts them in as text, never as HTML, and a policy forbids every script but its own.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files

from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.review import Review
from tunesmith.memory.errors import BadInput
from tunesmith.memory.marks import DECISIONS

_LOOPBACK = "127.0.0.1"
_BODY_MAX = 200_000
_ROWS_MAX = 2_000
_IDLE_S = 30.0
"""A connection that says nothing for so long is closed: a browser keeps several open."""


class ReviewServer(ThreadingHTTPServer):
    """Serves one review. `url` holds the token, without which everything is 404."""

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        try:
            super().__init__((_LOOPBACK, port), _Handler)
        except OSError as error:
            raise BadInput(f"port {port} of {_LOOPBACK}: {error.strerror}; leave --port out for a free one") from None
        self.review = review
        self.found = review.found[:_ROWS_MAX]
        self.by_id = {suspect.row.row_id: suspect for suspect in self.found}
        self.token = secrets.token_urlsafe(24)
        self.page = (files("tunesmith.prompts") / "review.html").read_text(encoding="utf-8")
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_LOOPBACK}:{self.server_address[1]}/{self.token}/"

    def rows(self) -> dict[str, object]:
        """What the page shows."""
        marks = self.review.marks
        shown = [
            {"row_id": s.row.row_id, "message": s.message, "why": s.why, "answer": self.review.answer(s),
             "choices": self.review.choices(s),
             "mark": marks[s.row.row_id].decision if s.row.row_id in marks else None}
            for s in self.found
        ]  # fmt: skip
        return {"rows": shown, "marks": len(marks)}

    def mark(self, asked: object) -> dict[str, object]:
        """Keep a mark that the page sent. Raises BadInput."""
        told = asked if isinstance(asked, dict) else {}
        suspect, decision, answer = self.by_id.get(str(told.get("row_id"))), told.get("decision"), told.get("answer")
        if suspect is None:
            raise BadInput("there is no such row here")
        if decision not in DECISIONS or not isinstance(answer, str):
            raise BadInput(f"a mark is one of {', '.join(DECISIONS)}, with an answer")
        with self.lock:
            self.review.mark(suspect, decision, answer)
            return {"marks": len(self.review.marks), "answer": self.review.answer(suspect)}


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S

    def do_GET(self) -> None:
        what = self._asked()
        if what == "":
            self._answer(200, self.server.page.encode(), "text/html; charset=utf-8")
        elif what == "rows":
            with self.server.lock:
                rows = self.server.rows()
            self._json(200, rows)
        else:
            self._json(404, {"error": "there is nothing here"})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length") or ""
        if self._asked() != "mark" or not length.isdigit() or not 0 < int(length) <= _BODY_MAX:
            self.close_connection = True  # its body was not read
            self._json(404, {"error": "there is nothing here"})
            return
        body = self.rfile.read(int(length))
        if not (self.headers.get("Content-Type") or "").startswith("application/json"):
            self._json(415, {"error": "a mark is JSON"})  # what another site's form may send is not
            return
        try:
            self._json(200, self.server.mark(json.loads(body)))
        except (ValueError, RecursionError) as error:
            self._json(400, {"error": str(error)})

    def _asked(self) -> str | None:
        """What is asked for behind the token; None without it, or where another host's name was used."""
        parts = self.path.split("?")[0].split("/", 2)
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        right = len(parts) == 3 and secrets.compare_digest(parts[1].encode(), self.server.token.encode())
        return parts[2] if right and host in (_LOOPBACK, "localhost") else None

    def _json(self, status: int, value: object) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
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


def serve(review: Review, out: Output, *, port: int = 0) -> None:
    """Serve the page until Ctrl-C."""
    with ReviewServer(review, port) as server:
        out.say(f"look at {len(server.found)} rows in a browser of this machine: {server.url} (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)

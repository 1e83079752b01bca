"""One HTTP request to a server of ours on the loopback address, through no proxy."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping


def call(
    url: str, key: str, body: Mapping[str, object] | None = None, *, timeout_s: float, loader_key: str = ""
) -> object:
    """The answer's JSON, or its text where it is none. Raises OSError, and HTTPError for a status of 400 and more."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if loader_key:
        headers["X-Tunesmith-Loader"] = loader_key
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout_s) as answer:
        text = answer.read()
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")

"""One request to the hub: where it may lead, whether it carries the user's token, and how much may come back.

The token goes to the address that HF_ENDPOINT names (or the hub's own) and nowhere else; redirects are followed to
https alone, or within that address. `docs/what-leaves.md` names each request and each header; a test compares.

huggingface_hub asks nothing here: its client follows any redirect, sends the token on to another port of the same host
and to huggingface.co from a mirror, reads a body without end, and tells the hub about this machine. It gives its rules
of names, its settings (HF_ENDPOINT, HF_HUB_OFFLINE), where `hf auth login` leaves a token, and its cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from tunesmith.memory.errors import BadInput, StepFailed, TunesmithError, disk_is_full

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

CONNECT_S, READ_S = 5.0, 5.0
"""Of what is asked while a person waits for a price: a hub that does not answer soon is told of."""
_REDIRECTS = 5
"""The hub sends a file's request on to its store, and a renamed model's to its new name; more is a circle."""
_KEY = "authorization"
NO_USER = "HF_ENDPOINT holds a user or password, which would replace your token; leave it out, and log in by HF_TOKEN"
"""Not its host either: where a password ends is not always clear."""


@contextmanager
def answer(
    path: str, what: str, *, read_s: float = READ_S, more: Mapping[str, str] | None = None
) -> Iterator[httpx.Response]:
    """The hub's answer to a GET, its body unread and never compressed. Raises StepFailed, and what httpx raises."""
    import httpx
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise ConnectionError(f"HF_HUB_OFFLINE is set: {what} is not asked for")
    if "@" in constants.ENDPOINT:  # httpx would send the two in the token's place, and an error would show them
        raise BadInput(NO_USER)
    endpoint, where = httpx.URL(constants.ENDPOINT), httpx.URL(constants.ENDPOINT + path)
    headers = {**_key(endpoint), **(more or {})}
    for _ in range(_REDIRECTS + 1):
        if not _same_origin(where, endpoint):
            headers.pop(_KEY, None)  # for good: whoever redirects back has no right to it either
        timeout = httpx.Timeout(read_s, connect=CONNECT_S)
        with _client(is_loopback(endpoint)).stream("GET", where, headers=headers, timeout=timeout) as response:
            if not response.has_redirect_location:
                response.raise_for_status()
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise StepFailed(f"the hub sent {what} compressed, which was not asked for; try again later")
                yield response
                return
            where = _allowed(where.join(response.headers["location"]), endpoint, what)
    raise StepFailed(f"the hub redirected {what} more than {_REDIRECTS} times; try again later")


def file_path(page: str, revision: str, name: str) -> str:
    """Where the hub has a file of a page, which is owner/name, of a data set with datasets/ before it."""
    return f"/{page}/resolve/{quote(revision, safe='')}/{quote(name)}"


def read_body(path: str, what: str, most_bytes: int) -> bytes:
    """A small document of the hub. Raises BadInput where it is longer, and as `answer` does."""
    with answer(path, what) as response:
        data = bytearray()
        for chunk in response.iter_raw():
            data += chunk
            if len(data) > most_bytes:
                raise BadInput(f"{what} is over {most_bytes >> 20} MB on the hub; take another model")
    return bytes(data)


def within(seconds: float, work: Callable[[], T], what: str) -> T:
    """What `work` returns or raises; StepFailed where it takes longer, whatever it waits for. It is left to itself."""
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:  # raised where it is waited for
            ended.set_exception(error)

    Thread(target=run, daemon=True).start()
    if not wait([ended], seconds).done:
        raise StepFailed(f"the hub did not tell {what} within {seconds:g} s; try again later, or give a local folder")
    return ended.result()


@cache
def _client(local: bool) -> httpx.Client:
    """What connects, says who asks, and keeps no cookie; a hub on loopback is asked through no proxy."""
    import httpx

    headers = {"user-agent": f"tunesmith/{version('tunesmith')}", "accept-encoding": "identity"}
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    trusted = httpx.create_ssl_context()
    return httpx.Client(
        headers=headers, cookies=no_cookies, verify=trusted, trust_env=not local, follow_redirects=False
    )


def _key(endpoint: httpx.URL) -> dict[str, str]:
    """The header with the user's token; none where nobody is logged in."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _auth

    # Private, as `get_token` renews a token, or fetches one, by requests of its own.
    token = _auth._get_token_from_environment() or _auth._get_token_from_file()
    if token is None or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return {}
    if endpoint.scheme != "https" and not is_loopback(endpoint):
        raise BadInput(
            f"HF_ENDPOINT is {endpoint}, where your token would travel in the open; name an https address, or unset "
            "HF_TOKEN and set HF_HUB_DISABLE_IMPLICIT_TOKEN=1"
        )
    return {_KEY: f"Bearer {token}"}


def _allowed(where: httpx.URL, endpoint: httpx.URL, what: str) -> httpx.URL:
    if where.scheme == "https" or _same_origin(where, endpoint):
        return where.copy_with(userinfo=b"")  # else httpx sends them as a login
    raise StepFailed(
        f"the hub redirected {what} to {where.scheme}://{where.host}, and only https is followed; nothing was fetched "
        "from there"
    )


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return _origin(one) == _origin(other)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Its usual port where none is named: httpx leaves those out."""
    return url.scheme, url.host.lower(), url.port or {"https": 443, "http": 80}.get(url.scheme)


def is_loopback(url: httpx.URL) -> bool:
    """Whether an address is of this machine."""
    return url.host in ("127.0.0.1", "localhost", "::1")


@contextmanager
def errors_named(model: str, revision: str) -> Iterator[None]:
    """Turn what httpx and huggingface_hub raise into one line that says what to do. Raises BadInput, StepFailed."""
    import httpx
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError:
        raise BadInput(f"{model[:100]!r} is no name that a model can have on the hub; give org/name") from None
    # the last of a name or an endpoint that is no address
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise _named(error, model, f"{model} at {revision[:12]}" if revision else model) from error


def _named(error: Exception, model: str, what: str) -> TunesmithError:
    import httpx

    if disk_is_full(error):
        return StepFailed(
            f"the disk is full: {what} was not downloaded whole; make room or move TUNESMITH_HOME, then try again"
        )
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status < 500:  # below: the request is refused, and asking again changes nothing
            return BadInput(f"the hub refused {what}: {status}; {_next_step(status, model)}")
        return StepFailed(f"the hub answered {status} for {what}; try again later, or give a local folder")
    if isinstance(error, httpx.HTTPError | ConnectionError | TimeoutError | FileNotFoundError):
        return StepFailed(
            f"{what} cannot be reached on the hub; check the network and HF_HUB_OFFLINE, or give a local folder"
        )
    return StepFailed(f"{what} was not downloaded: {' '.join(str(error).split())[:300]}")  # a library's own page of it


def _next_step(status: int, model: str) -> str:
    """What to try after a refusal. The hub answers 401 for a missing model as for one that wants a login."""
    from huggingface_hub import constants

    page, log_in = f"{constants.ENDPOINT}/{model}", "`hf auth login`, or HF_TOKEN with a token of your account"
    if status == 401:
        return f"check its name; if it is private or gated, log in ({log_in}) and accept its licence on {page}"
    if status == 403:
        return f"accept its licence on {page} and wait for access, under the account that is logged in ({log_in})"
    if status == 404:
        return f"check its name and its commit on {page}"
    if status == 429:
        return f"it was asked too often: wait some minutes and try again; logged in ({log_in}) you may ask more often"
    return f"check its name, its commit and your access to it on {page}"

"""What leaves this machine: nothing through a proxy to this machine, nothing after a redirect, nothing to a stranger on
a port of ours, no key in clear. Real sockets on the loopback address."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.network import PROXY_VARIABLES, Ours, hears, our_server
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.driver.agent import clear_line
from tunesmith.agent.driver.endpoint import Driver, is_gone, model_of
from tunesmith.memory.errors import BadInput
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.addresses import read_address
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.serving.endpoint import Endpoint, refusal_in
from tunesmith.tools.serving.listeners import Guard, Listener, Seen, SendRefused
from tunesmith.tools.serving.local_http import call
from tunesmith.tools.serving.model_server import loaded_for_a_while
from tunesmith.tools.serving.requests import chat_client
from tunesmith.tools.serving.scoring import score_prompt
from tunesmith.tools.serving.spec import ServerSpec

KEY, WORDS = "the-key-SECRET", "private words"
MESSAGES = [{"role": "user", "content": WORDS}]
Ask = Callable[[str, "Listener | None"], str]


def by_chat_client(url: str, listener: Listener | None = None) -> str:
    """The judge's, the writer's and every measuring client."""

    async def ask() -> ChatResponse:
        async with ChatClient(url, KEY, listener=listener) as chat:
            return await chat.complete(ChatRequest("q", "m", MESSAGES, 8))

    response = asyncio.run(ask())
    if response.error:
        raise SendRefused(response.error)
    return response.text


def by_driver(url: str, listener: Listener | None = None) -> str:
    """The conversation's client."""

    async def ask() -> str:
        model: Any = model_of(Endpoint(f"{url}/v1", "m", KEY, listener=listener))
        try:
            answer = await model.client.chat.completions.create(model="m", messages=MESSAGES)
            return str(answer.choices[0].message.content)
        finally:
            await model.client.close()

    return asyncio.run(ask())


def by_examination(url: str, listener: Listener | None = None) -> str:
    """`doctor --driver`'s client."""

    async def ask() -> str:
        async with Endpoint(f"{url}/v1", "m", KEY, listener=listener).client(timeout_s=5) as client:
            answer = await client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
            return str(answer.choices[0].message.content)

    return asyncio.run(ask())


def refusal_of(ask: Ask, url: str, listener: Listener | None = None) -> str:
    """What keeps a client from sending, or from taking an answer."""
    try:
        ask(url, listener)
    except Exception as error:
        assert refusal_in(error), error
        return clear_line(error)
    raise AssertionError("it was sent and its answer taken")


CLIENTS = [by_chat_client, by_driver, by_examination]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tunesmith.tools.serving.client._BACKOFF_S", 0.0)


# --- proxies


@pytest.mark.parametrize("ask", CLIENTS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.9.1", "[::ffff:127.0.0.1]"])
def test_this_machine_is_reached_through_no_proxy(ask: Ask, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = "::1" if host == "[::1]" else "0.0.0.0"
    with hears() as proxy, hears(host=bound) as server:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, proxy.url())
        assert ask(server.url(host), None) == "forged"
        assert proxy.requests == [] and len(server.requests) == 1
        assert f"Bearer {KEY}" in server.requests[0] and WORDS in server.requests[0]


@pytest.mark.heavy
@table("name", PROXY_VARIABLES)
def test_a_server_of_ours_is_reached_through_no_proxy_whatever_it_is_called(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hears() as proxy, our_server() as ours:
        monkeypatch.setenv(name, proxy.url())
        for ask in CLIENTS:
            assert ask(ours.url, ours.listener) == "ours"
        call(ours.listener, "/v1/x", KEY, {}, timeout_s=5)
        assert proxy.requests == []


@table("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_another_machine_is_reached_through_the_users_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = read_address("http://models.example:8000/v1")
    assert address.proxy is None
    with hears() as proxy:
        monkeypatch.setenv(name, f"http://user:password@127.0.0.1:{proxy.port}")
        assert address.proxy_place == f"127.0.0.1:{proxy.port}"
        endpoint = Endpoint(address.url, "m", KEY, allow_plain_http=True)

        async def ask() -> ChatResponse:
            async with endpoint.client(timeout_s=5) as client:
                await client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
            async with endpoint.chat_client() as chat:
                return await chat.complete(ChatRequest("q", "m", MESSAGES, 8))

        assert asyncio.run(ask()).text == "forged"
        first, second = proxy.requests
        assert "http://models.example:8000/v1/chat/completions" in first and "Proxy-Authorization: Basic" in second
        monkeypatch.setenv("NO_PROXY", "models.example")
        assert address.proxy is None


def test_a_proxy_that_is_not_spoken_is_named_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:1080")
    with pytest.raises(BadInput, match=r"socks5 proxy.*NO_PROXY=models\.example") as refused:
        _ = read_address("https://models.example").proxy
    assert "secret" not in str(refused.value)


def test_the_driver_is_told_nothing_of_this_machine_or_of_another_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-account")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-another-account")
    with hears() as server:
        by_driver(server.url())
        by_examination(server.url())
        for request in server.requests:
            assert "another-account" not in request and "stainless" not in request.lower()


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("ask", CLIENTS)
def test_no_redirect_is_followed_and_its_target_is_named(ask: Ask, status: int) -> None:
    with hears() as other, hears(status=status, location=f"http://user:pw@localhost:{other.port}/a?q=1") as server:
        line = refusal_of(ask, server.url())
        assert f"answered {status} and wanted the request to go to http://localhost:{other.port}/a" in line
        assert "pw" not in line and "q=1" not in line
        assert other.requests == []


def test_a_redirect_to_https_or_to_nowhere_is_an_error_too() -> None:
    for location, named in (("https://127.0.0.1:1/x", "https://127.0.0.1:1/x"), ("", "did not name")):
        with hears(status=308, location=location) as server:
            for ask in CLIENTS:
                assert named in refusal_of(ask, server.url())


def test_a_server_of_ours_that_redirects_is_not_followed() -> None:
    me = ProcessId.of(os.getpid())
    with hears() as other, hears(status=307, location=other.url()) as server, pytest.raises(OSError, match="307"):
        call(Listener(server.port, me), "/v1/models", KEY, timeout_s=5)
    assert other.requests == []


# --- a server that dies in the middle of work


def thief_of(ours: Ours) -> Any:
    """Whoever binds the port of a server that has died."""
    return hears(port=ours.listener.port)


@pytest.mark.heavy
@table("ask", CLIENTS)
def test_whoever_takes_the_port_of_a_dead_server_is_sent_nothing(ask: Ask) -> None:
    with our_server() as ours:
        assert ask(ours.url, ours.listener) == "ours"
        ours.die()
        with thief_of(ours) as thief:
            assert "is not our server" in refusal_of(ask, ours.url, ours.listener)
            with pytest.raises(SendRefused):
                call(ours.listener, "/v1/models", KEY, timeout_s=5)
            assert thief.requests == [] and thief.connections == 0


@pytest.mark.heavy
@table("ask", CLIENTS)
def test_a_thief_that_comes_between_the_question_and_the_connection_is_sent_nothing(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_early(self: Guard) -> None:
        """What it saw has changed since."""

    monkeypatch.setattr(Guard, "before", lambda self: None)
    monkeypatch.setattr(Guard, "before_async", too_early)
    with our_server() as ours:
        ours.die()
        with thief_of(ours) as thief:
            assert "is not our server" in refusal_of(ask, ours.url, ours.listener)
            with pytest.raises(SendRefused):
                call(ours.listener, "/v1/models", KEY, timeout_s=5)
            assert thief.requests == [] and thief.connections >= 1


def server_of(ours: Ours, folder: Path) -> servers.Server:
    """The record of a server of ours."""
    make_tiny_model(folder / "model")
    (folder / "1.key").write_text(KEY)
    spec = ServerSpec(model_dir=str(folder / "model"), served_name="m")
    return servers.Server(
        "1", spec, ours.listener.port, servers.BENCH, ours.listener.process, folder / "1.json", folder / "log", ""
    )


@pytest.mark.heavy
def test_every_client_of_a_server_on_the_books_knows_whose_it_must_be(tmp_path: Path) -> None:
    """Measuring, scoring, adapters, and what is asked of it between."""

    async def ask(server: servers.Server) -> ChatResponse:
        async with chat_client(server) as chat:
            return await chat.complete(ChatRequest("q", "m", MESSAGES, 8))

    with our_server() as ours:
        server = server_of(ours, tmp_path)
        assert asyncio.run(ask(server)).text == "ours"
        ours.die()
        with thief_of(ours) as thief:
            assert asyncio.run(ask(server)).error
            for work in (
                lambda: asyncio.run(score_prompt(server, "m", [1, 2])),
                lambda: servers.load_adapter(server, "a", tmp_path),
                lambda: servers.template_tokens(server, [{"role": "user", "content": WORDS}]),
            ):
                with pytest.raises(SendRefused):
                    work()
            with loaded_for_nobody(server, tmp_path):
                assert not servers.healthy(server)
            assert thief.requests == []


@contextmanager
def loaded_for_nobody(server: servers.Server, folder: Path) -> Iterator[None]:
    """An adapter of a server that has died is let go of without a word."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "load_adapter", lambda *_: None)
        with loaded_for_a_while(server, "a", folder):
            yield


@pytest.mark.heavy
def test_the_driver_that_was_started_here_is_known_as_ours(tmp_path: Path) -> None:
    home = tmp_path / "home"
    chosen = DriverSettings(model=str(make_tiny_model(tmp_path / "model")))
    driver = Driver(Settings(home=home, vllm=str(FIXTURES / "stub_vllm.py"), driver=chosen))
    try:
        endpoint = driver.ensure()
        (server,) = servers.list_servers(home)
        assert endpoint.listener == server.listener and endpoint.listener.is_ours()
    finally:
        driver.close()
        servers.stop_all(home)


@pytest.mark.heavy
@pytest.mark.parametrize("requests", [1, 20])
def test_connections_that_were_kept_open_lead_to_no_thief_either(requests: int) -> None:
    async def go(ours: Ours) -> tuple[list[ChatResponse], list[str]]:
        after: list[ChatResponse] = []
        batch = [ChatRequest(str(n), "m", MESSAGES, 8) for n in range(requests)]
        async with ChatClient(ours.url, KEY, listener=ours.listener) as chat:
            before: list[ChatResponse] = []
            await chat.complete_many(batch, concurrency=8, on_result=before.append)
            assert {response.text for response in before} == {"ours"}
            ours.die()
            with thief_of(ours) as thief:
                await chat.complete_many(batch, concurrency=8, on_result=after.append)
                return after, thief.requests

    with our_server() as ours:
        after, heard = asyncio.run(go(ours))
    assert heard == [] and len(after) == requests
    assert all(response.error and not response.text for response in after)


def test_the_drivers_kept_connection_leads_to_no_thief_and_the_driver_counts_as_gone() -> None:
    async def go(ours: Ours) -> tuple[Exception, list[str]]:
        model: Any = model_of(Endpoint(f"{ours.url}/v1", "m", KEY, listener=ours.listener))
        await model.client.chat.completions.create(model="m", messages=MESSAGES)
        assert not is_gone(model)
        ours.die()
        with thief_of(ours) as thief:
            assert is_gone(model)
            with pytest.raises((SendRefused, openai.APIConnectionError)) as raised:
                await model.client.chat.completions.create(model="m", messages=MESSAGES)
            await model.client.close()
            return raised.value, thief.requests

    with our_server() as ours:
        error, heard = asyncio.run(go(ours))
    assert heard == [] and "is not our server" in clear_line(error)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_port_that_changes_hands_between_the_question_and_the_connection_is_noticed(accepted: bool) -> None:
    """The other end of the connection itself is looked at, accepted or still waiting to be."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            address = read_address(f"http://127.0.0.1:{port}")
            own = Guard(address, Listener(port, ProcessId.of(os.getpid())))
            other = Guard(address, Listener(port, ProcessId.of(stranger.pid)))
            with socket.create_connection(("127.0.0.1", port)) as connected:
                end = listening.accept()[0] if accepted else None
                own.after(connected)
                with pytest.raises(SendRefused):
                    other.after(connected)
                asyncio.run(own.after_async(connected))
                with pytest.raises(SendRefused):
                    asyncio.run(other.after_async(connected))
                if end:
                    end.close()
        stranger.kill()


def test_a_connection_that_a_stranger_accepted_is_not_ours_once_we_listen_again() -> None:
    ours = Seen(frozenset({"1"}), {5: "9", 6: "1", 7: "0"}, frozenset({"1", "2"}))
    assert ours.is_ours and not ours.is_peer(5) and ours.is_peer(7) and not ours.is_peer(8)
    shared = Seen(frozenset({"1", "3"}), {7: "0"}, frozenset({"1"}))
    assert not shared.is_ours and not shared.is_peer(7), "a stranger listens beside us, and may accept it"


def test_one_look_serves_all_connections_that_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    real = Listener.look

    def counted(self: Listener) -> Seen:
        nonlocal looks
        looks += 1
        return real(self)

    monkeypatch.setattr(Listener, "look", counted)

    async def go(guard: Guard) -> None:
        await asyncio.gather(*(guard.before_async() for _ in range(64)))

    with our_server() as ours:
        asyncio.run(go(Guard(read_address(ours.url), ours.listener)))
    assert looks == 1


def test_a_look_begins_after_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs already may have looked before the connection was there."""
    looks: list[int] = []
    with our_server() as ours:
        guard = Guard(read_address(ours.url), ours.listener)
        started, go_on = asyncio.Event(), threading.Event()

        async def go() -> None:
            loop = asyncio.get_running_loop()

            def slow(self: Listener) -> Seen:
                looks.append(len(looks))
                loop.call_soon_threadsafe(started.set)
                go_on.wait(20)
                return Seen(can_tell=False)

            monkeypatch.setattr(Listener, "look", slow)
            first = asyncio.create_task(guard.before_async())
            await started.wait()
            second = asyncio.create_task(guard.before_async())
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(first, second)

        asyncio.run(go())
    assert len(looks) == 2


# --- keys and addresses


def test_a_name_that_leads_elsewhere_by_the_time_of_the_connection_is_noticed() -> None:
    class Elsewhere:
        def getpeername(self) -> tuple[str, int]:
            return ("192.0.2.7", 80)

        def getsockname(self) -> tuple[str, int]:
            return ("192.0.2.1", 5000)

    with pytest.raises(SendRefused, match=r"192\.0\.2\.7, which is another machine"):
        Guard(read_address("http://localhost:8000")).after(Elsewhere())


def test_a_key_in_clear_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    for make in (
        lambda: ChatClient("http://models.example:8000", KEY, section="judge"),
        lambda: Endpoint("http://models.example:8000/v1", "m", KEY).client(timeout_s=1),
        lambda: model_of(Endpoint("http://models.example:8000/v1", "m", KEY)),
    ):
        with pytest.raises(BadInput, match="allow_plain_http = true") as refused:
            make()
        assert KEY not in str(refused.value)
    ChatClient("http://models.example:8000", KEY, allow_plain_http=True)
    ChatClient("https://models.example", KEY)
    ChatClient("http://models.example:8000", "")


# --- the tree

OPENS = re.compile(
    r"ClientSession\(|TCPConnector\(|OpenAI[()]|HTTPS?Connection\b|HTTPTransport\(|httpx2?\.(?:Async)?Client\(|urlopen"
    r"|build_opener|create_connection\(|\brequests\.(?:get|post|Session)|JobSubmissionClient\)"
)
"""What opens connections in the libraries that are here."""
OPENERS = {
    "tools/serving/connections.py", "tools/serving/local_http.py", "tools/serving/driver_http.py",
    "tools/serving/endpoint.py",  # with a client of `driver_http`
    "tools/pipeline/ray_launcher.py",  # the head that settings.toml names; it follows nobody elsewhere
    "tools/models/hub_client.py",  # the hub alone, whose redirects are followed; `test_hub.py` holds to where
}  # fmt: skip


def test_nothing_else_opens_connections() -> None:
    root = Path(__file__).parents[2]
    sources = [path for folder in ("agent", "tools", "memory", "prompts") for path in (root / folder).rglob("*.py")]
    assert {str(path.relative_to(root)) for path in sources if OPENS.search(path.read_text())} == OPENERS
    tree = ast.parse((root / "tools/serving/endpoint.py").read_text())
    made = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in ("OpenAI", "AsyncOpenAI", "Client")
    ]  # fmt: skip
    assert len(made) == 1 and all(any(word.arg == "http_client" for word in call.keywords) for call in made)

"""An address is read in one way only; a key goes over the network in clear only where settings.toml says so."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.tools.serving.addresses import clear_text_note, read_address, refuse_key_in_clear, visible_address


@table(
    "url",
    [
        "http://127.0.0.1", "http://127.0.0.1:8000/v1", "http://127.255.255.254/", "http://[::1]:1/v1", "http://[0:0::1]",
        "http://[::ffff:127.0.0.1]/v1", "http://localhost:8000", "http://LOCALHOST", "https://127.0.0.1/v1",
    ],
)  # fmt: skip
def test_this_machine(url: str) -> None:
    address = read_address(url)
    assert address.is_loopback and not address.is_in_clear and address.proxy is None
    refuse_key_in_clear(address, "k", allowed=False, section="driver")


@table(
    "url",
    [
        "http://127.0.0.1.evil.com/v1", "http://evil.com/127.0.0.1", "http://localhost.evil.com", "http://localhosts",
        "http://128.0.0.1", "http://10.0.0.1:8000/v1", "http://[::ffff:8.8.8.8]", "http://[::2]", "http://[fe80::1]",
        "http://127-0-0-1.evil.com", "http://my.localhost", "http://0127.evil.com", "http://xn--lcalhost-u4a:1",
    ],
)  # fmt: skip
def test_another_machine_gets_a_key_in_clear_only_where_that_is_allowed(url: str) -> None:
    address = read_address(url)
    assert not address.is_loopback and address.is_in_clear
    with pytest.raises(BadInput, match=r"\[judge\].*use https, or set allow_plain_http = true"):
        refuse_key_in_clear(address, "k", allowed=False, section="judge")
    refuse_key_in_clear(address, "k", allowed=True, section="judge")
    refuse_key_in_clear(address, "", allowed=False, section="judge")
    assert "its key" in clear_text_note(address, "k", "answers") and "its key" not in clear_text_note(address, "", "x")
    https = read_address(url.replace("http://", "https://"))
    refuse_key_in_clear(https, "k", allowed=False, section="judge")
    assert clear_text_note(https, "k", "answers") == ""


@table(
    "url",
    [
        "http://127.0.0.1@evil.com", "http://user:pw@127.0.0.1/v1", "http://evil.com#@127.0.0.1", "http://127.0.0.1\\@evil.com",
        "http://evil.com?@127.0.0.1", "http://127.0.0.1 .evil.com", "http://127.0.0.1\n.evil.com", "http://%31%32%37.0.0.1",
        "http://１２７.0.0.1", "http://127。0。0。1", "http://ⓛocalhost", "http://2130706433", "http://0x7f.0.0.1",
        "http://0x7f000001", "http://0177.0.0.1", "http://127.1", "http://127.0.1", "http://0", "http://127.0.0.1.",
        "http://localhost.", "http://127.0.0.256", "http://1.2.3.4.5", "http://[::1", "http://[::1%25lo]", "http://[1.2.3.4]",
        "http://::1", "http://0.0.0.0:8000", "http://[::]:8000", "http://127.0.0.1:0", "http://127.0.0.1:65536",
        "http://127.0.0.1:80:81", "http://", "http:///v1", "ftp://127.0.0.1", "127.0.0.1:8000", "http:127.0.0.1",
        "http://user:pw\nx@127.0.0.1", "http://user:pw/@127.0.0.1",
        "http://-evil.com", "http://a..b", "http://127.0.0.1/v1?key=x", "//127.0.0.1", "",
    ],
)  # fmt: skip
def test_what_two_programs_might_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_address(url)
    assert len(str(refused.value)) < 300 and "pw" not in str(refused.value)


def test_localhost_is_this_machine_only_where_it_leads_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(*found: str) -> bool:
        answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answer)
        return read_address("http://localhost:80").is_loopback

    assert resolved("127.0.0.1", "::1")
    assert not resolved("127.0.0.1", "10.0.0.9") and not resolved()

    def fails(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert not read_address("http://localhost:80").is_loopback


def test_where_a_redirect_leads_is_shown_without_its_secrets() -> None:
    assert visible_address("https://u:secret@h.example:1/a?token=secret#x") == "https://h.example:1/a"
    assert "\x1b" not in visible_address("http://h/\x1b[2J") and len(visible_address("http://" + "a" * 900)) < 200

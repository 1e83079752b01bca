"""Where requests are sent: an address that can be read in one way only, whether it is this machine, and through which
proxy it is reached.

Two programs that disagree about which host an address names would check one and send the key to the other, so what is
unusual is refused: user names, encoded or non-ASCII hosts, numbers that are no dotted quad, trailing dots, queries.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import clip

_ADDRESS = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?((?:/[A-Za-z0-9._~+:,=-]*)*)", re.ASCII
)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_PORTS = {"http": 80, "https": 443}
_VISIBLE_CHARS = 80
"""Of an address in a sentence: it is typed by hand, or pasted with whatever stood around it."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address that was read strictly."""

    url: str
    """As it was given, without a slash at its end."""
    scheme: str
    host: str
    """In lower case, an IPv6 address without its brackets."""
    port: int
    is_loopback: bool
    """Whether only this machine is behind it, whatever the network is."""

    @property
    def place(self) -> str:
        """Host and port, to be shown and recorded: nothing secret is in it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_in_clear(self) -> bool:
        """Whether everybody on the way reads what is sent there."""
        return self.scheme == "http" and not self.is_loopback

    @property
    def proxy(self) -> str | None:
        """The user's proxy on the way there, its password included; None for this machine. Raises BadInput.

        Asked for at the time of use: the environment says it, as for every other program.
        """
        if self.is_loopback or proxy_bypass(self.place) or proxy_bypass(self.host):
            return None
        proxies = getproxies()
        named = proxies.get(self.scheme) or proxies.get("all")
        if not named:
            return None
        proxy = named if "://" in named else f"http://{named}"
        if not proxy.startswith(("http://", "https://")):
            scheme = clip(proxy.partition("://")[0], 20)
            raise BadInput(
                f"{self.place} would be reached through a {scheme} proxy, which is not spoken here; set "
                f"{self.scheme.upper()}_PROXY to an http proxy, or NO_PROXY={self.host}"
            )
        return proxy

    @property
    def proxy_place(self) -> str:
        """The proxy's host and port, without its password; empty where there is none. Raises BadInput."""
        proxy = urlsplit(self.proxy or "")
        return f"{proxy.hostname or ''}:{proxy.port or _PORTS.get(proxy.scheme, 80)}" if proxy.scheme else ""


def read_address(url: str, what: str = "the address") -> Address:
    """Read the address of an endpoint; `what` names it in an error. Raises BadInput."""
    match = _ADDRESS.fullmatch(url.rstrip("/"))
    if match is None:
        raise BadInput(f"{what} {_without_password(url)} cannot be used; {_why(url)}")
    scheme, named, port, _ = match.groups()
    number = int(port) if port else _PORTS[scheme]
    if not 0 < number < 65536:
        raise BadInput(f"{what} {_without_password(url)} names port {number}; ports go from 1 to 65535")
    host = named.strip("[]").lower()
    ip = _ip_address(host, named.startswith("["), what, url)
    loopback = is_loopback_ip(ip) if ip else host == "localhost" and _leads_home(host, number)
    return Address(url.rstrip("/"), scheme, host, number, loopback)


def is_loopback_ip(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is this machine: 127.0.0.0/8 and ::1, the former also in its IPv6 form."""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


def refuse_key_in_clear(address: Address, key: str, *, allowed: bool, section: str) -> None:
    """Raises BadInput where a key would cross the network in clear and settings.toml does not allow that."""
    if key and address.is_in_clear and not allowed:
        raise BadInput(
            f"settings.toml, [{section}]: the key would go to {address.place} over plain http, where everybody on the "
            "way can read it; use https, or set allow_plain_http = true there"
        )


def clear_text_note(address: Address, key: str, what: str) -> str:
    """What a plan says of an endpoint that is reached in clear; empty where it is not."""
    if not address.is_in_clear:
        return ""
    with_key = " and its key" if key else ""
    return f"{what}{with_key} go to {address.place} over plain http: everybody on the way there can read them"


def visible_address(url: str) -> str:
    """Any address, to be shown: without user names, queries and what hides."""
    return clip(re.sub(r"//[^/@]*@", "//", url.partition("?")[0].partition("#")[0]), _VISIBLE_CHARS)


def _without_password(url: str) -> str:
    """Without what may be a password."""
    return repr(clip(re.sub(r"(?s)//.*@", "//…@", url), _VISIBLE_CHARS))


def _why(url: str) -> str:
    if "@" in url:
        return "a user name or password does not belong into an address: name the key in settings.toml instead"
    return "write http:// or https://, a host, and where needed a port and a path, such as http://127.0.0.1:8000/v1"


def _ip_address(
    host: str, bracketed: bool, what: str, url: str
) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The host where it is a number; None for a name. Raises BadInput for a number in an unusual form."""
    labels = host.split(".")
    if not all(labels) or any(label.startswith("-") for label in labels):
        raise BadInput(f"{what} {_without_password(url)} names no host; leave a dot at its end out")
    if not bracketed and not _NUMBER.fullmatch(labels[-1]):
        return None
    try:
        ip = ipaddress.IPv6Address(host) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        raise BadInput(
            f"{what} {_without_password(url)} names no host; write numbers as four, such as 127.0.0.1"
        ) from None
    if ip.is_unspecified:
        raise BadInput(
            f"{what} {_without_password(url)} names every address of this machine; write 127.0.0.1 or one of them"
        )
    return ip


def _leads_home(host: str, port: int) -> bool:
    """Whether a name leads to this machine alone; connections look at their other end once more."""
    with contextlib.suppress(OSError, ValueError):
        addresses = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        return bool(addresses) and all(
            is_loopback_ip(ipaddress.ip_address(str(ip).partition("%")[0])) for ip in addresses
        )
    return False

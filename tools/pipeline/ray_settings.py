"""What settings.toml may say about another machine; light, since every start of tunesmith reads it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.local_paths import expanded
from tunesmith.tools.core.plain_file import read_key
from tunesmith.tools.serving.addresses import Address, read_address, refuse_key_in_clear

RAY = "ray"
"""What a step's field `on` says to be carried out there."""
_SECTION = "settings.toml, [ray]"


class RaySettings(BaseModel, frozen=True, extra="forbid"):
    """`[ray]` in HOME/settings.toml: the head of a Ray cluster, on which steps with `on: ray` are carried out."""

    address: str = ""
    """Of the head's dashboard, such as 10.0.0.2:8265 or https://ray.example.org."""
    token_file: str = ""
    """File that holds the cluster's token (RAY_AUTH_MODE=token there) and that only you can read, absolute or relative
    to HOME."""
    storage: str = ""
    """A folder or an fsspec URL that both sides see: what a step works on goes there, what it made comes back."""
    python: str = "python"
    """The interpreter of tunesmith's environment there, such as /srv/tunesmith/.venv/bin/python."""
    folder: str = "~/.local/share/tunesmith-guest"
    """A folder there for what was fetched and for steps at work."""
    allow_plain_http: bool = False
    """Whether the token may go to another machine over plain http, where everybody on the way reads it."""
    overridden_by: str = ""
    """A variable of the environment by which Ray's client would go elsewhere; found, never written in the file."""

    def head(self) -> Address:
        """The head's address. Raises BadInput where it, or what goes with it, cannot be used; nothing is asked."""
        if not self.address:
            raise BadInput(f"{_SECTION}: no address, so no step can be carried out there; docs/another-machine.md")
        url = self.address if "://" in self.address else f"http://{self.address}"
        address = read_address(url, f"{_SECTION}: address")
        if not self.token_file:
            raise BadInput(
                f"{_SECTION}: {address.place} has no token_file; who reaches a head without a token runs programs on "
                "it: start it with RAY_AUTH_MODE=token, and name the file that holds the token"
            )
        if not self.storage:
            raise BadInput(f"{_SECTION}: no storage; name a folder or an fsspec URL that {address.place} sees too")
        refuse_key_in_clear(address, self.token_file, allowed=self.allow_plain_http, section="ray")
        if self.overridden_by:
            raise BadInput(f"{self.overridden_by} is set, and Ray's client would go there instead; unset it")
        return address

    def token(self, home: Path) -> str:
        """The cluster's token. Raises BadInput where its file cannot be read, is open to others, or holds none."""
        return read_key(home / expanded(self.token_file), "ray", "token_file")

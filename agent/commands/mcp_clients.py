"""`tunesmith mcp`: serve another agent, or make the tools known to one that is installed here."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.store import Store

_NAME = "tunesmith"
_ADDERS = {
    "claude-code": ("claude", ("mcp", "add", "--scope", "user"), "-e"),
    "codex": ("codex", ("mcp", "add"), "--env"),
}
"""Agents that keep their own list of servers: their program, how it adds one, and its option for a variable."""
_MOST_BYTES = 4 << 20
"""A client's settings are some kilobytes; what is longer is cut off, and then no JSON."""
_ADD_S = 60
"""A client that starts Node, or asks its user something, takes seconds; one that waits for ever is ended."""


def mcp(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`mcp` serves on stdin and stdout; `mcp add CLIENT` names this program to an agent."""
    if args.action == "add":
        return _add(args.client, settings.home, out, dry_run=args.dry_run)
    try:
        from tunesmith.agent import mcp as tools
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "mcp_types"):  # a module of ours that is missing is a defect
            raise
        raise BadInput("`tunesmith mcp` needs the package `mcp`: pip install 'tunesmith[mcp]'") from None
    return tools.serve(settings, store)


def _add(client: str, home: Path, out: Output, *, dry_run: bool) -> int:
    command = [str(Path(sys.argv[0]).resolve()), "mcp"]
    if client not in _ADDERS:
        return _add_to_cursor(command, home, out, dry_run=dry_run)
    program, words, variable = _ADDERS[client]
    line = [program, *words, _NAME, variable, f"TUNESMITH_HOME={home}", "--", *command]
    if dry_run:
        out.document({"would_run": line}, f"would run: {shlex.join(line)}")
        return 0
    if shutil.which(program) is None:
        raise BadInput(f"`{program}` is not on the PATH; where it is, run: {shlex.join(line)}")
    # In a folder of ours: a client reads settings, and may start programs, of the folder that it is in.
    done = subprocess.run(line, capture_output=True, text=True, timeout=_ADD_S, check=False, cwd=home)
    if done.returncode:
        raise StepFailed(f"{program} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    out.document({"added": client}, f"{client} knows tunesmith now; `{program} mcp list` shows it")
    return 0


def _add_to_cursor(command: list[str], home: Path, out: Output, *, dry_run: bool) -> int:
    path = Path("~/.cursor/mcp.json").expanduser()
    known = _config(path)
    server = {"command": command[0], "args": command[1:], "env": {"TUNESMITH_HOME": str(home)}}
    servers = known.get("mcpServers", {})
    if not isinstance(servers, dict):
        raise BadInput(f"{path}: `mcpServers` is no object; mend it, and give the command again")
    text = json.dumps({**known, "mcpServers": {**servers, _NAME: server}}, indent=2, ensure_ascii=False) + "\n"
    if dry_run:
        out.document({"would_write": str(path), "content": text}, f"would write {path}:\n{text}")
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text, mode=0o600)  # it may hold the keys of other servers
    out.document({"added": "cursor", "path": str(path)}, f"cursor knows tunesmith now: {path}")
    return 0


def _config(path: Path) -> dict[str, object]:
    """What the file holds, which is the user's own and kept. Raises BadInput where it is no JSON object."""
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file:
            known = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError) as error:  # no rights to it, or no JSON
        raise BadInput(f"{path} cannot be read as JSON ({error}); nothing was changed") from None
    if not isinstance(known, dict):
        raise BadInput(f"{path} holds no JSON object; nothing was changed")
    return known

"""A deployment that comes back after a boot by itself, where systemd keeps this user's services.

The unit is one for each home, and says nothing of what is deployed: `at_boot` looks that up. It is enabled with a
deployment and goes with the last one. Where there is no `systemd --user`, the next start of tunesmith brings a
deployment back instead. Not covered: before this user's first login it starts only with `loginctl enable-linger`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tunesmith.memory.files import atomic_write
from tunesmith.tools.machine.processes import python_module
from tunesmith.tools.serving.restarts import GAVE_UP

_RUNTIME = Path("/run/user")
_WAIT_S = 20.0  # systemd answers at once, or not at all: a deployment does not wait for it
_UNIT = """\
[Unit]
Description=tunesmith: the model that is deployed from {home}
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=exec
ExecStart={command}
WorkingDirectory={folder}
# The supervisor restarts vLLM itself: this is for a supervisor that died.
Restart=on-failure
RestartSec=10
RestartPreventExitStatus={gave_up}
# More than the supervisor gives vLLM.
TimeoutStopSec=30

[Install]
WantedBy=default.target
"""


def unit_file(home: Path) -> Path:
    """Where a home's unit lies; its name tells it from those of other homes."""
    return home / "servers" / f"tunesmith-{hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]}.service"


def unit_text(home: Path) -> str:
    """The unit of a home."""
    command = python_module("tunesmith.tools.serving.at_boot", str(home.resolve()))
    folder = _escaped(str(home.resolve() / "servers"))
    words = " ".join(f'"{_quoted(word)}"' for word in command)
    return _UNIT.format(home=_escaped(str(home.resolve())), command=words, folder=folder, gave_up=GAVE_UP)


def enable(home: Path) -> bool:
    """Have systemd start what is deployed at the user's next login or boot; False where it does not do that here."""
    if not _manages_services() or not str(home.resolve()).isprintable():
        return False
    atomic_write(unit_file(home), unit_text(home))
    return _systemctl("enable", str(unit_file(home).resolve()))


def disable(home: Path) -> None:
    """Take the unit back; what runs is left alone."""
    if unit_file(home).exists():
        _systemctl("disable", unit_file(home).name)
        unit_file(home).unlink(missing_ok=True)


def how_it_comes_back(home: Path) -> str:
    """When a deployment answers again, at the same address and with the same key."""
    if unit_file(home).exists():
        boot = "after a boot with your login (`loginctl enable-linger` for before it)"
    else:
        boot = "after a boot when tunesmith is started"
    return f"after a crash by itself, {boot}; until `tunesmith serve stop`"


def _manages_services() -> bool:
    return shutil.which("systemctl") is not None and (_RUNTIME / str(os.getuid()) / "systemd").is_dir()


def _systemctl(*words: str) -> bool:
    command = ["systemctl", "--user", *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_WAIT_S, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired):  # it does not come back by itself then; the deployment stands
        return False
    return done.returncode == 0


def _escaped(text: str) -> str:
    return text.replace("%", "%%")  # systemd fills in what stands behind a single one


def _quoted(word: str) -> str:
    """A word between double quotes, as systemd reads a command line."""
    return _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")

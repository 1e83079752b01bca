"""tunesmith as a real process, and a real terminal to type into."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

COMMAND = [sys.executable, "-m", "tunesmith.agent"]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07|\r")


@dataclass
class Tunesmith:
    """Runs commands in one home, without a terminal."""

    home: Path

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "TUNESMITH_HOME": str(self.home), "TERM": "xterm-256color"}

    def __call__(self, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *args],
            env=self.env | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def json(self, *args: str) -> Any:
        """The one document that a command prints with --json."""
        done = self(*args, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


class Terminal:
    """A process on a pseudo-terminal: what it shows is read all the time, and its cursor queries are answered."""

    def __init__(self, argv: list[str], env: dict[str, str], *, size: tuple[int, int] | None = None) -> None:
        """`size`: lines and columns; without one the terminal does not know its own."""
        self.begun, self.env = time.monotonic(), env
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets what it starts in the background ignore it
            os.execve(argv[0], argv, env)
        if size:
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.raw = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._fd, 65536)
            except OSError:
                return
            if not piece:
                return
            self.raw += piece
            if b"\x1b[6n" in piece:
                os.write(self._fd, b"\x1b[1;1R")

    @property
    def text(self) -> str:
        """Everything shown so far, without escape sequences."""
        return _ESCAPES.sub("", self.raw.decode(errors="replace"))

    def expect(self, text: str, *, timeout_s: float = 30, after: int = 0) -> float:
        """Wait until `text` was shown (behind character `after`); the seconds since the process began."""
        deadline = time.monotonic() + timeout_s
        while text not in self.text[after:]:
            if time.monotonic() > deadline:
                raise AssertionError(f"{text!r} was not shown in {timeout_s} s; the last was: {self.text[-2000:]}")
            time.sleep(0.005)
        return time.monotonic() - self.begun

    def wait(self, done: Callable[[], Any], *, timeout_s: float) -> Any:
        """Wait until `done` gives something true, and return it."""
        deadline = time.monotonic() + timeout_s
        while not (found := done()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s; the last was: {self.text[-2000:]}")
            time.sleep(0.1)
        return found

    def type(self, text: str) -> int:
        """Type; the place in `text` from which the answer comes."""
        place = len(self.text)
        os.write(self._fd, text.encode())
        return place

    def line(self, text: str) -> int:
        """Type a line and Enter."""
        return self.type(text + "\r")

    def at_prompt(self, *, timeout_s: float = 10) -> None:
        """Wait until a prompt reads the keys: the terminal makes no signal of Ctrl-C any more."""
        self.wait(lambda: not termios.tcgetattr(self._fd)[3] & termios.ISIG, timeout_s=timeout_s)

    def processor_seconds(self) -> float:
        """Processor time that the process has used so far."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def end(self, timeout_s: float = 20) -> int:
        """Wait for the process to leave; its exit code."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._reader.join(timeout=2)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        raise AssertionError(f"it did not leave; the last was: {self.text[-2000:]}")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            self.kill()

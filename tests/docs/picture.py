"""The README's picture: a real terminal over a home with a finished run, as SVG.

`make picture PICTURE_HOME=HOME` types the lines below into the REPL in tmux and draws what the screen shows. Nothing is
drawn by hand, so the picture is made anew when the screen changes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "terminal.svg"
COLUMNS, LINES = 96, 42
TYPED = (("compare", "next:"), ("/train lora_rank=8", "Start?"))
"""Lines, and what their answers end with. The last one is a price, which stays without an answer."""
_QUIET_S, _MOST_S = 2.0, 90.0


def screen(home: Path) -> str:
    """What the terminal shows after all lines were typed, with its colours."""
    session = f"tunesmith-picture-{os.getpid()}"
    tmux = ("tmux", "-L", session)
    env = {**os.environ, "TUNESMITH_HOME": str(home), "TERM": "xterm-256color"}
    program = str(ROOT / ".venv" / "bin" / "tunesmith")
    size = ("-x", str(COLUMNS), "-y", str(LINES))
    subprocess.run([*tmux, "new-session", "-d", *size, program], env=env, check=True, cwd=home)
    try:
        settled(tmux, "try ")
        for line, end in TYPED:
            subprocess.run([*tmux, "send-keys", "-l", line], check=True)
            subprocess.run([*tmux, "send-keys", "Enter"], check=True)
            settled(tmux, end)
        return captured(tmux)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def settled(tmux: tuple[str, ...], end: str) -> None:
    """Wait until the screen holds what an answer ends with, and has not changed for a while."""
    before, since, begun = "", time.monotonic(), time.monotonic()
    while (end not in before or time.monotonic() - since < _QUIET_S) and time.monotonic() - begun < _MOST_S:
        time.sleep(0.2)
        if (now := captured(tmux)) != before:
            before, since = now, time.monotonic()


def captured(tmux: tuple[str, ...]) -> str:
    """The screen as it is, with escape sequences for its colours."""
    done = subprocess.run([*tmux, "capture-pane", "-p", "-e"], capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    """Draw the picture of the home that is named."""
    home = Path(sys.argv[1]).resolve()
    if not (home / "tunesmith.db").is_file():
        sys.exit(f"{home} is no home with a run; `TUNESMITH_HOME={home} make demo` makes one")
    lines = [line for line in screen(home).splitlines() if Text.from_ansi(line).plain.strip()]
    console = Console(width=COLUMNS, record=True, file=io.StringIO())
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    PICTURE.write_text(console.export_svg(title="tunesmith", theme=MONOKAI))
    print(f"{PICTURE} shows {len(lines)} lines")


if __name__ == "__main__":
    main()

"""How soon things are ready, in processor time: the prompt, the agent, short commands, a set-up that is done, rates.

Processor time is what the clock shows on a machine that does nothing else. Goals, for the least of five: 0.2 s to the
prompt, 2 s more to an agent with all its tools, 0.1 s for help and version, 1 s to say that no card is here and for a
second run of the set-up; 20 s to measure a processor.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.fixtures.terminal import COMMAND, Terminal
from tunesmith.tools.machine import bootstrap

TRIES = 5
_AGENT = """
import os, time
import tunesmith.agent.repl.repl
began = time.process_time()
from tunesmith.agent.repl.shell import Shell
shell = Shell.open(wake=lambda: None)
shell.begin()
shell.talk.chat()._agent
print(time.process_time() - began, flush=True)
os._exit(0)
"""
_RATES = """
import tempfile, time
from pathlib import Path
from tunesmith.tools.machine.probe_job import measure_rates
began = time.monotonic()
with tempfile.TemporaryDirectory() as folder:
    measure_rates(Path(folder))
print(time.monotonic() - began)
"""


def prompt_s(env: dict[str, str]) -> float:
    """Of a REPL with all its imports, to its prompt."""
    repl = Terminal((), env, cold=True)
    repl.expect("tunesmith ❯")
    times = psutil.Process(repl.pid).cpu_times()
    repl.close()
    return float(times.user + times.system)


def said_by(script: str, env: dict[str, str]) -> float:
    """The seconds that a script prints."""
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout)


def set_up_s() -> float:
    """Of a set-up that finds both environments made."""
    before = os.times()
    subprocess.run([sys.executable, "-I", str(bootstrap.__file__)], check=True)
    return sum(os.times()[2:4]) - sum(before[2:4])


def command_s(env: dict[str, str], *words: str) -> float:
    """Of a command from its start to its end."""
    before = os.times()
    subprocess.run([*COMMAND, *words], env=env, capture_output=True, check=False)
    return sum(os.times()[2:4]) - sum(before[2:4])


def told(what: str, goal_s: float, measure: Callable[[], float], tries: int = TRIES) -> bool:
    """Measure, print least and median, and whether the least is within its goal."""
    found = [measure() for _ in range(tries)]
    good = min(found) <= goal_s
    line = f"{what}: {min(found):.2f} s, median {statistics.median(found):.2f}, of {goal_s:g}"
    print(f"{'ok  ' if good else 'MISS'} {line}")
    return good


def main() -> int:
    """Print the figures; 1 where one misses its goal."""
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "TUNESMITH_HOME": home, "TERM": "xterm-256color"}
        good = told("the prompt", 0.2, lambda: prompt_s(env))
        for words, goal_s in ((("--help",), 0.1), (("--version",), 0.1), (("doctor", "--gpu"), 1.0)):
            good &= told(f"tunesmith {' '.join(words)}", goal_s, partial(command_s, env, *words))
        good &= told("the agent, after the prompt", 2.0, lambda: said_by(_AGENT, env))
        good &= told("a second run of the set-up", 1.0, set_up_s)
        good &= told("a processor's rates (by the clock)", 20.0, lambda: said_by(_RATES, env), tries=1)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""One question in a process of its own: a JSON request on stdin, a JSON answer on stdout, and it can be killed.

SQLite looks at a deadline only between two of its steps, and one LIKE or replace can take minutes and gigabytes. The
kernel's limits on processor time and memory hold within a step, too.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.memory.questions import DEADLINE_S, MAX_ROWS, Answer, ask_sql

_MEMORY_BYTES = 192 << 20
"""Address space of the whole process; Python and SQLite take about 40 MB of it."""
_GRACE_S = 0.3
"""For SQLite to find by itself that its time is up, and to say so."""
_START_S = 20.0
"""Starting Python may take long on a busy machine; it is not the question's fault."""


def ask_in_process(
    path: Path,
    sql: str,
    *,
    max_rows: int = MAX_ROWS,
    deadline_s: float = DEADLINE_S,
    only: Collection[str] | None = None,
) -> Answer:
    """As `ask_sql`, bounded within every step of SQLite as well. Raises BadInput."""
    request = {"path": str(path), "sql": sql, "max_rows": max_rows, "deadline_s": deadline_s, "only": only and [*only]}
    command = [sys.executable, "-P", "-m", "tunesmith.memory.question_process"]
    pipe = subprocess.PIPE
    text = json.dumps(request)  # a lone surrogate stays an escape
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd="/", text=True) as child:
        try:
            output, _ = child.communicate(text, timeout=deadline_s + _START_S)
        except subprocess.TimeoutExpired:
            output = ""
        finally:
            child.kill()
    if not output:
        raise BadInput(
            f"the question took more than {deadline_s:g} s or {_MEMORY_BYTES >> 20} MB; narrow it, or add LIMIT"
        )
    answer = json.loads(output)
    if "refused" in answer:
        raise BadInput(answer["refused"])
    return Answer(tuple(answer["columns"]), tuple(tuple(row) for row in answer["rows"]), answer["truncated"])


def main() -> None:
    """Answer the one request."""
    request = json.load(sys.stdin)
    _limit(request["deadline_s"])
    try:
        answer = ask_sql(
            Path(request["path"]),
            request["sql"],
            max_rows=request["max_rows"],
            deadline_s=request["deadline_s"],
            only=request["only"],
        )
        document = {"columns": answer.columns, "rows": answer.rows, "truncated": answer.truncated}
    except BadInput as error:
        document = {"refused": str(error)}
    except MemoryError:
        return  # an empty answer says so
    json.dump(document, sys.stdout)


def _limit(deadline_s: float) -> None:
    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    # In parts of a second, and with the signal's own effect, which is to end the process at once.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, deadline_s + _GRACE_S)
    cpu_s = int(used_s + deadline_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()

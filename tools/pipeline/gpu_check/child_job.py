"""One task of the check, in a process of its own: `python -m …gpu_check.child_job DIR MODULE:FUNCTION`.

It reads the check from DIR and adds a line to a file there for each finding, as it finds it: what was told is kept,
however the process ends.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.privacy import keep_private
from tunesmith.tools.machine.processes import end_with_parent
from tunesmith.tools.pipeline.gpu_check.check import FILE, FINDINGS, Check
from tunesmith.tools.pipeline.gpu_check.findings import Finding

ERROR = "error.txt"
"""Why a task came to no end, in one line, beside what it told."""
Work = Callable[[Check], Iterable[Finding]]


def main() -> int:
    """Carry out one task; 0 where it came to its end, else 1 with the reason in `ERROR`."""
    folder, named = Path(sys.argv[1]), sys.argv[2]
    keep_private()
    end_with_parent()
    check = Check.model_validate_json((folder / FILE).read_bytes())
    try:
        tell(work_of(named)(check), folder / FINDINGS)
    except Exception as error:
        traceback.print_exc()
        kind = "" if isinstance(error, TunesmithError) else f"{type(error).__name__}: "
        (folder / ERROR).write_text(f"{kind}{' '.join(str(error).split())}"[:600])
        return 1
    return 0


def work_of(named: str) -> Work:
    """The function that `module:function` names."""
    module, _, function = named.partition(":")
    work: Work = getattr(import_module(module), function)
    return work


def tell(findings: Iterable[Finding], file: Path) -> None:
    """Append each finding, with the seconds that it took, as soon as it is there."""
    began = time.monotonic()
    with file.open("a", encoding="utf-8") as lines:
        for finding in findings:
            now = time.monotonic()
            timed = finding.model_copy(update={"seconds": round(now - began, 3)})
            lines.write(timed.model_dump_json() + "\n")
            lines.flush()
            began = now


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a model is taken apart by the kernel, in no time

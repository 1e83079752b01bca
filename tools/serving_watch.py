"""The parent of a vLLM server: `python -m tunesmith.tools.serving_watch RECORD.json`.

A server outlives the step that started it, since the next step often wants the same one. So that none is forgotten
when every other process of ours was killed, its parent ends it once its lease has run out. It dies with its parent,
and the parent with it. Standard library only: it sits beside the server for as long as that runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_POLL_S = 1.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Start the server that the record describes, and wait for its end or for the end of its lease."""
    record_path = Path(sys.argv[1])
    record = json.loads(record_path.read_text())
    os.environ.update(record["env"])
    os.environ["VLLM_API_KEY"] = record_path.with_suffix(".key").read_text()
    child = subprocess.Popen([record["program"], *record["argv"]], preexec_fn=_die_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    lease = record_path.with_suffix(".lease")
    while (code := child.poll()) is None:
        time.sleep(_POLL_S)
        if _expired(record_path, lease):
            print("tunesmith: the lease of this server ran out", flush=True)
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(20)
            child.kill()
    return code


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _expired(record_path: Path, lease: Path) -> bool:
    try:
        record = json.loads(record_path.read_text())
        idle_s = time.time() - lease.stat().st_mtime
        return record["role"] != "deployed" and idle_s > float(record["lease_s"])
    except FileNotFoundError:
        return True  # somebody took the server off the books
    except ValueError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())

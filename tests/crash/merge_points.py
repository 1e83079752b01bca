"""A process that merges in children of its own and kills them: `python -m tests.crash.merge_points BASE ADAPTER OUT N`.

A point is a file call below OUT, or a tensor being written. The first child is left alone and counts them; each of N
more is killed at another one, evenly spread, and a last one goes on in what it left. Children are forks that have torch
loaded, so that a point costs milliseconds. Prints, as JSON, the digest of the first one's folder and of each after it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

FILE_CALLS = ("open", "os.rename", "os.remove", "shutil.copyfile")


def in_child(work: Callable[[], None]) -> int:
    """The wait status of a fork that did some work."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def digest(folder: Path) -> str:
    """Of every file's name and bytes."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def main(base: Path, adapter: Path, out: Path, kills: int) -> None:
    import torch

    from tunesmith.tools.export.merge_job import merge_adapter
    from tunesmith.tools.models.tensor_file import TensorFileWriter

    torch.set_num_threads(1)  # a fork has no threads but its own
    reached = mmap.mmap(-1, 8)

    def merge(kill_at: int) -> None:
        count = 0

        def look(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event == "tensor" or (event in FILE_CALLS and str(arguments[0]).startswith(str(out.parent))):
                count += 1
                reached[:8] = count.to_bytes(8, "little")
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        write = TensorFileWriter.write

        def noted(writer: TensorFileWriter, name: str, data: memoryview | bytes) -> None:
            write(writer, name, data)
            writer._file.flush()
            sys.audit("tensor")

        sys.addaudithook(look)
        TensorFileWriter.write = noted  # type: ignore[method-assign]
        merge_adapter(base, adapter, out, lambda *_: None)

    assert in_child(lambda: merge(0)) == 0
    points, digests = int.from_bytes(reached[:8], "little"), [digest(out)]
    for number in range(kills):
        shutil.rmtree(out.parent)
        out.parent.mkdir()
        status = in_child(lambda at=1 + number * (points - 1) // (kills - 1): merge(at))  # type: ignore[misc]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert in_child(lambda: merge(0)) == 0
        digests.append(digest(out))
    print(json.dumps({"points": points, "digests": digests}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))

"""How much memory this process may still take: what the machine has, and what its control group allows.

A container's limit is not in what psutil reports; the kernel ends whoever exceeds it all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from tunesmith.tools.machine.control_groups import GROUPS, PROC, own_groups

RESERVE_BYTES = 256 << 20
"""Below it the kernel's killer is near: better to stop with a reason."""
# File of the limit, of what is used, and the lines of memory.stat that can be taken back; version 2, then version 1.
_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))


def memory_left_bytes() -> int:
    """RAM and swap that are free, or what is left of the control group's limit where that is less."""
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    return min(free, group_left_bytes(default=free))


def group_left_bytes(*, default: int, proc: Path = PROC, groups: Path = GROUPS) -> int:
    """What the tightest of this process's control groups still allows; `default` where none has a limit."""
    return max(0, min([default, *(left for _, left in _limits(proc, groups))]))


def group_limit_bytes(*, default: int, proc: Path = PROC, groups: Path = GROUPS) -> int:
    """What the tightest of them allows in all; `default` as above."""
    return min([default, *(allowed for allowed, _ in _limits(proc, groups))])


def _limits(proc: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """Of each group with a limit, what it allows, and what is left of that."""
    for folder, second in own_groups("memory", proc, groups):
        limit, usage, reclaimable = _V2 if second else _V1
        try:
            allowed, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # not of this kernel, or gone: the other limits count
            continue
        if allowed.isdigit():
            yield int(allowed), int(allowed) - used + sum(int(stat.get(name, 0)) for name in reclaimable)


def stalled_percent(proc: Path = PROC) -> float:
    """Share of the last ten seconds in which everything waited for memory; 0.0 where the kernel does not measure it.

    That is "full avg10" of Linux's pressure stall information: a machine that swaps more than it works has 50 and more.
    """
    try:
        match = re.search(r"^full avg10=([\d.]+)", (proc / "pressure" / "memory").read_text(), re.MULTILINE)
    except OSError:  # a kernel that was built without PSI
        return 0.0
    return float(match[1]) if match else 0.0

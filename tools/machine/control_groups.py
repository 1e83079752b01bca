"""The control groups that this process belongs to, as a container's are, and how much of the cores they allow it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def own_groups(controller: str, proc: Path = PROC, groups: Path = GROUPS) -> Iterator[tuple[Path, bool]]:
    """The folders of this process's groups under a controller, its own first, then up to the root; and whether each is
    one of version 2, whose files have other names."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:  # no Linux, or no /proc
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 1 mounts controllers that go together in one folder, with a link for each of their names.
        root = groups / controller if controllers else groups
        own = root / path.strip("/")
        yield from ((folder, not controllers) for folder in (own, *own.parents) if folder.is_relative_to(root))


def cores_allowed(proc: Path = PROC, groups: Path = GROUPS) -> float | None:
    """How many cores' worth of time the tightest of this process's groups allows it; None where none has a limit.

    A thread that used up its group's share of a period sleeps until the next one: no count of cores shows that.
    """
    allowed: list[float] = []
    for folder, second in own_groups("cpu", proc, groups):
        try:
            if second:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except (OSError, ValueError):  # the file is not there: no limit is set
            continue
        if quota.isdigit() and int(period) > 0:  # else "max", or -1
            allowed.append(int(quota) / int(period))
    return min(allowed, default=None)

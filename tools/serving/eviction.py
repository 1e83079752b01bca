"""Memory that comes back: what servers of ours hold that leave a step which needs it, or are adopted by it.

Those are the measuring servers that wait for the next step, and the driver.

Without this a server that waits for the next step would be priced against that very step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.machine.gpus import process_bytes, usable
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.machine.processes import tree_own_bytes, tree_pids
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.servers import BENCH, DRIVER, Server

_BESIDE = 1.25
"""A peak may pass its estimate by a seventh: only what is free beyond that lets a server stay beside other work."""


def machine_for_a_step(home: Path) -> Machine:
    """The machine as the next step finds it: the memory of measuring servers and of the driver counts as free."""
    running = [server for server in servers.list_servers(home) if server.role in (BENCH, DRIVER)]
    return without(measure_machine(home), running)


def machine_beside_the_driver(home: Path) -> Machine:
    """The same with the driver staying where it is."""
    return without(measure_machine(home), servers.list_servers(home, role=BENCH))


def as_found(home: Path, machine: Machine, *, replaces_deployed: bool) -> Machine:
    """That machine as a step finds it: what is deployed holds no memory where it gives way to the step."""
    return without(machine, servers.deployed(home)) if replaces_deployed else machine


def without(machine: Machine, servers: Sequence[Server]) -> Machine:
    """The machine as if these servers had ended, by what they hold now; one that is down holds nothing."""
    servers = [server for server in servers if server.runs]
    if not servers:
        return machine
    ram_bytes = machine.ram_free_bytes + tree_own_bytes([server.pid for server in servers])
    vram_bytes: dict[int, int] = {}
    for server in servers if machine.gpus else ():
        for index, gpu_bytes in _server_bytes(machine, server).items():
            vram_bytes[index] = vram_bytes.get(index, 0) + gpu_bytes
    return replace(
        machine,
        ram_free_bytes=min(ram_bytes, machine.ram_total_bytes),
        gpus=tuple(
            replace(gpu, free_bytes=min(gpu.free_bytes + vram_bytes.get(gpu.index, 0), gpu.total_bytes))
            for gpu in machine.gpus
        ),
    )


def _server_bytes(machine: Machine, server: Server) -> dict[int, int]:
    """GPU index → bytes of one server; what it may take where the driver does not know our pids, as in a container."""
    if server.spec.device != "cuda":
        return {}
    measured = process_bytes(tree_pids([server.pid]))
    pinned = usable(machine.gpus, server.gpu or None)
    return measured or {gpu.index: server.gpu_bytes or server.spec.gpu_bytes for gpu in pinned[: server.spec.cards]}


def make_room(home: Path, *, ram_bytes: int, log: Callable[[str], None]) -> None:
    """Stop idle measuring servers before work that does not ask them and needs this much RAM at its peak.

    One on the CPU stays where the work easily fits beside it, since the step after may want it. One on a GPU goes.
    """
    free_bytes = measure_machine(home).ram_free_bytes
    for server in servers.list_servers(home, role=BENCH):
        if server.spec.device == "cuda" or ram_bytes * _BESIDE > free_bytes:
            log(f"{server.model} stops serving: {ram_bytes / GIB:.1f} GiB needed, {free_bytes / GIB:.1f} GiB free")
            servers.stop(server)

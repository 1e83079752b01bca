"""The models that grading asks, found before anything starts: who judges, and who embeds.

A judge is a model that is served here: the bundled driver where it is here already, or a model folder; or an endpoint,
and that only where settings.toml names it, since answers are sent there. It reads answers and has no tools. Its price
is part of the plan, what it is (weights, template, prompts, engine) part of what answers are comparable by.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import read_manifest
from tunesmith.tools.core.local_paths import expanded
from tunesmith.tools.core.plain_file import read_key
from tunesmith.tools.core.stage import GIB, Inputs, is_expected
from tunesmith.tools.evaluation.judge_settings import JudgeSettings
from tunesmith.tools.models.base import source_of
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.folder import check_model_folder, fingerprint, folder_pins, sealed_as
from tunesmith.tools.models.memory_math import (
    USUAL_KV_BYTES,
    ServerMemory,
    kv_bytes_per_token,
    server_memory,
    serving_peaks,
)
from tunesmith.tools.serving.addresses import clear_text_note, read_address, refuse_key_in_clear
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import asks_model, judged
from tunesmith.tools.suites.grading.embedding import EMBEDDER_PIN, embedder_sha256, model_folder

ENDPOINT = "endpoint"
_USUAL = "bundled-driver"
JUDGES = (_USUAL, ENDPOINT)
"""Judges by name; any other is a folder."""
JUDGE_HELP = (
    "Who judges llm-rubric and g-eval: 'bundled-driver', a model folder, or 'endpoint' (the one that "
    "settings.toml names); empty: what [judge] there says, else the bundled driver."
)
JUDGE_CONTEXT_TOKENS, JUDGE_CONCURRENCY = 8192, 16
"""Of the judge's server: a rubric, a case and a long answer fit; its tokens a second below are of sixteen requests."""
_FETCH = "`tunesmith base --model bundled-driver --role driver` fetches the bundled one"
_SERVER_START_S = 35.0  # on the reference machine, as the figures below
# Of one judging prompt: what is read, counted as the tokens that take as long to write, and what is written.
_TOKENS_PER_PROMPT = 55
# Tokens per second of a 1e9-parameter model on the reference machine, 16 requests at once.
_TOKENS_PER_SECOND_BILLION = 50.0
_EMBEDDER_START_S, _SECONDS_PER_TEXT, _EMBEDDER_BYTES = 8.0, 0.03, GIB
"""Of an embedding model of some hundred MB, on a CPU."""


@dataclass(frozen=True, slots=True)
class JudgeModel:
    """A judge that was found."""

    named: str
    """As a request names it: it is found again by this."""
    name: str
    folder: Path | None = None
    bytes: int = 0
    parameters: int = 0
    kv_bytes_per_token: int = USUAL_KV_BYTES
    url: str = ""
    """Of an endpoint, without its `/v1`."""
    key: str = field(default="", repr=False)
    allow_plain_http: bool = False
    sha256: str = ""
    """Digest of what it is: of its folder, or of the endpoint's address and the name that it is asked for."""
    sealed: str = ""
    """Of a folder with a manifest that is not known by it already: the digest that stands there."""

    @property
    def memory(self) -> ServerMemory:
        """Peak of its server; nothing for an endpoint."""
        if self.folder is None:
            return ServerMemory(0, 0)
        return server_memory(
            self.bytes,
            kv_bytes_per_token=self.kv_bytes_per_token,
            context_tokens=JUDGE_CONTEXT_TOKENS,
            sequences=JUDGE_CONCURRENCY,
        )


@dataclass(frozen=True, slots=True)
class Models:
    """What a suite's assertions need beside the model under test."""

    judge: JudgeModel | None = None
    embeds: bool = False

    @property
    def pins(self) -> dict[str, str]:
        """What a plan is bound to: the judge that it shows, and the embedding model."""
        embedder = {EMBEDDER_PIN: embedder_sha256()} if self.embeds else {}
        return {**(folder_pins("judge", self.judge.sha256, self.judge.sealed) if self.judge else {}), **embedder}

    def peaks(self, serving: ServerMemory, *, on_gpu: bool) -> dict[str, int]:
        """Peak RAM and VRAM of a step whose own server takes `serving`: the two servers take turns.

        The embedding model is small and stays on the processor.
        """
        each = [
            serving_peaks(server, on_gpu=on_gpu) for server in (serving, *([self.judge.memory] if self.judge else []))
        ]
        beside = _EMBEDDER_BYTES if self.embeds else 0
        peaks = {what: max(peak[what] for peak in each) for what in each[0]}
        return {**peaks, "ram_bytes": peaks["ram_bytes"] + beside}

    def seconds(self, cases: Sequence[Case], answers_each: int) -> float:
        """Calibrated seconds to judge `answers_each` answers to every case; 0 where none asks a model."""
        took = 0.0
        if self.judge and (prompts := answers_each * sum(_prompts(case) for case in cases)):
            # read from a disk at 400 MB a second
            took += _SERVER_START_S + self.judge.bytes / 4e8 if self.judge.folder else 0.0
            billions = max(self.judge.parameters / 1e9, 0.1)  # an endpoint's are unknown: 0
            took += prompts * _TOKENS_PER_PROMPT * billions / _TOKENS_PER_SECOND_BILLION
        if self.embeds and _asking(cases, "embedder"):
            took += _EMBEDDER_START_S + _SECONDS_PER_TEXT * answers_each * _asking(cases, "embedder").total()
        return took

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of them: answers that cross the network in clear."""
        if not self.judge or self.judge.folder:
            return ()
        note = clear_text_note(read_address(self.judge.url), self.judge.key, "the answers that are judged")
        return (note,) if note else ()

    def steps(self, cases: Sequence[Case], tested: Path) -> tuple[str, ...]:
        """What a plan says of them, a line each; `tested` is the folder of the model that is measured."""
        lines = []
        if self.judge and (judging := _asking(cases, "judge")):
            where = "on a vLLM server of its own" if self.judge.folder else f"at {self.judge.url}"
            own = "; it judges its own answers: name another judge" if self.judge.folder == tested else ""
            lines.append(f"once every answer is in, {self.judge.name} judges {_listed(judging)}, {where}{own}")
        if self.embeds and (embedding := _asking(cases, "embedder")):
            lines.append(f"a local embedding model decides {_listed(embedding)}")
        return tuple(lines)


def find_models(cases: Sequence[Case], judge: str, home: Path, coming: Collection[str] = (), on: str = "") -> Models:
    """Who judges and embeds for these cases. Raises BadInput, with what to do, where one is needed and not here, or
    does not go along to the machine that they are asked `on`.

    A bundled model among those `coming` is one that an earlier step of the plan will fetch.
    """
    judging, embedding = _asking(cases, "judge"), _asking(cases, "embedder")
    if embedding and model_folder() is None:
        raise BadInput(
            f"{_listed(embedding)} assertions need an embedding model, and none is installed; "
            "pip install 'tunesmith[similar]', or use rouge-n"
        )
    if judging and on == "ray":
        raise BadInput(f"{_listed(judging)} assertions ask a judge, which stays here; say `on: here` of the step")
    try:
        model = find_judge(judge, home, coming) if judging else None
    except BadInput as error:
        raise BadInput(f"{_listed(judging)} assertions ask a judge: {error}") from None
    return Models(model, bool(embedding))


def coming_models(inputs: Inputs) -> frozenset[str]:
    """The models that steps before this one will fetch, by name, where it is only forecast."""
    fetched = (inputs.artifacts.get(kind) for kind in ("base", "teacher", "driver"))
    return frozenset(str(one.meta.get("name")) for one in fetched if one is not None and is_expected(one))


def has_judge(home: Path, coming: Collection[str] = ()) -> bool:
    """Whether a judge is there where nobody names one, or will be."""
    try:
        return bool(find_judge("", home, coming).named)
    except BadInput:
        return False


def judge_comes(home: Path) -> bool:
    """Whether a judge is there where nobody names one, or comes with a plan, which fetches the bundled one."""
    return has_judge(home, {BUNDLED[_USUAL].title})


def judge_to_fetch(home: Path, coming: Collection[str]) -> str:
    """The bundled judge, as `base` takes it, where it is the one to judge and neither here nor `coming`; else empty."""
    return _USUAL if judge_comes(home) and not has_judge(home, coming) else ""


def find_judge(named: str, home: Path, coming: Collection[str] = ()) -> JudgeModel:
    """The judge that a request names, else the settings, else the bundled one. Raises BadInput where it is not here."""
    settings = _settings(home)
    if not named:
        named = ENDPOINT if settings.endpoint else settings.model
        named = str(home / expanded(named)) if "/" in named else named
    if named == ENDPOINT or named.startswith(("http://", "https://")):
        return _endpoint(named, settings, home)
    source = source_of(named)
    if source == "bundled":
        model = BUNDLED[named]
        folder = home / "models" / model.name
        if (manifest := read_manifest(folder)) is None and model.title not in coming:
            raise BadInput(f"{model.title} is not here; {_FETCH}, or name a model folder: judge=FOLDER")
        kv_bytes = kv_bytes_per_token(model.config)
        sha256 = manifest["sha256"] if manifest else ""
        return JudgeModel(named, model.name, folder, model.folder_bytes, model.parameters, kv_bytes, sha256=sha256)
    if source == "hub":
        raise BadInput(f"{named!r} is no folder here; {_FETCH}, or name a folder of safetensors: judge=FOLDER")
    folder = expanded(named).resolve()
    facts = check_model_folder(folder)
    kv_bytes = kv_bytes_per_token(facts.config)
    return JudgeModel(
        str(folder), folder.name, folder, facts.weight_bytes, facts.parameters, kv_bytes, sha256=fingerprint(folder),
        sealed=sealed_as(folder),
    )  # fmt: skip


def _endpoint(named: str, settings: JudgeSettings, home: Path) -> JudgeModel:
    if not settings.endpoint or named not in (ENDPOINT, settings.endpoint):
        raise BadInput(
            f"{named!r} is no endpoint that settings.toml allows, and answers would be sent there; write it under "
            "[judge] as endpoint and name"
        )
    if not settings.name:
        raise BadInput("settings.toml, [judge]: an endpoint needs the name of the model to ask it for; set name")
    url = settings.endpoint.rstrip("/").removesuffix("/v1")  # the client adds it; people write either
    file = home / expanded(settings.key_file)
    key = read_key(file, "judge", "key_file") if settings.key_file else ""
    address = read_address(url, "settings.toml, [judge]: endpoint")
    refuse_key_in_clear(address, key, allowed=settings.allow_plain_http, section="judge")
    digest = hashlib.sha256(json.dumps([url, settings.name]).encode()).hexdigest()
    allow = settings.allow_plain_http
    return JudgeModel(ENDPOINT, settings.name, url=url, key=key, allow_plain_http=allow, sha256=digest)


def _settings(home: Path) -> JudgeSettings:
    try:
        return JudgeSettings.model_validate(tomllib.loads((home / "settings.toml").read_text()).get("judge", {}))
    except (FileNotFoundError, NotADirectoryError):  # a home without settings, or none yet
        return JudgeSettings()
    except (OSError, ValueError, ValidationError) as error:
        raise BadInput(f"cannot read [judge] in {home / 'settings.toml'}: {error}") from None


def asks_judge(cases: Collection[Case]) -> bool:
    """Whether an assertion of them is decided by a model's word."""
    return bool(_asking(cases, "judge"))


def _asking(cases: Collection[Case], role: str) -> Counter[str]:
    """Type → how many assertions of it ask the model of a role."""
    every = (a for case in cases for top in case.assertions for a in (top, *top.children))
    return Counter(a.type for a in every if role in asks_model([a]).values())


def _prompts(case: Case) -> int:
    every = [a for top in case.assertions for a in (top, *top.children)]
    return sum(judged.judge_prompts(a) for a in every if "judge" in asks_model([a]).values())


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def asked_cases(suite: Suite, arms: Mapping[str, object] | Sequence[str]) -> dict[str, list[Case]]:
    """Arm → the cases of a suite that it is asked where these arms answer in one step."""
    return {arm: [case for case in suite.cases if case.asked_of(arm)] for arm in arms}

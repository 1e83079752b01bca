"""preflight: every link of the chain on a few rows, before a night is spent on a chain that breaks at its last one.

On made-up rows it needs a base alone, and comes before anything is written or measured.
"""

from __future__ import annotations

import math

from pydantic import Field

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Fitting, Plan, Result, Stage, expected, pinned
from tunesmith.tools.models.decisions import Decided
from tunesmith.tools.models.fitting import ANOTHER_BASE, largest_that_fits
from tunesmith.tools.models.measuring import (
    FOUR,
    SIXTEEN,
    beside_base,
    beside_serving_bytes,
    measured_base,
    measuring_bytes,
)
from tunesmith.tools.models.memory_math import ServerMemory, serving_peaks
from tunesmith.tools.models.model_names import NamedModel
from tunesmith.tools.models.time_math import LAB_START_S, training_seconds
from tunesmith.tools.serving.budget import (
    asking_seconds,
    measured_with,
    need_vllm,
    rank_served,
    server_of,
)
from tunesmith.tools.serving.context_settings import context_settings_of
from tunesmith.tools.training.choices import USUAL_TOKENS, TrainingMemory, too_long
from tunesmith.tools.training.train import settled, tried_by

ANSWER_TOKENS = 24
"""Enough for two paths through vLLM to part company, few enough for a CPU."""
_ROWS_MOST = 64
_USUAL_ROWS = 600
"""Of a data set: a training's batch and rank go by their number."""
# On two cores, with the bundled model.
_LINKED_S = 3.0
"""To render every row, make an adapter of zeros and have a server load it, beside what is computed."""


class PreflightRequest(TrainingMemory):
    """How much to try, and the training that is tried: what is `auto` (0) of it is decided as training will."""

    # Eight: rows of every origin, two or three of each.
    rows: int = Field(default=8, ge=2, le=_ROWS_MOST)
    """Training rows to try the chain on; as many as are in memory at once, if that is more."""
    made_up: bool = False
    """Make the rows up, each as long as training takes: before there are any it tries the base."""

    @property
    def rows_at_once(self) -> int:
        """Of these rows, those that are in memory at once on each card, as in training."""
        return min(self.micro_batch or max(2, self.rows // 2), self.rows)

    @property
    def step_rows(self) -> int:
        """Rows of each of the two optimiser steps."""
        cards = self.cards or 1
        return cards * max(math.ceil(max(2, self.rows // 2) / cards), self.rows_at_once)


class Check(Result):
    """One link of the chain, and the evidence that it holds."""

    name: str
    passed: bool
    evidence: str


class PreflightResult(Result):
    """All checks; a failed one fails the step."""

    artifact: str
    checks: list[Check]
    peak_vram_bytes: int = 0
    """Of its two steps, as of a training."""
    expected_vram_bytes: int = 0


def made_up_rows(request: PreflightRequest) -> Artifact:
    """What stands for a data set where rows are made up: as many as usual, each as long as training takes."""
    tokens = request.max_seq_len_tokens or USUAL_TOKENS
    return expected("dataset", train_rows=_USUAL_ROWS, tokens_per_row=tokens)


def plan(request: PreflightRequest, facts: Facts, context: None = None) -> Plan:
    """Price a server start, a model load and two optimiser steps."""
    base = facts.need("base", "base")
    dataset = made_up_rows(request) if request.made_up else facts.need("dataset", "critique")
    measured, context_settings = measured_base(facts), context_settings_of(facts.artifacts)
    need_vllm(facts)
    training, decided, why = settled(tried_by(request), facts, base, dataset)
    at_once = decided.way.rows_at_once
    fields = training.model_dump(include={*TrainingMemory.model_fields})
    more = {"micro_batch": at_once, "rows": min(max(request.rows, training.cards * at_once), _ROWS_MOST)}
    request = request.model_copy(update={**fields, **more})
    peaks = _peaks(request, facts, decided.needed_bytes)
    price = estimate(
        "preflight", facts, seconds=_seconds(request, facts, base, dataset), rates=facts.training_rates,
        like="", **peaks, cards=max(request.cards, _server(request, facts).cards),
        disk_bytes=50_000_000,  # probes and the checkpoint of a few steps, all gone at the end
    )  # fmt: skip
    fitting = _fitting_settings(request, facts, decided)
    bits = "4-bit NF4" if request.load_in_4bit else request.precision
    tried = f"{request.rows} rows"
    if request.made_up:
        tried = f"{request.rows} made-up rows of {request.max_seq_len_tokens} tokens"
        own = {one.setting: one.why for one in decided.decisions if one.why}
        why = dict.fromkeys(why, "as for a usual data set: no row is there yet") | own
    return Plan(
        stage="preflight",
        run=facts.run,
        summary=f"try every link of the chain on {tried}",
        steps=(
            f"every row keeps trainable tokens within {request.max_seq_len_tokens}, and its stop token is inside the "
            "loss mask",
            f"two optimiser steps over the frozen {bits} base on rows of every origin: the behaviour must cost "
            "something, and the adapter must move",
            "vLLM accepts an adapter of zeros, answers with it as the base does, and renders the trainer's tokens",
            *measured_with(measured),
            *context_settings.steps,
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, dataset=None if request.made_up else dataset, **beside_base(base, measured)),
        pins=context_settings.pins,
        estimate=price,
        writes=("an adapter that is thrown away",),
        reasons={name: reason for name, reason in why.items() if name in PreflightRequest.model_fields},
        refusals=too_long(request.max_seq_len_tokens, base, dataset)
        + room(price, facts, remedy="a smaller base", fitting=fitting)
        or decided.refusals,
        fitting=fitting,
    )


def _seconds(request: PreflightRequest, facts: Facts, base: Artifact, dataset: Artifact) -> Seconds:
    """Two optimiser steps in a child, which imports anew, a server unless one waits, and as many answers as there are
    rows, twice."""
    longest = dataset.count("longest_row_tokens", dataset.count("tokens_per_row"))  # those that it takes
    # Cards share a step's rows; processes on one processor have its cores all the same.
    rows = request.step_rows // request.cards if facts.trains_on_gpu else request.step_rows
    trained = training_seconds(
        base.config,
        facts.training_rates,
        tokens=2.0 * rows * min(request.max_seq_len_tokens, longest),
        micro_steps=2 * math.ceil(rows / request.rows_at_once),
        on_card=facts.trains_on_gpu,
        checkpointing=request.activation_checkpointing == "on",
        load_in_4bit=bool(request.load_in_4bit),
        precision=request.precision,
    )
    asked = asking_seconds(facts, measured_base(facts), answers=2 * request.rows, answer_tokens=ANSWER_TOKENS)
    # Two steps are as good as a start: what their first run costs says nothing of the pace of a training.
    return Seconds(_LINKED_S + LAB_START_S + trained.total) + asked


def _fitting_settings(request: PreflightRequest, facts: Facts, decided: Decided) -> tuple[Fitting, ...]:
    """Settings with which the training half would fit; a smaller base where none does, or the serving half does not."""
    serving = _with_its_server(request, facts)
    own = [one for one in decided.fitting if not one.settings.startswith(ANOTHER_BASE)]
    if sum(serving.values()) <= facts.serving_room_bytes and (own or not decided.fitting):
        least = serving["vram_bytes" if facts.trains_on_gpu else "ram_bytes"]  # the other half, whatever is set
        return tuple(one.model_copy(update={"peak_bytes": max(one.peak_bytes, least)}) for one in own)
    context = context_settings_of(facts.artifacts).context_tokens

    def needs(model: NamedModel) -> int:
        serving = min(measuring_bytes(model.config, facts, bits, context) for bits in (SIXTEEN, FOUR))
        return max(decided.bytes_of(model), serving)

    return largest_that_fits(needs, min(facts.training_room_bytes, facts.serving_room_bytes))


def _with_its_server(request: PreflightRequest, facts: Facts) -> dict[str, int]:
    """Peaks of the server that the run is measured on, and of what is there while it answers."""
    peaks = serving_peaks(_server(request, facts), on_gpu=facts.serves_on_gpu)
    return {**peaks, "ram_bytes": peaks["ram_bytes"] + beside_serving_bytes(facts)}


def _server(request: PreflightRequest, facts: Facts) -> ServerMemory:
    """The server of the run's measured base, which may be split over several cards."""
    context, rank = context_settings_of(facts.artifacts).context_tokens, rank_served(request.lora_rank)
    return server_of(facts, measured_base(facts), context, rank=rank)


def _peaks(request: PreflightRequest, facts: Facts, training_bytes: int) -> dict[str, int]:
    """The larger of its two halves: training, in a process that ends with it, then a server."""
    serving = _with_its_server(request, facts)
    own, processes = ("vram_bytes", 1) if facts.trains_on_gpu else ("ram_bytes", request.cards)
    return {**serving, own: max(training_bytes * processes, serving[own])}


STAGE = Stage(
    "preflight", PreflightRequest, PreflightResult, plan,
    tries_settings_of=("train", tuple(TrainingMemory.__annotations__)),
    spends=True,
    identified_by=("made_up",),
    spares={"made_up": "dataset"},
    makes=lambda request: "smoke" if request.made_up else "",
    lasting=("lora_rank", "precision", "load_in_4bit", "max_seq_len_tokens"),
)  # fmt: skip

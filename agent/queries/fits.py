"""Would a model be trained, measured, merged, quantized or served: here, or on a card. By arithmetic alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import Query

Work = Literal["", "train", "measure", "serve", "merge", "quantize"]


class FitsQuery(Query):
    """Whether a model would fit here or on other hardware, the largest that would, what its files take, how long
    training would take."""

    kind: Literal["fits"] = "fits"
    about: Literal["fit", "largest", "vram", "disk", "time"] = "fit"
    """fit: does it fit. largest: the largest models that do. vram: what a card must have. disk: its files. time: of a
    training here."""
    model: Annotated[str, Field(description="Name or size, such as Qwen3-8B or 7b; empty: the base of the run")] = ""
    work: Annotated[Work, Field(description="empty: all of it")] = ""
    bits: Annotated[Literal[0, 4, 8, 16], Field(description="Bits of the weights; 0: any")] = 0
    card: Annotated[str, Field(description="Another card, by name or GiB, such as 4090 or 24; empty: this machine")] = (
        ""
    )
    cards: Annotated[int, Field(ge=1, description="How many such cards")] = 1
    ram_gib: Annotated[float, Field(ge=0, description="A machine with so much RAM and no card; 0: this one")] = 0.0

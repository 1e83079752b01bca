"""Settings: the value a step ran with, who chose it and why, what it is when nobody does, and what it was elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import Query, RunName, StageName


class SettingQuery(Query):
    """Settings by name, such as lora_rank or writer: the value, who chose it and why; the default; or whether a value
    is sensible, by the product's own rule."""

    kind: Literal["setting"] = "setting"
    fields: Annotated[tuple[str, ...], Field(min_length=1, description="Names of settings")]
    about: Literal["value", "default", "sensible"] = "value"
    run: RunName = ""
    stage: StageName = ""
    value: Annotated[float | None, Field(description="For sensible: the value in question; null: the run's own")] = None
    role: Annotated[
        Literal["base", "teacher", "driver"], Field(description="For model and revision: which model's")
    ] = "base"


class SettingsQuery(Query):
    """All settings of a stage or a run: those used, the defaults of a stage, or those that the user changed by hand."""

    kind: Literal["settings"] = "settings"
    about: Literal["used", "defaults", "by_hand"] = "used"
    run: RunName = ""
    stage: StageName = ""

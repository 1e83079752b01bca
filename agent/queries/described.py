"""What a behaviour's description says, as its user gave it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Context, clip
from tunesmith.agent.queries.facts import Fact, Query, Result, RunName
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import Run
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.spec import Spec

Part = Literal["", "words", "examples", "criteria", "rules", "near_misses"]


class DescribedQuery(Query):
    """What a run was to teach: goal, fields, examples, rules, look-alikes."""

    kind: Literal["described"] = "described"
    part: Annotated[Part, Field(description="words: when, what, never")] = ""
    run: RunName = ""


def answer(query: DescribedQuery, context: Context) -> Result:
    """The behaviour of a run; its texts for the screen. Raises NotFound where none is named, or its file is gone."""
    run = context.run(query.run, with_stage="generate")
    spec, where = _behaviour(context, run)
    of: Fact = {
        "run": run.id, "behaviour": spec.name, "goal": clip(run.goal or spec.say or spec.what), "part": query.part,
        "language": spec.language, "file": where, "examples": len(spec.examples), "rules": len(spec.rules),
        "criteria": len(spec.criteria), "near_misses": len(spec.near_misses),
    }  # fmt: skip
    fields = [{"field": one.name, "kind": one.kind, "values": [*one.values]} for one in spec.attributes if one.shown]
    texts = _texts(spec)
    chosen = [texts[query.part]] if query.part else [*texts.values()]
    return Result(tuple(fields), of, texts=tuple(text for part in chosen for text in part))


def _texts(spec: Spec) -> dict[Part, list[Fact]]:
    """Part → its texts."""
    return {
        "words": [{"when": spec.when, "what": spec.what, "never": spec.never}],
        "examples": [{"message": one.prompt, "answer": one.answer} for one in spec.examples],
        "rules": [{"rule": rule.says} for rule in spec.rules],
        "criteria": [{"criterion": text} for text in spec.criteria],
        "near_misses": [{"near_miss": text} for text in spec.near_misses],
    }


def _behaviour(context: Context, run: Run) -> tuple[Spec, str]:
    steps = context.store.steps(run.id)
    written = [str(s.request.get("behaviour", BUNDLED_BEHAVIOUR)) for s in steps if s.stage == "generate"]
    planned = [as_object(s.get("fields", {})) for s in run.planned if s.get("stage") == "generate"]
    written = written or [str(fields["behaviour"]) for fields in planned if fields.get("behaviour")]
    written = written or [str(s.request["behaviour"]) for s in steps if s.request.get("behaviour")]
    if not written:
        raise NotFound(f"{run.id} names no behaviour: no rows were asked for yet.")
    try:
        return load_behaviour(written[-1]), written[-1]
    except (BadInput, OSError) as error:  # moved, or changed by hand into what cannot be read
        raise NotFound(f"The behaviour of {run.id} cannot be read any more: {clip(error, 200)}") from None

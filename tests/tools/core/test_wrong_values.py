"""What is wrong with a field is said in our words: pydantic's own never reach a user."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tests.fixtures.tables import table
from tunesmith.tools.core.wrong_values import sentences
from tunesmith.tools.pipeline import catalog


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(max_length=5)


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    source: str = Field(min_length=1, description="A file of rows.")
    rank: int = Field(default=0, ge=0, le=256)
    port: int = Field(default=0, ge=0, le=65_535)
    rate: float = Field(default=0.5, gt=0, lt=1)
    seed: int = 17
    arm: Literal["base", "adapter"] = "base"
    fresh: bool = False
    role: Literal["base", "teacher"] = "base"
    routing: Literal[True, False, "auto"] = "auto"
    suites: tuple[str, ...] = Field(default=("demo",), min_length=1, max_length=2)
    mapping: dict[str, str] = {}
    examples: tuple[Inner, ...] = ()

    @field_validator("seed")
    @classmethod
    def _lucky(cls, seed: int) -> int:
        if seed == 13:
            raise ValueError("brings bad luck; take another")
        return seed


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"source": ""}, "source is ''; it must not be empty"),
    ({"rank": "8x"}, "--rank is '8x'; it takes a whole number of at least 0 and at most 256, such as 8"),
    ({"rank": 1.5}, "--rank is 1.5; it takes a whole number of at least 0 and at most 256, such as 8"),
    ({"rank": 999}, "--rank is 999; it takes a whole number of at least 0 and at most 256, such as 8"),
    ({"port": -1}, "port is -1; it takes a whole number of at least 0 and at most 65535"),
    ({"rate": "much"}, "rate is 'much'; it takes a number above 0 and below 1, such as 0.5"),
    ({"seed": None}, "seed is None; it takes a whole number, such as 17"),
    ({"seed": 13}, "seed: brings bad luck; take another"),
    ({"arm": "adaptor"}, "arm is 'adaptor'; did you mean 'adapter'? It takes base or adapter"),
    ({"fresh": "maybe"}, "fresh is 'maybe'; it takes true or false"),
    ({"routing": "Auto"}, "routing is 'Auto'; did you mean 'auto'? It takes true, false or auto"),
    ({"role": "judge"}, "role is 'judge'; it takes base or teacher"),
    ({"suites": []}, "suites is []; it must not be empty"),
    ({"suites": ["a", "b", "c"]}, "suites is ['a', 'b', 'c']; at most 2 values are taken, not 3"),
    ({"suites": [3]}, "item 1 of suites is 3; it takes a text: put it in quotes"),
    ({"mapping": "x"}, "mapping is 'x'; it takes names with their values"),
    (
        {"examples": [{"prompt": "too long"}]},
        "prompt in item 1 of examples is 'too long'; at most 5 characters are taken",
    ),
    (
        {"examples": [{"promt": "x", "prompt": ""}]},
        "unknown field 'promt' in item 1 of examples; did you mean 'prompt'?",
    ),
    ({"rnk": 8}, "unknown field 'rnk'; did you mean 'rank'?"),
]


@table(("given", "said"), WRONG)
def test_each_mistake_names_the_field_its_value_and_what_it_takes(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Asked.model_validate({"source": "x", **given})
    assert sentences(caught.value, Asked, {"rank": "--rank"}) == said


def test_what_is_missing_is_described() -> None:
    with pytest.raises(ValidationError) as caught:
        Asked.model_validate({"rnk": 8})
    assert sentences(caught.value, Asked) == (
        "source is missing: a file of rows; unknown field 'rnk'; did you mean 'rank'?"
    )


@table("value", ["", "x y", "-1", "1e999", [], {}, None, 10**30])
def test_no_field_of_any_stage_answers_in_pydantics_words(value: Any) -> None:
    for entry in catalog.STAGES:
        model = entry.load().request
        for name in model.model_fields:
            try:
                model.model_validate({name: value})
            except ValidationError as error:
                said = sentences(error, model)
                own = [one["msg"] for one in error.errors() if one["type"] not in ("value_error", "assertion_error")]
                assert not any(words in said for words in own) and "cannot be taken" not in said, said

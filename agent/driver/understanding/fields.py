"""Every field of every request by the words that people have for it: its name, synonyms, and what its help says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from tunesmith.tools.core.field_names import names_of
from tunesmith.tools.pipeline import catalog

# Synonyms beside a field's own name. A name is looked for with spaces, dashes or underscores between its words.
_SYNONYMS: dict[str, str] = {
    "lora_rank": r"rank|lora r\b",
    "lora_alpha": r"alpha",
    "lora_dropout": r"drop-?out",
    "learning_rate": r"lr|learn(?:ing)? rate|step size",
    "epochs": r"epochs?|passes over the (?:data|rows)",
    "max_steps": r"max(?:imum)? steps|optimi[sz]er steps|training steps",
    "batch_size": r"batch(?: ?size)?|rows per step",
    "micro_batch": r"micro[ -]?batch\w*",
    "max_seq_len_tokens": r"max(?:imum)? (?:sequence )?length|seq(?:uence)?[ -]?len(?:gth)?|longest row|max seq\w*",
    "rehearsal_weight": r"rehearsal weight|weight of (?:the )?rehearsal|kl(?: weight)?",
    "value_weight": r"value weight|weight of (?:the )?values",
    "max_kl": r"max(?:imum)? kl|kl (?:bound|limit)",
    "patience": r"patience|early stop(?:ping)?",
    "warmup_ratio": r"warm-?up(?: ratio)?",
    "precision": r"precision|bf16|fp32|dtype",
    "load_in_4bit": r"load in 4[ -]?bit|qlora|nf4|4[ -]?bit (?:base|training)",
    "save_steps": r"save steps|checkpoint(?:s| interval| every)?",
    "seed": r"(?:random )?seed",
    "rows": r"(?:number of |how many )?(?:training )?rows|samples|training examples",
    "rehearsal_rows": r"rehearsal(?: rows)?",
    "writer": r"writer|who w(?:rote|rites) the (?:rows|data|examples|texts)|teacher",
    "temperature": r"temp(?:erature)?",
    "tries": r"tries|attempts",
    "concurrency": r"concurren\w+|parallel requests|requests (?:at once|in flight)",
    "behaviour": r"behaviour (?:file|folder|name)|which behaviour",
    "suites": r"(?:test )?suites?",
    "cases_per_block": r"cases(?: per block| a block| each)?",
    "max_tokens": r"max(?:imum)? tokens|answer length|longest answer|tokens per answer",
    "repeats": r"repeats?|repetitions",
    "judge": r"judge(?! rows)",
    "near_duplicate": r"near[ -]?dup\w* (?:threshold|limit|similarity)|duplicate (?:threshold|limit|similarity)",
    "leak": r"leak(?:age)? (?:threshold|limit|similarity)",
    "valid_share": r"valid(?:ation)? (?:share|split|fraction|part)|held[ -]?out share",
    "scheme": r"(?:quantization )?scheme|how many bits|w\d+a\d+|which bits",
    "group_size": r"group[ -]?size|groups?(?= of \d)",
    "calibration_samples": r"calibration(?: samples| rows)?",
    "keep": r"kept in full precision|keeps? full precision|full[ -]precision layers|unquantized layers",
    "port": r"port",
    "context_tokens": r"context(?: length| tokens| window| size)?",
    "thinking": r"(?:thinking|thoughts?) (?:mode|setting|on|off)|(?:with|without|no) (?:thinking|thoughts)",
    "thinking_tokens": r"thinking (?:budget|tokens)|tokens (?:of|for) (?:its |the )?(?:thoughts?|thinking)",
    "goal_rate": r"goal(?: rate)?",
    "dev_rows": r"dev rows",
    "system_prompt": r"system prompt",
    "quantized": r"(?:existing|published|ready) quantized (?:checkpoint|base|model)|quantized checkpoint",
    "revision": r"revision|commit hash|which commit",
    "model": r"which (?:base )?model|base model",
    "fresh": r"fresh",
    "role": r"role",
    "rollback": r"roll ?back",
    "arm": r"which arm",
}  # fmt: skip
_EVERYDAY = frozenset(
    {"model", "arm", "role", "keep", "behaviour", "judge", "fresh", "leak", "revision", "thinking", "quantized"}
)
"""Fields whose name alone says nothing: `the merged model` names no setting."""


@cache
def known_fields() -> dict[str, tuple[str, ...]]:
    """Field → the stages whose request has it, in the order of the stages; `run` is no setting."""
    by_name: dict[str, list[str]] = {}
    for entry in catalog.STAGES:
        for name in entry.load().request.model_fields:
            if name != "run":
                by_name.setdefault(name, []).append(entry.name)
    return {name: tuple(stages) for name, stages in by_name.items()}


_FIGURES: dict[str, str] = {
    "trainable_parameters": r"trainable parameters|(?:parameters|weights) (?:were|are|did|was|got) .{0,12}train|"
    r"(?:train|update)\w* (?:how many )?(?:parameters|weights)",
    "trained_tokens": r"trained tokens|tokens(?! (?:per|a) second) .{0,16}(?:train|see|saw|seen)|train\w* on "
    r".{0,12}tokens|how many tokens(?! (?:per|a|each|every) second)",
    "max_logit_difference": r"(?:max(?:imum)? )?logit difference|logits? differ\w*",
    "argmax_agreement": r"argmax agreement|agree(?:ment)? .{0,12}merg",
    "quantized_layers": r"quantized layers|layers .{0,12}quantized",
    "generated_tokens": r"generated tokens|tokens .{0,24}(?:generat|writ)",
    "first_try": r"first (?:try|attempt)|retr(?:y|ies|ied)\b|how many (?:tries|attempts)",
    "steps": r"(?:optimi[sz]er|training) steps|steps of (?:the )?training|how many steps .{0,20}train",
    "rehearsal_share": r"ratio of rehearsal|rehearsal share|share of .{0,20}rehearsal|rehearsal .{0,12}share",
    "balance": r"balanced?\b|distribution of|how many of each|label counts",
    "validation_kl": r"validation kl|kl divergence|divergence from the base",
}
"""Results of stages that no other question reads, by the words for them."""


@cache
def figures() -> dict[str, str]:
    """Result → the stage whose steps have it, of those that people ask for by name."""
    return {
        name: entry.name for entry in catalog.STAGES for name in entry.load().result.model_fields if name in _FIGURES
    }


def figure_named(text: str, stages: Sequence[str] = ()) -> str:
    """The result that a readable sentence asks for by its name, rather one of these stages; empty: none."""
    named = [name for name in figures() if re.search(_FIGURES[name], text)]
    return next((name for name in named if figures()[name] in stages), next(iter(named), ""))


@cache
def pattern_of(field: str) -> re.Pattern[str]:
    """How a field is named in a readable sentence."""
    own = field.replace("_", "[ _-]?")
    named = _SYNONYMS.get(field, own) if field in _EVERYDAY else f"{own}|{_SYNONYMS.get(field, own)}"
    # As they are typed, with their underscores: “the model name” names no setting.
    named = "|".join([named, *(other.replace("_", "[_-]") for other in names_of(field) if "_" in other)])
    return re.compile(rf"(?<![\w-])(?:{named})(?![\w-])")


def fields_named(text: str) -> tuple[str, ...]:
    """The fields that a readable sentence names, the longest name at a place first, in order."""
    matches = [
        (match.start(), -(match.end() - match.start()), name, match.end())
        for name in known_fields()
        for match in pattern_of(name).finditer(text)
    ]
    taken: list[tuple[int, str]] = []
    end = -1
    for start, _, name, stop in sorted(matches):
        if start >= end:
            taken.append((start, name))
            end = stop
    return tuple(dict.fromkeys(name for _, name in taken))

"""A model card says what the records say: no text of a model's becomes a field, a heading or a link of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.fixtures.stored_runs import finished_run
from tunesmith.tools.release.model_card import license_of, model_card

FIELD = "x\ngated: true"


NAMES = (
    FIELD, f'"{FIELD}', f"---\n# evil\n{FIELD}", "\u2028---\u2028gated: true", f"\x85{FIELD}", "\x7f\x9b\x00\ud800",
    "a\\", "[x](http://evil)\n\n## Limits\n\n- none", "<img src=x>", "| a | b |\n|---|---|",
)  # fmt: skip


@pytest.mark.heavy
def test_no_name_of_a_base_adds_to_its_card(tmp_path: Path) -> None:
    store, run = finished_run(tmp_path / "home")
    made, base = store.artifacts(run, "quantized")[-1], store.artifacts(run, "base")[-1]
    plain = model_card(store, made, base, "quantized")
    for name in NAMES:
        meta = {**base.meta, "source": name, "name": name, "revision": name}
        card = model_card(store, made, replace(base, meta=meta), "quantized")
        _, front, body = card.split("---\n", 2)
        assert set(yaml.safe_load(front)) == {"base_model", "license", "library_name", "pipeline_tag", "tags"}, name
        headings = [[line for line in text.splitlines() if line.startswith("#")] for text in (card, plain)]
        assert headings[0] == headings[1], name
        assert len(body.splitlines()) == len(plain.split("---\n", 2)[2].splitlines()), f"{name!r}: no line more"
        told = next(line for line in body.splitlines() if line.startswith("- base: "))
        assert not re.search(r"(?<!\\)[<\[|]", told), name


def test_a_licence_is_one_plain_value_of_a_bases_own_card(tmp_path: Path) -> None:
    store, run = finished_run(tmp_path / "home")
    base = replace(store.artifacts(run, "base")[-1], path=tmp_path, meta={})
    (tmp_path / "README.md").write_text('---\nlicense: mit\nlicense_link: "x\n  gated: y"\n---\n')
    assert license_of(base) == {"license": "mit"}
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\x85gated: true\n---\n" + b"\xff" * 9)
    assert license_of(base) == {}

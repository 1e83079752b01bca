"""A YAML file that is broken is told by its line, once, and in words for who wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.tools.core.yaml_file import BrokenYaml, read_yaml


@table(
    ("text", "told"),
    [
        ("when: x\nwhat\nnever: y\n", "line 2: expected 'key: value'"),
        ("when: x\nwhat\n", "line 2: expected 'key: value'"),
        ("when: x\nwhat:y\nnever: z\n", "line 2: expected 'key: value'"),
        ("examples:\n- {prompt: a}\nsoon\n", "line 3: expected 'key: value'"),
        ('when: x\nwhat: "abc\nnever: y\n\nsay: z\n', "line 2: a quote that opens here is not closed"),
        (
            "when: x\nwhat: y: z\n",
            "line 2: not valid YAML: mapping values are not .*; a text with a colon in it",
        ),
        ("when: x\nexamples: [\n\n", "line 2: not valid YAML: did not find expected node content"),
        ("when: x\nwhat: @y\n", "line 2: not valid YAML: found character"),
        ("when: x\nwhat: *y\n", r"line 2: \*y names no finished &y"),
        ("when: x\nwhen: y\n", "line 2: the key 'when' stands twice"),
        ("when: x\nwhat: \0\n", "line 1: not valid YAML: "),
    ],
)
def test_a_fault_is_told_once_with_the_line_on_which_it_begins(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BrokenYaml, match=f"bad.yaml {told}") as refused:
        read_yaml(path)
    assert str(refused.value).lower().count("yaml") <= 2, "the file's name, and once what it is not"


def test_what_is_no_file_is_told_by_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none.yaml is not there; check the name$"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match=rf"^{tmp_path} is a folder; name a text file$"):
        read_yaml(tmp_path)

"""A spec as its file: YAML that is read back letter for letter, whatever braces, file names or YAML its texts hold."""

from __future__ import annotations

import re

import yaml

from tunesmith.tools.data.spec import Spec, as_document

_HEADER = (
    "# A behaviour as it was described, with what was proposed beside it: change any field.\n"
    "# A rule that asks too much may be removed here and in the files of suites/.\n\n"
)
_ORDER = (
    "spec", "name", "say", "when", "what", "never", "prompt", "slot", "examples", "near_misses", "attributes", "answer",
    "rules", "criteria",
)  # fmt: skip


def spec_text(spec: Spec) -> str:
    """The behaviour as its behaviour.yaml."""
    document = as_document(spec)
    known = {name: document[name] for name in _ORDER if name in document}
    return _HEADER + dump_yaml({**known, **{k: v for k, v in document.items() if k not in known}})


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, and every value written out: no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and not re.search(r"[ \t]\n|^\s", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_yaml(document: object) -> str:
    """Plain data as YAML, in its own order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)

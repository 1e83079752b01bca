"""Graphics cards as people name them: by their name, by their memory, one or several of them."""

from __future__ import annotations

import re

_CARDS: dict[str, float] = {
    r"(?:rtx ?)?5090": 32.0,
    r"(?:rtx ?)?4090": 24.0,
    r"(?:rtx ?)?3090(?: ?ti)?": 24.0,
    r"(?:rtx ?)?(?:4080|5080)(?: super)?": 16.0,
    r"(?:rtx ?)?5070 ?ti": 16.0,
    r"(?:rtx ?)?4070 ?ti super": 16.0,
    r"(?:rtx ?)?(?:4070|5070)(?: ?ti)?(?: super)?": 12.0,
    r"(?:rtx ?)?3080 ?ti": 12.0,
    r"(?:rtx ?)?3080": 10.0,
    r"(?:rtx ?)?(?:4060|5060)(?: ?ti)?": 8.0,
    r"(?:rtx ?)?3060 ?ti": 8.0,
    r"(?:rtx ?)?3060": 12.0,
    r"(?:rtx ?)?(?:3070|2080|2070)(?: ?ti)?": 8.0,
    r"(?:gtx ?)?1080 ?ti": 11.0,
    r"(?:gtx ?)?(?:1080|1070)": 8.0,
    r"titan rtx": 24.0,
    r"rtx ?pro ?6000(?: blackwell)?": 96.0,
    r"(?:rtx ?)?(?:quadro )?(?:a6000|6000 ?ada|6000)": 48.0,
    r"(?:rtx ?)?5000 ?ada": 32.0,
    r"(?:rtx ?)?(?:4500 ?ada|a5000)": 24.0,
    r"(?:rtx ?)?(?:4000 ?ada|a4500)": 20.0,
    r"(?:rtx ?)?a4000": 16.0,
    r"rx ?7900 ?xtx": 24.0,
    r"rx ?(?:6800|6900|7800)(?: ?xt)?": 16.0,
    r"mi300x?": 192.0,
    r"mi250x?": 128.0,
    r"mi210": 64.0,
    r"l40s?": 45.0,
    r"l4": 22.5,
    r"t4": 16.0,
    r"p40": 24.0,
    r"p100": 16.0,
    r"v100[ -]?16 ?gb?": 16.0,
    r"v100": 32.0,
    r"a100[ -]?40 ?gb?": 40.0,
    r"a100": 80.0,
    r"a40": 45.0,
    r"a30": 24.0,
    r"a10g?": 22.5,
    r"h100": 80.0,
    r"gh200": 96.0,
    r"h200": 141.0,
    r"b200": 180.0,
}
_GB = r"(\d+(?:\.\d+)?) ?(?:gb|gib|g|gigs?|gigabytes?)\b(?: of)?(?: (?:vram|gpu|graphics|card|video|cuda|nvidia)\w*)?"
_NAMED = re.compile(rf"\b(?:{'|'.join(_CARDS)})s?\b")
_SEVERAL = {"two": 2, "both": 2, "a pair of": 2, "dual": 2, "three": 3, "four": 4, "quad": 4, "eight": 8}
_COUNT = rf"(?:(?P<number>[2-9]|16) ?(?:x|×|times)? ?|(?P<word>{'|'.join(_SEVERAL)}) )"

_OF_A_MAKER = re.compile(r"\b(?:rtx|gtx|rx|radeon|quadro|tesla|arc|titan|instinct) ?[a-z]?\d{3,4}\w*\b")


def unknown_card(text: str) -> str:
    """A card of a known maker whose memory is not known here, by its name; empty: none."""
    return match[0] if not cards_gib(text) and (match := _OF_A_MAKER.search(text)) else ""


def cards_gib(text: str) -> float:
    """The memory of a graphics card that is named in a readable sentence, in GiB; 0.0: none is."""
    text = _apart(text)
    if _NAMED.search(text) and (
        said := re.search(
            r"\b(\d{1,3}) ?(?:gb|gib|gigs?)\b(?! (?:of )?(?:ram|disk|"
            r"memory))",
            text,
        )
    ):
        return float(said[1])  # `a 4060 ti with 16 gb`
    for name, gib in _CARDS.items():
        if re.search(rf"\b(?:{name})s?\b", text):
            return gib
    return float(match[1]) if (match := re.search(_GB, text)) else 0.0


def cards_counted(text: str) -> int:
    """How many cards of that kind are named: `2x 4090`, `two 24 gb cards`; 1 where no number stands before it."""
    text = _apart(text)
    card = _NAMED.search(text) or re.search(_GB, text)
    if card is None:
        return 1
    before = re.search(rf"{_COUNT}(?:nvidia |geforce |used |old |of those |of them )*$", text[: card.start()])
    if before is None or not (before["word"] or re.match(r"[2-9x ×]+(?!\d)", before[0])):
        return 1
    return _SEVERAL[before["word"]] if before["word"] else int(before["number"])


def _apart(text: str) -> str:
    """A count and the card that is written to it, `2x4090`, apart."""
    return re.sub(r"(?<![\w.])(\d{1,2}) ?[x×](?=[a-z]?\d)", r"\1 x ", text)

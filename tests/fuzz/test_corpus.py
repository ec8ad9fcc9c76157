# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What a long search (``python -m tests.fuzz``) has found to be worth trying, and a little of what lies around it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
CHANGES = 20


def changed(data: bytes, chance: random.Random) -> bytes:
    """Some bytes exchanged, left out, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[at : at + chance.randint(1, 8)]
            case 2:
                changed[at:at] = changed[at : at + chance.randint(1, 16)]
            case 3:
                changed[at:at] = chance.choice([b"<", b">", b"&", b"\r\n", b"\n\n", b"\0", b"=", b"]]>", b"<!", b"0"])
            case 4:
                del changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_corpus(target: str) -> None:
    """The readers hold what `targets` says, for each input that was kept and for inputs like it."""
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) > 20
    chance = random.Random(target)
    for path in inputs:
        data = path.read_bytes()
        for tried in (data, *(changed(data, chance) for _ in range(CHANGES))):
            try:
                TARGETS[target](tried)
            except Exception as error:
                raise AssertionError(f"{path.name}: {tried!r}") from error

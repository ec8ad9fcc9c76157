# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The inputs that a long search (``python -m tests.fuzz``) has found, and inputs that are similar to them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
CHANGES = 20


def changed(data: bytes, rng: random.Random) -> bytes:
    """Return the data with some bytes replaced, removed, repeated, inserted or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 16)]
            case 3:
                changed[at:at] = rng.choice([b"<", b">", b"&", b"\r\n", b"\n\n", b"\0", b"=", b"]]>", b"<!", b"0"])
            case 4:
                del changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_corpus(target: str) -> None:
    """The properties in `targets` hold for each input of the corpus and for inputs that are similar to it."""
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) > 20
    rng = random.Random(target)
    for path in inputs:
        data = path.read_bytes()
        for tested in (data, *(changed(data, rng) for _ in range(CHANGES))):
            try:
                TARGETS[target](tested)
            except Exception as error:
                raise AssertionError(f"{path.name}: {tested!r}") from error

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A coverage-guided search for input that breaks a reader; it needs ``pip install atheris``.

``python -m tests.fuzz xml --seconds 300`` starts with ``tests/fuzz/corpus/xml``, and adds inputs that reach new code.
Input that breaks the reader is written to a file ``crash-...``; fix the reader, and move the file to the corpus.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pyvo.samp"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run one target."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    corpus = Path(__file__).parent / "corpus" / options.target
    limits = [f"-max_total_time={options.seconds}", "-max_len=2000", "-timeout=10", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], TARGETS[options.target])
    atheris.Fuzz()


main()

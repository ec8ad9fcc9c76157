# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The package as a program: ``python -m pyvo.samp``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())

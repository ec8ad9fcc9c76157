# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tests of `pyvo.samp`."""

from __future__ import annotations

from hypothesis import settings

# The duration of an example depends more on the load of the machine than on the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

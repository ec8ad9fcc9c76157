# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the Web Profile is made of: consent, the pages' mailboxes and pulls, and the URLs that they may read."""

from __future__ import annotations

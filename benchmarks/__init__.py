# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Figures: how fast the hub and the client library are, beside other hubs and beside what the sockets alone cost.

``python -m benchmarks --json out.json`` runs everything; ``python -m benchmarks.soak --minutes 1`` is the endurance
run. Nothing here asserts on time, and what is measured is only imported in processes of its own.
"""

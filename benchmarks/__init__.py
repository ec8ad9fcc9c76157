# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measurements of the hub and of the client library, compared with other hubs and with the cost of the sockets alone.

``python -m benchmarks --json out.json`` runs everything; ``python -m benchmarks.soak --minutes 1`` is the endurance
run. Nothing here asserts on time, and each library that is measured is imported only in its own processes.
"""

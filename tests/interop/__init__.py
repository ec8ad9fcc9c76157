# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Our hub and client against programs that others wrote."""

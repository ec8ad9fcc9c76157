# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""This package's hub and clients with programs of other authors."""

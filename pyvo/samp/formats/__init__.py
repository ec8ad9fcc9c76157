# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Objects of Astropy and other libraries to files, and files to objects. No client, no server."""

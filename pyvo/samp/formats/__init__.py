# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Objects to files and back, without any client.

`registry` maps an object to its MTypes and formats, by the adapters in `tables`, `images`, `sky` and `files`. `readers`
makes an object of a message: `fetching` gets the file, `detection` finds out its format. `votable_reader` reads most
VOTables quickly, `tolerant_votable` the others.
"""

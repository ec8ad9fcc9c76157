# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Convert between objects and files, without any client.

`registry` maps an object to its MTypes and formats, with the adapters in `tables`, `images`, `sky` and `files`.
`readers` makes an object from a message: `fetching` gets the file, and `detection` detects its format. `votable_reader`
reads most VOTables quickly, and `tolerant_votable` reads the others.
"""

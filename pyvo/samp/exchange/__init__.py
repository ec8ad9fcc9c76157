# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables, images, spectra, coverages, rows and positions, to and from messages.

The rooms, from the bottom up: `products` and `sniffing` know what an object or a file is, `table_forms`, `image_forms`
and `sky_forms` how it is written; `shelf` hands files out; `detection` finds out the format of a file, `loading` reads
what arrives, `fits_tables` and `tolerant_votable` the tables; `sending`, `incoming`, `responding`, `presence`,
`linking` and `viewers` each do one of the things that `mixin` gives to a client.
"""

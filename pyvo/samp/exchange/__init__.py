# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables, images, spectra, coverages, rows and positions, to and from messages.

The rooms, from the bottom up: `products` knows what an object is and (`table_forms`, `image_forms`, `sky_forms`) how it is written; `shelf` hands files out;
`loading` reads what arrives; `sending`, `incoming`, `responding`, `presence`, `linking` and `viewers` each do one of
the things that `mixin` gives to a client.
"""

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Objects to messages and back: what a client sends, receives and shares of tables, images, spectra and positions.

`mixin` gives the methods to a client. `sending` chooses formats and calls the recipients, `file_server` lets them read
the files, `reports` collects their responses. `incoming` and `typed_handlers` pass on what arrives. `client_list` lists
the other clients, `linked_table` shares selections, `viewers` controls DS9 and Aladin. `pyvo.samp.formats` converts
between objects and files.
"""

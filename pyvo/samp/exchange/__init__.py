# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Exchange Python objects by messages: send, receive and share tables, images, spectra and positions.

`mixin` adds the methods to a client. `sending` chooses formats and calls the recipients, `file_server` lets them read
the files, and `reports` collects their responses. `incoming` and `typed_handlers` deliver the objects that arrive.
`client_list` lists the other clients, `linked_table` shares selections of rows, and `viewers` controls DS9 and Aladin.
`pyvo.samp.formats` converts between objects and files.
"""

"""XML-RPC over HTTP: readers, writers, the threaded server and the connections."""

from __future__ import annotations

from typing import TypeAlias

#: The body of a request or an answer, and the document in it. A large one is handed on in the buffer in which it was
#: put together, which nobody changes any more: a copy of it would cost as much as to read it.
Bytes: TypeAlias = "bytes | bytearray"

"""XML-RPC over HTTP: readers and a writer of XML-RPC documents, clients and servers."""

from __future__ import annotations

from typing import TypeAlias

#: The body of a request or response. A large body stays in the buffer into which it was received, which does not change
#: afterwards: copying it would take as long as parsing it.
Bytes: TypeAlias = "bytes | bytearray"

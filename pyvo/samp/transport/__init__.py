"""XML-RPC over HTTP: readers and a writer of XML-RPC documents, clients and servers."""

from __future__ import annotations

from typing import TypeAlias

#: The body of a request or response. A large one stays in the buffer that it was received into, which does not change
#: any more: to copy it would take as long as to parse it.
Bytes: TypeAlias = "bytes | bytearray"

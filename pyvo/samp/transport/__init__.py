"""XML-RPC over HTTP: readers, writers, the threaded server and the connections."""

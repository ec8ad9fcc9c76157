# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""One small document from a web server: quickly or not at all."""

from __future__ import annotations

import socket
import time

from ..errors import SAMPTransportError
from .http import AnswerReader, HTTPError
from .http_url import http_address

__all__ = ["fetch"]


def fetch(url: str, max_size: int, timeout: float) -> bytes:
    """
    Get what is at an ``http`` URL. Redirects are not followed, proxies not asked.

    Parameters
    ----------
    url : str
        The URL.
    max_size : int
        Bytes that the document may have.
    timeout : float
        Seconds that all of it may take.

    Returns
    -------
    bytes
        The document.

    Raises
    ------
    SAMPTransportError
        It could not be had.
    """
    host, port, path = http_address(url)
    name = f"[{host}]" if ":" in host else host
    request = f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: pyvo.samp\r\nConnection: close\r\n\r\n"
    deadline = time.monotonic() + timeout
    reader = AnswerReader(max_size)
    try:
        with socket.create_connection((host, port), timeout) as sock:
            sock.sendall(request.encode("ascii"))
            answer = None
            while answer is None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(65536)
                reader.feed(data)
                answer = reader.next(closed=not data)
    except TimeoutError as error:
        raise SAMPTransportError(f"{host}:{port} did not answer within {timeout:g} s") from error
    except OSError as error:
        raise SAMPTransportError(f"{host}:{port} cannot be reached: {error.strerror or error}") from error
    except HTTPError as error:
        raise SAMPTransportError(f"{host}:{port} gave no valid answer: {error}") from error
    if answer.status != 200:
        raise SAMPTransportError(f"{host}:{port} answered with HTTP status {answer.status}")
    return bytes(answer.body)

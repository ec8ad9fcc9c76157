# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""SAMP values, MTypes, messages, responses and timeouts. This package does no I/O and starts no threads."""

from __future__ import annotations

from .messages import (
    NO_RESPONSE,
    best_match,
    check_message,
    check_mtype,
    check_pattern,
    check_response,
    error_response,
    matches,
    ok_response,
    subtypes,
    warning_response,
)
from .values import MAX_DEPTH, SAMPValue, encode, format_float, parse_bool, parse_float, parse_int

__all__ = [
    "MAX_DEPTH",
    "NO_RESPONSE",
    "SAMPValue",
    "best_match",
    "check_message",
    "check_mtype",
    "check_pattern",
    "check_response",
    "encode",
    "error_response",
    "format_float",
    "matches",
    "ok_response",
    "parse_bool",
    "parse_float",
    "parse_int",
    "subtypes",
    "warning_response",
]

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A request that is answered when somebody else has answered a call (R22): the same in both profiles."""

from __future__ import annotations

from collections.abc import Callable

from pyvo.samp.broker import Broker, Client, Payload
from pyvo.samp.errors import SAMPProxyError
from pyvo.samp.protocol import parse_float
from pyvo.samp.transport.deferred import Deferred
from pyvo.samp.transport.loop import Loop, Timer

__all__ = ["response_of_call", "wait_time"]

# A selector cannot wait longer than some weeks; who asks for more does not mind
LONGEST_WAIT = 1e6


def response_of_call(
    broker: Broker,
    loop: Loop,
    client: Client,
    recipient_id: str,
    message: Payload,
    seconds: float | None,
    seen: Callable[[Payload], object] = lambda _response: None,
) -> Deferred:
    """
    Call, and answer with the response, a fault when time is up, or nothing when the caller hangs up (R22).

    Parameters
    ----------
    broker : Broker
        Who calls.
    loop : Loop
        Whose clock counts.
    client : Client
        On whose behalf.
    recipient_id : str
        Whom.
    message : Payload
        The message.
    seconds : float or None
        How long to wait; None waits without limit.
    seen : callable
        Called with the response before the client gets it, in any thread.

    Returns
    -------
    Deferred
        To be resolved with the response.
    """
    answer = Deferred()
    timer: Timer | None = None

    def on_response(response: Payload) -> None:
        if timer is not None:
            timer.cancel()
        seen(response)
        answer.resolve(response.encoded())

    def give_up() -> None:
        if call.cancel():
            answer.fail(SAMPProxyError(1, f"{call.recipient.title} has not answered within {seconds:g} s"))

    def hang_up() -> None:
        if timer is not None:
            timer.cancel()
        call.cancel()

    call = broker.call_and_wait(client, recipient_id, message, on_response)
    if answer.state == "waiting":  # not so if it was for the hub itself, which answers at once
        answer.on_cancel(hang_up)
        if seconds is not None:
            timer = loop.call_later(seconds, give_up)
    return answer


def wait_time(text: str) -> float | None:
    """
    Read a time-out (R22).

    Parameters
    ----------
    text : str
        Seconds as a SAMP int; a SAMP float is taken as well.

    Returns
    -------
    float or None
        Seconds; None for no limit.

    Raises
    ------
    SAMPValueError
        It is no number.
    """
    seconds = parse_float(text.strip())
    return min(seconds, LONGEST_WAIT) if seconds > 0 else None

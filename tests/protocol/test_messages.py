"""Messages and responses (R16, R17)."""

from __future__ import annotations

from typing import Any

import pytest

from pyvo.samp.errors import SAMPValueError
from pyvo.samp.protocol import NO_RESPONSE, check_message, check_response, error_response, ok_response, warning_response


def test_a_message_is_passed_on_unchanged() -> None:
    """R16: additional keys are kept, and nothing is added or removed."""
    message = {"samp.mtype": "a.b", "samp.params": {"x": ["1"]}, "x-own": {"y": "z"}}
    assert check_message(message) is message


def test_missing_params_become_an_empty_map() -> None:
    """R16: the map is added to a copy, and the original message is unchanged."""
    message = {"samp.mtype": "a.b"}
    assert check_message(message) == {"samp.mtype": "a.b", "samp.params": {}}
    assert message == {"samp.mtype": "a.b"}


@pytest.mark.parametrize(
    ("value", "error_text"),
    [
        ("text", "a message is a map, not a str"),
        (["a"], "a message is a map, not a list"),
        (None, "a message is a map, not a NoneType"),
        ({}, "samp.mtype"),
        ({"samp.params": {}}, "samp.mtype"),
        ({"samp.mtype": ["a"]}, "samp.mtype"),
        ({"samp.mtype": {}}, "samp.mtype"),
        ({"samp.mtype": ""}, "is not an MType"),
        ({"samp.mtype": "a.*"}, "is not an MType"),
        ({"samp.mtype": "a", "samp.params": ""}, "samp.params must be a map"),
        ({"samp.mtype": "a", "samp.params": []}, "samp.params must be a map"),
    ],
)
def test_invalid_messages(value: Any, error_text: str) -> None:
    """R16: the map, its MType and its parameters are checked."""
    with pytest.raises(SAMPValueError, match=error_text):
        check_message(value)


@pytest.mark.parametrize(
    "response",
    [
        {"samp.status": "samp.ok", "samp.result": {"x": "1"}, "further": "key"},
        {"samp.status": "samp.warning", "samp.result": {}, "samp.error": {"samp.errortxt": "hm"}},
        {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "no"}},
    ],
)
def test_a_response_is_passed_on_unchanged(response: dict[str, Any]) -> None:
    """R17: responses with each status are returned as they are."""
    assert check_response(response) is response


@pytest.mark.parametrize(
    ("response", "completed"),
    [
        ({"samp.status": "samp.ok"}, {"samp.result": {}}),
        ({"samp.status": "samp.error"}, {"samp.error": {}}),
        ({"samp.status": "samp.warning"}, {"samp.error": {}, "samp.result": {}}),
    ],
)
def test_a_missing_map_of_a_response_becomes_an_empty_one(response: dict[str, Any], completed: dict[str, Any]) -> None:
    """R17: a reply is not lost if its sender states only the status."""
    before = dict(response)
    assert check_response(response) == response | completed
    assert response == before


@pytest.mark.parametrize(
    ("value", "error_text"),
    [
        ("samp.ok", "a response is a map, not a str"),
        ({}, "samp.status"),
        ({"samp.status": "ok"}, "samp.status"),
        ({"samp.status": {"samp.ok": "1"}}, "samp.status"),
        ({"samp.status": ["samp.ok"]}, "samp.status"),
        ({"samp.status": "samp.ok", "samp.result": "x"}, "samp.result must be a map"),
        ({"samp.status": "samp.error", "samp.error": "x"}, "samp.error must be a map"),
        ({"samp.status": "samp.warning", "samp.result": {}, "samp.error": []}, "samp.error must be a map"),
    ],
)
def test_invalid_responses(value: Any, error_text: str) -> None:
    """R17: the map, its status and its parts are checked."""
    with pytest.raises(SAMPValueError, match=error_text):
        check_response(value)


def test_responses_that_are_made_here_are_valid() -> None:
    """R17: the functions make responses with all three statuses, and with the keys of the standard."""
    assert ok_response() == {"samp.status": "samp.ok", "samp.result": {}}
    for response in (
        ok_response({"x": "1"}),
        warning_response({"x": "1"}, {"samp.errortxt": "hm"}),
        error_response("no"),
    ):
        assert check_response(response) is response
    assert error_response("no", usertxt="sorry", debugtxt="line 3", code=NO_RESPONSE) == {
        "samp.status": "samp.error",
        "samp.error": {
            "samp.errortxt": "no",
            "samp.usertxt": "sorry",
            "samp.debugtxt": "line 3",
            "samp.code": "samp.noresponse",
        },
    }
    assert error_response("no") == {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "no"}}

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The URLs that a web client may fetch through the hub (R46)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.transport.urls import file_url_to_path
from pyvo.samp.web_profile import url_permissions
from pyvo.samp.web_profile.url_permissions import UrlPermissions, find_urls, normalize_url, url_hashes


@pytest.fixture
def permissions():
    permissions = UrlPermissions()
    permissions.add_client("page")
    permissions.add_client("other")
    return permissions


def load(url):
    return {"samp.mtype": "table.load.votable", "samp.params": {"url": url, "name": "a table"}}


def test_only_urls_that_a_program_sent_to_this_client_are_allowed(permissions):
    """R46."""
    permissions.allow_offered("page", load("http://127.0.0.1:2525/dynamic/1"))
    assert permissions.allowed_url("page", "http://127.0.0.1:2525/dynamic/1") == "http://127.0.0.1:2525/dynamic/1"
    assert permissions.allowed_url("other", "http://127.0.0.1:2525/dynamic/1") is None
    assert permissions.allowed_url("nobody", "http://127.0.0.1:2525/dynamic/1") is None
    for target in (
        "file:///etc/passwd",
        "http://127.0.0.1:2525/dynamic/2",
        "http://127.0.0.1:2525/dynamic/1/../../secret",
        "http://127.0.0.1:2526/dynamic/1",
        "https://127.0.0.1:2525/dynamic/1",
        "http://127.0.0.1:2525@evil.example/dynamic/1",
        "",
        "http:",
        "nonsense",
        "http://[::1",
        "http://h:port/",
    ):
        assert permissions.allowed_url("page", target) is None


def test_a_client_that_has_unregistered_is_allowed_nothing(permissions):
    permissions.allow_offered("page", load("http://h/x"))
    permissions.remove_client("page")
    permissions.allow_offered("page", load("http://h/x"))
    assert permissions.allowed_url("page", "http://h/x") is None


@pytest.mark.parametrize(
    ("mentioned", "requested"),
    [
        ("http://h/a b.vot", "http://h/a%20b.vot"),
        ("http://h/q?a=1&b=%41", "http://h/q?a=1&b=%41"),
        ("http://h/q?a=1&b=%41", "http%3A%2F%2Fh%2Fq%3Fa%3D1%26b%3D%2541"),
        ("http://h/caf\u00e9", "http://h/caf%C3%A9"),
        ("http://H:80", "http://h/"),
        ("HTTP://h/x#part", "http://h/x"),
        ("file:///tmp/a b.vot", "file:///tmp/a%20b.vot"),
        ("file:/tmp/x", "file:///tmp/x"),
        ("file://localhost//tmp/x", "file:///tmp/x"),
        ("file:///tmp/x?y", "file:///tmp/x?y"),
        ("file:///tmp/50%25", "file%3A%2F%2F%2Ftmp%2F50%2525"),
    ],
)
def test_ways_to_write_one_url(permissions, mentioned, requested):
    """R46, R48: the URL may be raw, or percent-encoded as a whole."""
    permissions.allow_offered("page", load(mentioned))
    assert permissions.allowed_url("page", requested) == mentioned


@pytest.mark.parametrize(
    "echo",
    ["file:///home/me/.netrc", "file:/home/me/.netrc", "file:///home/me/x/../.netrc", "file:///home/me/%2Enetrc"],
)
def test_a_program_that_repeats_a_url_of_a_page_does_not_allow_it(permissions, echo):
    """R46: for example, in the error text "cannot open file:///home/me/.netrc"."""
    permissions.block_sent("page", url_hashes(load("file:///home/me/.netrc")))
    permissions.allow_offered("page", {"samp.status": "samp.error", "samp.error": {"samp.errortxt": echo}})
    permissions.allow_offered("other", load(echo))
    assert permissions.allowed_url("page", echo) is None
    assert permissions.allowed_url("other", echo) is None


def test_a_page_that_repeats_a_url_of_a_program_changes_nothing(permissions):
    permissions.allow_offered("page", load("http://h/x"))
    permissions.block_sent("page", url_hashes(load("http://h/x")))
    permissions.allow_offered("other", load("http://h/x"))
    assert permissions.allowed_url("page", "http://h/x")
    assert permissions.allowed_url("other", "http://h/x")


def test_a_url_within_a_text_is_not_allowed(permissions):
    permissions.allow_offered("page", {"samp.error": {"samp.errortxt": "cannot open file:///etc/passwd"}})
    permissions.allow_offered("page", {"text": "file:///etc/passwd cannot be opened"})
    assert permissions.allowed_url("page", "file:///etc/passwd") is None


def test_only_values_are_searched_and_at_any_depth():
    value = {"http://key/": ["x", {"u": " file:/a ", "v": ["HTTPS://b", "ftp://c", "/d", "javascript:e"]}]}
    assert sorted(find_urls(value)) == ["HTTPS://b", "file:/a"]
    assert list(find_urls("http://h/" + "x" * 9000)) == []


def test_only_the_latest_urls_are_remembered(permissions, monkeypatch):
    monkeypatch.setattr(url_permissions, "MAX_URLS", 3)
    for number in range(4):
        permissions.allow_offered("page", load(f"http://h/{number}"))
        permissions.allow_offered("page", load("http://h/0"))
    assert permissions.allowed_url("page", "http://h/0")
    assert permissions.allowed_url("page", "http://h/1") is None
    assert permissions.allowed_url("page", "http://h/3")


def test_a_page_that_mentions_too_many_urls_exceeds_its_quota(permissions, monkeypatch):
    """A page cannot make the hub forget its URLs by sending more of them."""
    monkeypatch.setattr(url_permissions, "MAX_BLOCKED", 10)
    permissions.allow_offered("page", load("http://h/old"))
    for number in range(100):
        keys = url_hashes(load(f"file:///{number}"))
        assert permissions.has_quota("page", keys) == (number < 10)
        if permissions.has_quota("page", keys):
            permissions.block_sent("page", keys)
    permissions.allow_offered("page", load("file:///5"))
    permissions.allow_offered("page", load("file:///50"))
    permissions.allow_offered("page", load("http://h/old"))
    assert permissions.allowed_url("page", "file:///5") is None
    assert permissions.allowed_url("page", "file:///50") is None
    assert permissions.allowed_url("page", "http://h/old")


def test_each_origin_has_its_own_quota(permissions, monkeypatch):
    """A page cannot use the quota of other origins, or get a new quota by registering again."""
    monkeypatch.setattr(url_permissions, "MAX_BLOCKED", 10)
    permissions.add_client("evil", "https://evil.example")
    permissions.block_sent("evil", url_hashes([f"http://h/{number}" for number in range(10)]))
    permissions.remove_client("evil")
    permissions.add_client("evil again", "https://evil.example")
    assert not permissions.has_quota("evil again", url_hashes(load("http://h/new")))
    assert permissions.has_quota("evil again", url_hashes(load("http://h/3")))
    assert permissions.has_quota("page", url_hashes(load("http://h/new")))
    for client in ("evil again", "page"):
        permissions.allow_offered(client, load("http://h/data"))
    assert permissions.allowed_url("evil again", "http://h/data") is None
    assert permissions.allowed_url("page", "http://h/data")


def test_programs_may_mention_any_number_of_urls(permissions, monkeypatch):
    monkeypatch.setattr(url_permissions, "MAX_TRUSTED", 10)
    for number in range(100):
        permissions.allow_offered("page", load(f"http://h/{number}"))
    assert permissions.allowed_url("page", "http://h/0")
    assert permissions.allowed_url("page", "http://h/99")
    assert len(permissions._trusted) == 10
    permissions.block_sent("other", url_hashes(load("http://h/99")))
    permissions.allow_offered("other", load("http://h/99"))
    assert permissions.allowed_url("other", "http://h/99")


def test_urls_beyond_the_quota_are_not_counted(permissions, monkeypatch):
    monkeypatch.setattr(url_permissions, "MAX_BLOCKED", 10)
    keys = url_hashes([f"http://h/{number}" for number in range(1000)])
    assert len(keys) == 11
    assert not permissions.has_quota("page", keys)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///tmp/x", "/tmp/x"),
        ("file:/tmp/x", "/tmp/x"),
        ("FILE://LOCALHOST/tmp/x%20y", "/tmp/x y"),
        ("file://localhost//tmp/x", "/tmp/x"),
        ("file:////server/share", "/server/share"),
        ("file://server/share", None),
        ("http://localhost/x", None),
        ("file:x", None),
        ("", None),
        ("//[", None),
    ],
)
def test_paths_of_file_urls(url, path):
    assert file_url_to_path(url) == path


@given(st.text())
def test_any_text_is_normalized_or_rejected(text):
    for prefix in ("", "http://", "file:", "http://h/", "file:///"):
        key = normalize_url(prefix + text)
        assert key is None or isinstance(key, str)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_url_that_is_encoded_as_a_whole_is_the_same_url(text):
    """R48."""
    from urllib.parse import quote

    permissions = UrlPermissions()
    permissions.add_client("page")
    url = "http://host/" + quote(text)
    permissions.allow_offered("page", [url])
    if list(find_urls([url])):
        assert permissions.allowed_url("page", url) == url
        assert permissions.allowed_url("page", quote(url, safe="")) == url

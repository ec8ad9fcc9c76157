# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pages as clients of a hub: consent, the operations, and the messages that they may send."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import xmlrpc.client

import pytest

from pyvo.samp import SAMPHubServer, WebProfileDialog
from pyvo.samp.web_profile import profile as web_profile
from pyvo.samp.web_profile.consent import MAX_SHARING

from .recipients import wait_until
from .web_pages import ORIGIN, Page, Program, Response, message

Fault = xmlrpc.client.Fault
OK = {"samp.status": "samp.ok", "samp.result": {"n": "1"}}


@pytest.fixture
def hub(make_hub):
    return make_hub(web_profile=True, web_profile_dialog=lambda *_: True)


@pytest.fixture
def page(hub):
    with Page(hub) as page:
        yield page.register()


# Registration


def test_registration(hub):
    """R6, R40."""
    with Page(hub) as page:
        registration = page.call("register", {"samp.name": "Sky page"})
        standard = {"samp.hub-id", "samp.self-id", "samp.private-key", "samp.url-translator"}
        assert set(registration) == {*standard, "x-samp.upload"}
        assert registration["samp.hub-id"] == "hub"
        assert len(registration["samp.private-key"]) >= 32
        for key in ("samp.url-translator", "x-samp.upload"):
            assert registration["samp.private-key"] not in registration[key]
            assert registration[key].startswith(f"http://localhost:{hub._web_port}/")
        page.accept(registration)
        assert page.call("getMetadata", page.id) == {}


def test_an_old_page_registers_with_a_string(hub):
    """R40: the string is its name."""
    with Page(hub) as page:
        assert page.call("register", "Old page")["samp.self-id"]


@pytest.mark.parametrize("identity", [{}, {"samp.name": ""}, {"samp.name": {}}, [], ""])
def test_a_registration_without_a_name_is_a_fault(hub, identity):
    """R40."""
    with Page(hub) as page, pytest.raises(Fault, match="samp.name"):
        page.call("register", identity)


def test_the_consent_request_contains_the_origin_of_the_http_request(make_hub):
    """R40: the hub does not use an origin that the page puts into its metadata."""
    requests = []
    hub = make_hub(web_profile=True, web_profile_dialog=lambda *given: (requests.append(given), True)[1])
    claims = {"samp.name": "Trust\x7fme\n\x1b[2J", "origin": "https://bank.example", "author": "x\n"}
    with Page(hub, "https://evil.example") as page:
        # most control characters cannot be written into XML, but DEL and line feeds can
        claims["samp.name"] = claims["samp.name"].replace("\x1b", "")
        page.call("register", claims)
    name, details, client, origin = requests[0]
    assert name == "Trust?me [2J"
    assert origin == "https://evil.example"
    assert details == {"samp.name": "Trust?me [2J", "origin": "https://bank.example", "author": "x"}
    assert client[0] == "127.0.0.1"


@pytest.mark.skipif(sys.platform != "linux", reason="this system does not report the user of a connection")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can use several user ids")
def test_another_user_of_this_machine_is_rejected(make_hub):
    """Another user could send an origin that is always allowed. Root may do anything."""
    requests = []
    hub = make_hub(web_profile=True, web_profile_dialog=lambda *given: (requests.append(given), True)[1])
    os.seteuid(4321)
    try:
        page = Page(hub)  # a socket belongs to the user that creates it
    finally:
        os.seteuid(0)
    with page, pytest.raises(Fault, match="only the user that runs the hub"):
        page.register()
    assert requests == []
    with Page(hub) as page:
        page.register()
    assert len(requests) == 1


def test_a_denied_registration_is_a_fault(make_hub):
    """R40."""
    hub = make_hub(web_profile=True, web_profile_dialog="deny")
    with Page(hub) as page:
        with pytest.raises(Fault, match="did not allow Sky page"):
            page.register()
        assert page.call("ping") == ""


def test_without_a_terminal_no_page_is_allowed(make_hub):
    """The default prompt uses the terminal, and the tests have none."""
    hub = make_hub(web_profile=True)
    with Page(hub) as page, pytest.raises(Fault, match="did not allow"):
        page.register()


class User:
    """A consent prompt that decides when the test sets ``decided``."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.decided = threading.Event()
        self.decision: object = True

    def __call__(self, name: str, origin: str) -> object:
        self.requests.append(f"{name} {origin}")
        assert self.decided.wait(20)
        self.decided.clear()
        return self.decision


@pytest.fixture
def user(make_hub):
    user = User()
    user.hub = make_hub(web_profile=True, web_profile_dialog=user)
    yield user
    user.decided.set()


def waiting_for_consent(user) -> int:
    """Return how many registrations wait for a decision."""
    return sum(len(ticket._waiting) for ticket in user.hub._running.web._consent._open_tickets())


def registering(page: Page, name: str = "Sky page"):
    sock = page.connect()
    page.send(sock, "register", {"samp.name": name})
    return sock


def test_an_open_consent_request_blocks_no_other_client(user):
    """R41."""
    with Page(user.hub, "https://1.example") as one, Page(user.hub, "https://2.example") as two, Program(user.hub):
        first, second = registering(one, "1"), registering(two, "2")
        wait_until(lambda: user.requests)
        assert two.call("ping") == ""
        with Program(user.hub, "x.y") as other:
            assert other.call("notifyAll", message("x.y")) == []
        assert user.requests == ["1 https://1.example"]
        user.decided.set()
        one.accept(one.receive(first))
        wait_until(lambda: len(user.requests) == 2)
        user.decided.set()
        two.accept(two.receive(second))


def test_one_decision_registers_five_tabs_that_register_at_the_same_moment(user):
    """R40, R41: this happens when a browser restores a session. Each tab gets its own registration."""
    with contextlib.ExitStack() as stack:
        tabs = [stack.enter_context(Page(user.hub)) for _ in range(5)]
        socks = [registering(tab, f"tab {number}") for number, tab in enumerate(tabs)]
        wait_until(lambda: waiting_for_consent(user) == 5)
        user.decided.set()
        for tab, sock in zip(tabs, socks, strict=True):
            tab.accept(tab.receive(sock))
            tab.listen("x.y")
        assert len({tab.key for tab in tabs} | {tab.id for tab in tabs}) == 10
        assert len(user.requests) == 1


def test_a_denial_denies_all_tabs(user):
    """R40."""
    user.decision = False
    with contextlib.ExitStack() as stack:
        tabs = [stack.enter_context(Page(user.hub)) for _ in range(5)]
        socks = [registering(tab) for tab in tabs]
        wait_until(lambda: waiting_for_consent(user) == 5)
        user.decided.set()
        for tab, sock in zip(tabs, socks, strict=True):
            with pytest.raises(Fault, match="did not allow"):
                tab.receive(sock)
        assert len(user.requests) == 1


def test_a_consent_request_stays_open_when_one_of_its_tabs_is_closed(user):
    """R41, R43."""
    with Page(user.hub) as one, Page(user.hub) as two, Program(user.hub) as program:
        first = registering(one)
        wait_until(lambda: user.requests)
        second = registering(two)
        wait_until(lambda: waiting_for_consent(user) == 2)
        first.close()
        wait_until(lambda: waiting_for_consent(user) == 1)
        user.decided.set()
        two.accept(two.receive(second))
        assert sorted(program.call("getRegisteredClients")) == sorted(["hub", two.id])


def test_many_registrations_from_one_origin_are_one_request(user):
    """R41: the number of registrations is limited, and they need no threads."""
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        pages = [stack.enter_context(Page(user.hub)) for _ in range(MAX_SHARING)]
        for page in pages:
            registering(page)
        wait_until(lambda: waiting_for_consent(user) == MAX_SHARING)
        for _ in range(50):
            with pytest.raises(Fault, match=f"Too many pages of {ORIGIN}"):
                pages[0].register()
        assert threading.active_count() <= threads + 1
        user.decided.set()
        wait_until(lambda: len(user.hub._running.web._web_clients) == MAX_SHARING)
        assert len(user.requests) == 1


def test_one_decision_registers_no_more_pages_than_the_limit(user, monkeypatch):
    """The other pages get a fault."""
    monkeypatch.setattr(web_profile, "MAX_CLIENTS", 3)
    with contextlib.ExitStack() as stack:
        tabs = [stack.enter_context(Page(user.hub)) for _ in range(5)]
        socks = [registering(tab) for tab in tabs]
        wait_until(lambda: waiting_for_consent(user) == 5)
        user.decided.set()
        bodies = [Response(sock).body for sock in socks]
        assert sum(b"There are 3 web clients" in body for body in bodies) == 2
        assert len(user.hub._running.web._web_clients) == 3


def test_a_page_that_is_closed_during_its_consent_request_is_not_registered(user):
    """R41, R43."""
    with Page(user.hub) as page, Page(user.hub, "https://b.example") as other, Program(user.hub) as program:
        registering(page).close()
        sock = registering(other)
        wait_until(lambda: user.requests)
        user.decided.set()
        wait_until(lambda: len(user.requests) == 2)
        user.decided.set()
        other.accept(other.receive(sock))
        assert sorted(program.call("getRegisteredClients")) == sorted(["hub", other.id])


def test_a_decision_holds_once_unless_it_is_always(user):
    """R40."""
    with Page(user.hub) as page:
        for decision in (True, "always"):
            user.decision = decision
            sock = registering(page)
            wait_until(lambda: user.requests)
            user.decided.set()
            page.receive(sock)
            assert user.requests.pop() == f"Sky page {ORIGIN}"
        page.register()
        assert user.requests == []


def test_a_dialog_of_the_upstream_class(make_hub):
    class Dialog(WebProfileDialog):
        def show_dialog(self, samp_name, details, client, origin):
            assert (samp_name, details["samp.name"], origin) == ("Sky page", "Sky page", ORIGIN)
            self.consent()

    dialog = Dialog()
    hub = make_hub(web_profile=True, web_profile_dialog=dialog)
    with Page(hub) as page:
        sock = registering(page)
        wait_until(lambda: not dialog.queue_request.empty())
        dialog.handle_queue()
        page.accept(page.receive(sock))


def test_stopping_the_hub_denies_open_requests(user):
    """R48: the page gets a fault before the hub closes its connection."""
    with Page(user.hub) as page:
        sock = registering(page)
        wait_until(lambda: user.requests)
        began = time.monotonic()
        user.hub.stop()
        assert time.monotonic() - began < 2
        with pytest.raises(Fault, match="did not allow"):
            page.receive(sock)
        assert sock.recv(1) == b""
        user.decided.set()


def test_the_number_of_pages_is_limited(hub, monkeypatch):
    monkeypatch.setattr(web_profile, "MAX_CLIENTS", 3)
    with Page(hub) as page:
        for _ in range(3):
            page.register()
            page.key, key = "", page.key
        with pytest.raises(Fault, match="no more"):
            page.register()
        page.key = key
        page.call("unregister")
        page.key = ""
        page.register()


# The operations


def test_every_operation_that_sends_to_a_page(hub, page):
    """R18, R32, R42."""
    page.listen("x.y")
    with Program(hub, "z") as program:
        text = message("x.y", a="1 < 2 & \u00e9")
        assert program.call("notify", page.id, text) == ""
        assert program.call("notifyAll", text) == [page.id]
        msg_id = program.call("call", page.id, "tag1", text)
        assert list(program.call("callAll", "tag2", text)) == [page.id]
        got = page.pull_some(4)
        assert [method for method, _ in got] == ["receiveNotification"] * 2 + ["receiveCall"] * 2
        assert got[0][1] == [program.id, text]
        assert got[2][1] == [program.id, msg_id, text]
        for _, (_sender, msg_id, _text) in got[2:]:
            page.call("reply", msg_id, OK)
        responses = program.wait_for(2)
        assert [(method, params[1:]) for method, params in responses] == [
            ("receiveResponse", (page.id, "tag1", OK)),
            ("receiveResponse", (page.id, "tag2", OK)),
        ]
        responses = []
        waiting = threading.Thread(
            target=lambda: responses.append(program.call("callAndWait", page.id, text, "10")), daemon=True
        )
        waiting.start()
        ((_, (_, msg_id, _)),) = page.pull()
        page.call("reply", msg_id, OK)
        waiting.join(10)
        assert responses == [OK]


def test_every_operation_that_a_page_sends_with(hub, page):
    """R18, R20."""
    page.listen("z")
    with Program(hub, "table.load.votable") as program:
        text = message("table.load.votable", url="http://x/\u661f")
        page.call("notify", program.id, text)
        assert page.call("notifyAll", text) == [program.id]
        page.call("call", program.id, "tag1", text)
        page.call("callAll", "tag2", text)
        calls = program.wait_for(4)
        assert calls[0] == ("receiveNotification", (program.key, page.id, text))
        for _, (_key, _sender, msg_id, _text) in calls[2:]:
            program.call("reply", msg_id, OK)
        assert page.pull_some(2) == [
            ("receiveResponse", [program.id, "tag1", OK]),
            ("receiveResponse", [program.id, "tag2", OK]),
        ]
        sock = page.connect()
        page.send(sock, "callAndWait", page.key, program.id, text, "10")
        program.call("reply", program.wait_for(5)[4][1][2], OK)
        assert page.receive(sock) == OK


def test_two_hundred_notifications_are_pulled_in_order(hub, page):
    """R24, R42."""
    page.listen("x.y")
    with Program(hub) as program:
        for number in range(200):
            program.call("notifyAll", message("x.y", n=str(number)))
        got = page.pull_some(200)
    assert [params[1]["samp.params"]["n"] for _, params in got] == [str(number) for number in range(200)]


def test_metadata_subscriptions_and_listings(hub, page):
    """R11, R12, R14."""
    metadata = {"samp.name": "Sky page", "author.name": "M\u00fcller"}
    page.call("declareMetadata", metadata)
    page.listen("x.*", **{"y.z": {"a": "b"}})
    with Program(hub, "image.load.fits") as program:
        assert program.call("getMetadata", page.id) == metadata
        assert page.call("getSubscriptions", page.id) == {"x.*": {}, "y.z": {"a": "b"}}
        assert sorted(page.call("getRegisteredClients")) == sorted(["hub", program.id])
        assert page.call("getSubscribedClients", "image.load.fits") == {program.id: {}}
        assert program.call("getSubscribedClients", "y.z") == {page.id: {"a": "b"}}


def test_ping_with_and_without_a_key(hub, page):
    """R39, R48."""
    assert page.call("ping") == ""
    page.key = ""
    assert page.call("ping") == ""


def test_a_page_cannot_set_a_callback_url(page):
    """R39."""
    with pytest.raises(Fault, match="no method"):
        page.call("setXmlrpcCallback", "http://127.0.0.1:1/")


def test_a_page_that_does_not_allow_callbacks_cannot_subscribe(page):
    """R13."""
    page.call("declareSubscriptions", {})
    with pytest.raises(Fault, match="not callable"):
        page.call("declareSubscriptions", {"x": {}})


def test_allowing_callbacks_again_keeps_the_queue(hub, page):
    """R48."""
    page.listen("x.y")
    with Program(hub) as program:
        program.call("notifyAll", message("x.y"))
        page.call("allowReverseCallbacks", "1")
        assert len(page.pull()) == 1


def test_a_late_reply_of_a_page_is_dropped(hub, page):
    """R22: a late reply gets no fault, because sampjs would unregister. R21: a second or forged reply gets a fault."""
    page.listen("x.y")
    with Program(hub) as program:
        with pytest.raises(Fault, match="has not responded"):
            program.call("callAndWait", page.id, message("x.y"), "1")
        ((_, (_, late, _)),) = page.pull()
        assert page.call("reply", late, OK) == ""
        program.call("call", page.id, "tag", message("x.y"))
        ((_, (_, msg_id, _)),) = page.pull()
        page.call("reply", msg_id, OK)
        assert len(program.wait_for(1)) == 1
        with Page(hub) as other:
            other.register()
            for client, replied in ((page, late), (page, msg_id), (page, "forged"), (other, late), (other, msg_id)):
                with pytest.raises(Fault, match="waits for a reply"):
                    client.call("reply", replied, OK)


def test_a_page_can_stop_allowing_callbacks(hub, page):
    """R13, R23, R39: its subscriptions end, and its pending calls get an error."""
    page.listen("x.y")
    with Program(hub, "z") as program:
        program.call("call", page.id, "tag", message("x.y"))
        sock = page.begin_pull()
        page.receive(sock)
        program.call("call", page.id, "tag2", message("x.y"))
        page.call("allowReverseCallbacks", "0")
        method, (_, _, tag, response) = program.wait_for(1)[0]
        assert (method, tag) == ("receiveResponse", "tag2")
        assert response["samp.error"]["samp.code"] == "samp.noresponse"
        assert page.call("getSubscriptions", page.id) == {}
        with pytest.raises(Fault, match="not subscribed"):
            program.call("notify", page.id, message("x.y"))
        assert page.pull("0") == []


@pytest.mark.parametrize("allow", ["yes", "2", "", "true"])
def test_an_invalid_boolean_is_a_fault(page, allow):
    """R3."""
    with pytest.raises(Fault):
        page.call("allowReverseCallbacks", allow)


def test_numbers_are_accepted_from_pages(hub, page):
    """R5."""
    assert page.call("allowReverseCallbacks", True) == ""
    assert page.call("pullCallbacks", 0) == []
    assert page.call("pullCallbacks", 0.0) == []
    with pytest.raises(Fault):
        page.call("pullCallbacks", "soon")


def test_a_page_that_unregisters_has_no_valid_key(hub, page):
    """R9, R10."""
    with Program(hub, "samp.hub.event.unregister") as program:
        page.call("unregister")
        assert program.wait_for(1)[0][1][2]["samp.params"] == {"id": page.id}
        for method, *params in (["pullCallbacks", "0"], ["getRegisteredClients"], ["unregister"]):
            with pytest.raises(Fault, match="key"):
                page.call(method, *params)


def test_keys_are_valid_in_their_own_profile_only(hub, page):
    """R38."""
    with Program(hub) as program:
        program.key, page.key = page.key, program.key
        with pytest.raises(Fault, match="key"):
            program.call("getRegisteredClients")
        with pytest.raises(Fault, match="key"):
            page.call("getRegisteredClients")


def test_a_page_is_notified_that_the_hub_shuts_down(hub, page):
    """R26."""
    page.listen("samp.hub.event.shutdown")
    sock = page.begin_pull()
    wait_until(lambda: _pulls(hub, page))
    hub.stop()
    (callback,) = page.receive(sock)
    assert callback["samp.params"][1]["samp.mtype"] == "samp.hub.event.shutdown"


def test_a_page_between_two_pulls_is_notified_that_the_hub_shuts_down(hub, page):
    """R26, R42: the hub waits a moment for the page's next pull."""
    page.listen("samp.hub.event.shutdown")
    page.pull("0")
    stopping = threading.Thread(target=hub.stop)
    stopping.start()
    wait_until(lambda: not hub.is_running)
    threading.Event().wait(0.2)
    ((_, (_, event)),) = page.pull()
    assert event["samp.mtype"] == "samp.hub.event.shutdown"
    stopping.join(5)


def _pulls(hub: SAMPHubServer, page: Page) -> int:
    assert hub._running is not None
    assert hub._running.web is not None
    return len(hub._running.web._web_clients[page.id]._waiting)


# What pages may send (R47)


@pytest.mark.parametrize(
    "mtype",
    [
        "samp.app.ping",
        "samp.msg.progress",
        "table.load.fits",
        "coord.pointAt.sky",
        "coverage.load.moc.fits",
        "bibcode.load",
    ],
)
def test_a_page_may_send_safe_messages(hub, page, mtype):
    """R47."""
    with Program(hub, mtype) as program:
        page.call("notify", program.id, message(mtype))
        assert program.id in page.call("notifyAll", message(mtype))
        assert program.id in page.call("getSubscribedClients", mtype)


@pytest.mark.parametrize(
    "mtype", ["ds9.set", "script.aladin.send", "client.env.get", "samp.msg.other", "tables.x", "table"]
)
def test_a_page_may_not_send_other_messages(hub, page, mtype):
    """R47."""
    page.listen("z")
    with Program(hub, mtype) as program:
        for method, *params in (
            ["notify", program.id],
            ["call", program.id, "t"],
            ["callAndWait", program.id],
        ):
            with pytest.raises(Fault, match="may not send"):
                page.call(method, *params, message(mtype), *(["5"] if method == "callAndWait" else []))
        assert page.call("notifyAll", message(mtype)) == []
        assert page.call("callAll", "t", message(mtype)) == {}
        assert page.call("getSubscribedClients", mtype) == {}
        assert program.calls == []


@pytest.mark.parametrize("key", ["x-samp.mostly-harmless", "samp.mostly-harmless"])
def test_a_recipient_may_allow_or_forbid_messages_of_pages(hub, page, key):
    """R47."""
    with Program(
        hub, **{"ds9.set": {key: "1"}, "table.load.fits": {key: "0"}, "x.*": {key: "1"}, "x.y": {}}
    ) as program:
        page.call("notify", program.id, message("ds9.set"))
        page.call("notify", program.id, message("x.z"))
        for mtype in ("table.load.fits", "x.y"):
            with pytest.raises(Fault, match="may not send"):
                page.call("notify", program.id, message(mtype))
        assert len(program.wait_for(2)) == 2


def test_a_page_may_send_only_safe_messages_to_a_page(hub, page):
    """R47."""
    page.listen("ds9.set", "table.load.fits")
    with Page(hub, "https://b.example") as other:
        other.register()
        other.call("notify", page.id, message("table.load.fits"))
        with pytest.raises(Fault, match="may not send"):
            other.call("notify", page.id, message("ds9.set"))


def test_programs_may_send_any_message_to_a_page(hub, page):
    """R47."""
    page.listen("ds9.set")
    with Program(hub) as program:
        assert program.call("notifyAll", message("ds9.set")) == [page.id]


def test_a_page_may_send_a_query_to_the_hub(page):
    """R27, R47."""
    page.call("declareMetadata", {"samp.name": "me"})
    query = message("x-samp.query.by-meta", key="samp.name", value="me")
    response = page.call("callAndWait", "hub", query, "5")
    assert response["samp.result"] == {"ids": [page.id]}


def test_only_the_hub_sends_hub_events(hub, page):
    """R25: not even a recipient that allows them gets such a message of a page."""
    with (
        Program(hub, "*", **{"samp.hub.*": {"x-samp.mostly-harmless": "1"}}),
        pytest.raises(Fault, match="Only the hub"),
    ):
        page.call("notifyAll", message("samp.hub.event.shutdown"))


@pytest.mark.parametrize(("mtypes", "allowed"), [(["*"], True), (["ds9.*"], True), (["x.y"], False)])
def test_the_restriction_can_be_widened_or_lifted(make_hub, mtypes, allowed):
    """R47."""
    hub = make_hub(web_profile=True, web_profile_dialog=lambda *_: True, web_profile_mtypes=mtypes)
    with Page(hub) as page, Program(hub, "ds9.set") as program:
        page.register()
        assert page.call("notifyAll", message("ds9.set")) == ([program.id] if allowed else [])


def test_the_hub_starts_if_the_web_port_is_in_use(make_hub, caplog):
    """R39: the hub then serves only the Standard Profile."""
    first = make_hub(web_profile=True)
    second = make_hub(web_profile=True, web_port=first._web_port, mode="multiple")
    assert second.is_running
    assert not second.web_profile_running
    assert "TOPCAT or Aladin" in caplog.text
    assert str(first._web_port) in caplog.text


def test_another_program_at_the_other_address_is_logged(make_hub, caplog):
    """R39: a browser may connect to that program instead of the hub."""
    with socket.socket(socket.AF_INET6) as other:
        try:
            other.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6")
        other.listen()
        port = other.getsockname()[1]
        assert make_hub(web_profile=True, web_port=port).web_profile_running
    assert f"Another program listens on port {port} of the address ::1" in caplog.text


def test_a_hub_that_is_started_again_serves_pages_again(hub):
    for _ in range(3):
        with Page(hub) as page:
            page.register()
        hub.stop()
        assert not hub.web_profile_running
        hub.start()
    assert hub.web_profile_running


def test_the_policy_files_are_constants_that_programs_import():
    """R44."""
    assert "cross-domain-policy" in web_profile.CROSS_DOMAIN
    assert "access-policy" in web_profile.CLIENT_ACCESS_POLICY

"""Beginning and ending a connection: whatever the machine refuses, and whoever interrupts."""

import contextlib
import errno
import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from interruptions import called_everywhere, elsewhere, interrupted_everywhere
from rude_hub import RudeHub, call, record, soon

from topstep_sync.errors import ConnectionLost, StreamError, StreamFailed
from topstep_sync.realtime import connection
from topstep_sync.realtime.connection import SignalRConnectionManager
from topstep_sync.realtime.lifecycle import TRANSITIONS, State
from topstep_sync.realtime.subscriptions import Want

OURS = ("topstep_sync.realtime",)
WANT = Want("SubscribeOrders", (5,))


@pytest.fixture(scope="module")
def nowhere() -> Iterator[str]:
    """The address of a hub that refuses every connection."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/hub"


@pytest.fixture
def hub() -> Iterator[RudeHub]:
    with RudeHub() as made:
        yield made


def lonely(url: str, **config: Any) -> SignalRConnectionManager:
    """A connection that will try once a minute, in vain."""
    return SignalRConnectionManager(None, None, {"backoff_seconds": (60.0,), **config}, url=url, name="lonely")


def tried(manager: SignalRConnectionManager) -> bool:
    """Whether it is kept up: an attempt was made, and another will be."""
    manager.connect(timeout=0)
    return soon(lambda: manager.state is State.RECONNECTING)


def ended(manager: SignalRConnectionManager) -> bool:
    """Whether it can be disconnected, and nothing of it is left."""
    elsewhere(manager.disconnect)
    return soon(lambda: not [t for t in threading.enumerate() if t.name.startswith("topstep-")]) and (
        manager.state is State.DISCONNECTED
    )


############################################# what the machine refuses #############################################


def no_sockets(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


def no_threads(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("where", "name", "refuse"), [(socket, "socketpair", no_sockets), (threading.Thread, "start", no_threads)]
)
def test_what_the_machine_refuses_changes_nothing(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, refuse: Any
) -> None:
    """Without a socket or a thread `connect` says so; it can be closed all the same, and works once there is one."""
    manager = lonely(nowhere)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, refuse)
        for _ in range(2):
            with pytest.raises(StreamError, match=r"cannot be started: .*(open files|new thread)"):
                manager.connect(timeout=0)
            assert (State.DISCONNECTED, None) == (manager.state, manager.reason)
        manager.disconnect()
    assert tried(manager)
    assert ended(manager)
    failing = lonely(nowhere, max_attempts=0)
    with pytest.raises(StreamFailed, match="refused"):
        failing.connect()
    with monkeypatch.context() as patch:
        patch.setattr(where, name, refuse)
        with pytest.raises(StreamError, match="cannot be started"):
            failing.connect(timeout=0)
    assert (State.FAILED, True) == (failing.state, "refused" in (failing.reason or ""))
    assert ended(failing)


@pytest.mark.filterwarnings("ignore:.*<socket:pytest.PytestUnraisableExceptionWarning")
def test_connect_can_be_interrupted_at_any_moment(nowhere: str) -> None:
    """After a Ctrl-C it runs, or nothing has happened; connecting works from there, and so does closing."""
    count = 0
    for manager, where in interrupted_everywhere(lambda: lonely(nowhere), lambda m: m.connect(timeout=0), OURS):
        assert elsewhere(lambda m=manager: tried(m)), where
        assert ended(manager), where
        count += 1
    assert count > 15
    gc.collect()  # of wakers that nobody has got


@pytest.mark.filterwarnings("ignore:.*<socket:pytest.PytestUnraisableExceptionWarning")
def test_disconnect_can_be_interrupted_at_any_moment(nowhere: str) -> None:
    """Whenever the Ctrl-C comes, a second one ends it, and it can be used again."""

    def prepare() -> SignalRConnectionManager:
        manager = lonely(nowhere)
        manager.observe(lambda state, reason: None)
        assert tried(manager)
        return manager

    for manager, where in interrupted_everywhere(prepare, SignalRConnectionManager.disconnect, OURS):
        assert ended(manager), where
        assert elsewhere(lambda m=manager: tried(m)), where
        assert ended(manager), where


def test_who_cannot_enter_leaves_nothing(nowhere: str) -> None:
    """A block that never began has no end that would close the connection, so its beginning does."""
    failing = lonely(nowhere, max_attempts=0)
    with pytest.raises(StreamFailed), failing:
        pass
    assert State.DISCONNECTED is failing.state


def test_at_exit_every_connection_is_closed(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever one of them raises, the others have their goodbye."""
    managers = [lonely(nowhere) for _ in range(3)]
    assert all(map(tried, managers))
    monkeypatch.setattr(connection, "_alive", managers)
    broken = managers[0]
    monkeypatch.setattr(broken, "disconnect", lambda: [][0])
    connection._close_all()
    assert [State.DISCONNECTED] * 2 == [manager.state for manager in managers[1:]]
    assert "the lonely connection was not closed" in caplog.text
    monkeypatch.undo()
    assert ended(broken)


################################################# a signal's handler #################################################


def quietly(work: Callable[[SignalRConnectionManager], object]) -> Callable[[SignalRConnectionManager], None]:
    def act(manager: SignalRConnectionManager) -> None:
        with contextlib.suppress(StreamError):
            work(manager)

    return act


def leave(manager: SignalRConnectionManager) -> None:
    """What most programs do at SIGTERM."""
    manager.close()
    raise SystemExit


DOES: dict[str, Callable[[SignalRConnectionManager], object]] = {
    "connect": lambda manager: manager.connect(timeout=0),
    "disconnect": lambda manager: manager.disconnect(),
    "subscribe": lambda manager: manager.subscribe("Channel", print)(),
    "want": lambda manager: (manager.want(WANT, holder=1), manager.unwant([WANT], holder=1)),
    "send": lambda manager: manager.send("Target", 1),
    "invoke": lambda manager: manager.invoke("Target", 1),
    "call_soon": lambda manager: manager.call_soon(str),
    "leave": leave,
}
PAIRS = [(action, signal) for action in DOES for signal in ("disconnect", "connect", "leave") if action != "leave"]
PAIRS += [("connect", "send"), ("disconnect", "subscribe"), ("want", "want"), ("call_soon", "call_soon")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*<socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stands", [False, True])
@pytest.mark.parametrize(("action", "signal"), PAIRS)
def test_a_handler_may_call_anything_in_the_middle_of_anything(
    nowhere: str, stands: bool, action: str, signal: str
) -> None:
    """Nothing hangs; what the handler has closed is closed, unless it is connected again; and all goes on working."""

    def prepare() -> SignalRConnectionManager:
        manager = lonely(nowhere)
        if stands:
            manager.observe(lambda state, reason: None)
            assert tried(manager)
        return manager

    for manager, where in called_everywhere(prepare, quietly(DOES[action]), quietly(DOES[signal]), OURS):
        if where and signal in ("disconnect", "leave") and action != "connect":
            assert soon(lambda m=manager: m.state is State.DISCONNECTED), where
        if where and signal == "connect" and action != "disconnect":
            assert manager.state in (State.CONNECTING, State.RECONNECTING), where
        assert elsewhere(lambda m=manager: tried(m)), where
        assert ended(manager), where
    gc.collect()


def test_a_handler_may_close_what_is_just_being_connected(nowhere: str) -> None:
    """Between the choice of an owner and the start of its thread, and at every other moment of `connect`."""
    for manager, where in called_everywhere(
        lambda: lonely(nowhere), quietly(DOES["connect"]), quietly(DOES["disconnect"]), OURS
    ):
        assert manager.state in (State.DISCONNECTED, State.CONNECTING, State.RECONNECTING), where
        assert ended(manager), where
    gc.collect()


################################################# any order of events #################################################

LEGAL = {(before, after) for (before, _), after in TRANSITIONS.items()}


class AnyOrder(RuleBasedStateMachine):
    """A connection that lives through anything, against a hub that greets whoever comes while it is kind."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = RudeHub()
        self.hub._listener.settimeout(0.02)
        self.over, self.kind = False, True
        self.server = threading.Thread(target=self.greet, daemon=True)
        self.server.start()
        config = {"backoff_seconds": (0.0, 0.01), "close_limit": 1000}
        self.manager = SignalRConnectionManager(None, None, config, url=self.hub.url, name="any")
        self.told = [State.DISCONNECTED]
        self.manager.observe(lambda state, reason: self.told.append(state))
        self.done = threading.Event()
        self.manager.on("Again", self.again)
        self.restart = False
        self.turn = threading.Lock()  # guards whether a callback that comes now is still waited for, or has begun
        self.wanted = self.begun = False

    def greet(self) -> None:
        while not self.over:
            with contextlib.suppress(OSError, EOFError, AssertionError, KeyError):
                peer = self.hub.tcp()
                peer.read_request().answer().shake() if self.kind else peer.rst()

    def again(self) -> None:
        with self.turn:
            if not self.wanted:
                return
            self.begun = True
        self.manager.disconnect()
        if self.restart:
            self.manager.connect(timeout=0)
        self.done.set()

    @rule(wait=st.booleans())
    def connect(self, wait: bool) -> None:
        self.manager.connect(timeout=0.02 if wait else 0)

    @rule()
    def disconnect(self) -> None:
        self.manager.disconnect()
        assert State.DISCONNECTED is self.manager.state

    @rule(where=st.sampled_from([(socket, "socketpair", no_sockets), (threading.Thread, "start", no_threads)]))
    def refused(self, where: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*where)
            with contextlib.suppress(StreamError):
                self.manager.connect(timeout=0)

    @rule(how=st.sampled_from(["rst", "fin", "kick"]))
    def lose(self, how: str) -> None:
        for peer in list(self.hub.peers):
            with contextlib.suppress(OSError):
                peer.send(record(type=7, error="out")) if how == "kick" else getattr(peer, how)()

    @rule(kind=st.booleans())
    def change(self, kind: bool) -> None:
        self.kind = kind

    @rule()
    def send(self) -> None:
        with contextlib.suppress(ConnectionLost):
            self.manager.send("Echo")

    @rule(restart=st.booleans())
    def from_a_callback(self, restart: bool) -> None:
        if self.manager.state is not State.CONNECTED:
            return
        self.restart, self.wanted, self.begun = restart, True, False
        self.done.clear()
        for peer in list(self.hub.peers):
            with contextlib.suppress(OSError):
                peer.send(call("Again"))
        self.done.wait(0.2)
        with self.turn:
            self.wanted = False
        if self.begun and self.done.wait(10.0) and not restart:
            assert State.DISCONNECTED is self.manager.state

    @invariant()
    def it_never_gives_up(self) -> None:
        assert self.manager.state is not State.FAILED, self.manager.reason

    def teardown(self) -> None:
        self.kind = True
        assert soon(lambda: self.manager.connect(timeout=0.05))
        self.over = True
        for peer in list(self.hub.peers):
            peer.fin()
        assert ended(self.manager)
        assert set(pairwise(self.told)) <= LEGAL
        assert State.DISCONNECTED is self.told[-1]
        self.server.join(6)
        self.hub.__exit__()


TestAnyOrder = pytest.mark.slow(AnyOrder.TestCase)
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def leave(*_: Any) -> Any:
    raise SystemExit("user code had enough")


def test_a_system_exit_in_a_token_function_is_an_attempt_that_failed(nowhere: str) -> None:
    """It would end our thread and nothing else: the connection is tried again, and says why not."""
    manager = SignalRConnectionManager(leave, None, {"backoff_seconds": (60.0,)}, url=nowhere, name="lonely")
    assert tried(manager)
    assert "user code had enough" in (manager.reason or "")
    assert ended(manager)


def test_a_system_exit_in_a_callback_ends_nothing() -> None:
    """Neither in one of a call's, on the owner's thread, nor in one of a channel's: both go on, and calls end."""
    with RudeHub() as hub:
        manager = SignalRConnectionManager(None, None, {"backoff_seconds": (0.0,)}, url=hub.url, name="any")
        heard = threading.Event()
        manager.on("Leave", leave)
        manager.on("Still", heard.set)
        manager.connect(timeout=0)
        peer = hub.shaken()
        assert soon(lambda: manager.state is State.CONNECTED)
        peer.send(call("Leave"), call("Still"))
        assert heard.wait(5.0)
        asked = [manager.start_call("Never", on_done=leave), manager.start_call("Neither")]
        for _ in asked:
            peer.read_call()
        peer.rst()
        for one in asked:
            with pytest.raises(ConnectionLost):
                manager.result(one)
        hub.shaken()
        assert soon(lambda: manager.state is State.CONNECTED)
        manager.send("Hello")
        manager.disconnect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("far", ["connected", "upgrading", "shaking hands"])
def test_a_forked_child_keeps_no_connection_open(hub: RudeHub, far: str) -> None:
    """However far the connection was when the process forked: when the parent ends it, the hub hears of it."""
    manager = SignalRConnectionManager(None, None, {"backoff_seconds": (60.0,)}, url=hub.url, name="forked")
    manager.connect(timeout=0)
    peer = hub.tcp().read_request()
    if far != "upgrading":
        peer.answer()
    if far == "connected":
        peer.shake()
        assert soon(lambda: manager.state is State.CONNECTED)
    lives, end = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child, which pytest must not see the end of
        os.close(end)
        os.read(lives, 1)
        os._exit(0)
    try:
        if far == "connected":
            manager._owner.link._ws.sock.sock.shutdown(socket.SHUT_RD)  # type: ignore[union-attr]  # no polite goodbye
        else:
            manager.disconnect()
        peer.until_end()
    finally:
        os.close(lives)
        os.close(end)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        manager.disconnect()

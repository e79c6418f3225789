"""A stream that is closed at any moment of whatever is done with it leaves no thread and no connection behind."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from interruptions import called_everywhere, elsewhere, interrupted_everywhere
from rude_hub import RudeHub, soon

from topstep_sync.config import Config
from topstep_sync.errors import SessionClosed, StreamError
from topstep_sync.realtime.connection import SignalRConnectionManager
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.stream import Stream
from topstep_sync.session import Session

MNQ = "CON.F.US.MNQ.Z26"
_ROOMS = ("realtime.stream", "realtime.subscriptions", "realtime.queue", "realtime.feeds", "session", "http.warmth")
OURS = tuple(f"topstep_sync.{room}" for room in _ROOMS)


@pytest.fixture(scope="module")
def hub() -> Iterator[RudeHub]:
    """A hub that never answers: what matters here is who goes on asking."""
    with RudeHub() as made:
        yield made


def threads() -> list[str]:
    names = ("topstep-user", "topstep-market", "topstep-warmth")
    return [thread.name for thread in threading.enumerate() if thread.name in names]


class Desk:
    """A stream, and perhaps a queue of it."""

    def __init__(self, hub: RudeHub, queues: int = 0) -> None:
        url: Any = hub.url
        self.stream = Stream(Config(user_hub_url=url, market_hub_url=url), lambda: "token")
        self.queues = [self.stream.subscribe(accounts=[n + 1], quotes=[MNQ], wait=0) for n in range(queues)]
        self.got: EventQueue | None = None
        self.error: BaseException | None = None

    def subscribe(self, wait: float = 0.0) -> None:
        try:
            self.got = self.stream.subscribe(accounts=[9], quotes=[MNQ], wait=wait)
        except BaseException as error:
            self.error = error
            raise

    def subscribe_and_wait(self) -> None:
        with contextlib.suppress(StreamError):
            self.subscribe(0.002)

    def subscribe_while_one_goes(self) -> None:
        self.subscribe()

    def leave(self) -> None:
        self.queues[0].close()

    def close(self) -> None:
        self.stream.close()

    def all_close(self) -> None:
        for queue in self.queues:
            queue.close()

    def states(self) -> set[State]:
        return {hub.connection.state for hub in self.stream._hubs.values()}

    def routes(self) -> list[EventQueue]:
        return [route.queue for hub in self.stream._hubs.values() for route in hub.feed.routes]


@pytest.mark.parametrize(
    "action", [Desk.subscribe, pytest.param(Desk.subscribe_and_wait, marks=pytest.mark.slow), Desk.leave, Desk.close]
)
def test_a_handler_may_close_the_stream_at_any_moment(hub: RudeHub, action: Callable[[Desk], None]) -> None:
    """Nothing hangs and nothing is left; who was subscribing is told, or has a queue that ended."""
    count = 0
    for desk, where in called_everywhere(lambda: Desk(hub, 1), action, Desk.close, OURS):
        if where:
            assert soon(lambda: not threads()), where
            assert {State.DISCONNECTED} == desk.states(), where
            assert isinstance(desk.error, (SessionClosed, StreamError, type(None))), where
            for queue in (*desk.queues, desk.got):
                assert queue is None or queue.reason is not None, where
        elsewhere(desk.close)
        count += 1
    assert count > 10
    assert soon(lambda: not threads())


def test_a_handler_may_close_other_queues_at_any_moment(hub: RudeHub) -> None:
    """Whoever is just subscribing stays subscribed; of the others nothing is left in the routes or in the wants."""
    for desk, where in called_everywhere(lambda: Desk(hub, 2), Desk.subscribe, Desk.all_close, OURS):
        assert desk.got is not None, where
        assert not desk.got.closed, where
        if where:
            assert [desk.got, desk.got] == desk.routes(), where
            wants = desk.stream._hubs["user"].connection.subscriptions.wanted()
            assert {9} == {number for want in wants for number in want.arguments}, where
        assert ["topstep-market", "topstep-user"] == sorted(threads()), where
        elsewhere(desk.got.close)
        elsewhere(desk.all_close)
        assert soon(lambda: not threads()), where


def test_a_handler_may_close_the_others_while_one_closes(hub: RudeHub) -> None:
    """The last one that goes ends both connections, whichever that is."""
    for desk, where in called_everywhere(lambda: Desk(hub, 3), Desk.leave, Desk.all_close, OURS):
        if not where:
            elsewhere(desk.all_close)
        assert [] == desk.routes(), where
        assert soon(lambda: not threads()), where
        assert {State.DISCONNECTED} == desk.states(), where


def test_a_close_that_a_ctrl_c_interrupted_is_seen_through_by_the_next(hub: RudeHub) -> None:
    """Whichever moment it came at, closing the queue again ends both connections."""
    for desk, where in interrupted_everywhere(lambda: Desk(hub, 1), Desk.leave, OURS):
        elsewhere(desk.leave)
        assert [] == desk.routes(), where
        assert soon(lambda: not threads()), where


@pytest.mark.parametrize("which", [0, 1])
def test_a_ctrl_c_while_one_hub_ends_leaves_the_other_to_end(
    hub: RudeHub, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """Both were hung up before either is waited for."""
    desk = Desk(hub, 1)
    calls = []

    def interrupt(owner: Any) -> None:
        calls.append(owner)
        if len(calls) > which:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SignalRConnectionManager, "see_off", staticmethod(interrupt))
        with pytest.raises(KeyboardInterrupt):
            desk.leave()
    assert soon(lambda: not threads())
    desk.close()


def test_a_stream_that_another_thread_closes_while_somebody_subscribes(
    hub: RudeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between routing and connecting, and while a connection begins: refused, and nothing runs on."""
    connect = SignalRConnectionManager.connect
    for before in (True, False):
        desk = Desk(hub)

        def closing(
            connection: SignalRConnectionManager, timeout: float | None = None, desk: Desk = desk, before: bool = before
        ) -> bool:
            if before:
                elsewhere(desk.close)
            up = connect(connection, timeout)
            if not before:
                elsewhere(desk.close)
            return up

        monkeypatch.setattr(SignalRConnectionManager, "connect", closing)
        with pytest.raises(SessionClosed):
            desk.subscribe()
        assert ([], []) == (threads(), desk.routes())
        monkeypatch.undo()
    desk = Desk(hub)
    settle = desk.stream._settle

    def settle_late(*given: Any) -> None:
        elsewhere(desk.close)
        settle(*given)

    monkeypatch.setattr(desk.stream, "_settle", settle_late)
    with pytest.raises(SessionClosed):
        desk.subscribe()
    assert ([], []) == (threads(), desk.routes())


def test_a_stream_that_is_closed_while_a_hub_that_is_wanted_again_ends(
    hub: RudeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves last, as another comes and the stream is closed, begins no connection anew."""
    desk = Desk(hub, 1)
    see_off = SignalRConnectionManager.see_off

    def interfering(owner: Any) -> None:
        monkeypatch.undo()
        elsewhere(desk.subscribe)
        see_off(owner)
        monkeypatch.setattr(SignalRConnectionManager, "connect", closing)

    connect = SignalRConnectionManager.connect

    def closing(connection: SignalRConnectionManager, timeout: float | None = None) -> bool:
        monkeypatch.undo()
        elsewhere(desk.close)
        return connect(connection, timeout)

    monkeypatch.setattr(SignalRConnectionManager, "see_off", staticmethod(interfering))
    desk.leave()
    assert desk.got is not None
    assert (True, []) == (desk.got.closed, threads())


#################################################### the session ####################################################


class Shop:
    """A session that has subscribed to nothing yet."""

    def __init__(self, hub: RudeHub) -> None:
        url: Any = hub.url
        config = Config(user_name="u", api_key="k", base_url=url.removesuffix("/hub"), user_hub_url=url)  # type: ignore[arg-type]
        self.session = Session(config=config.replace(market_hub_url=url))
        self.session.tokens.adopt("token")  # there is nobody to log in to

    def subscribe(self) -> None:
        with contextlib.suppress(SessionClosed):
            self.session.subscribe(quotes=[MNQ], wait=0)

    def close(self) -> None:
        self.session.close()


@pytest.mark.parametrize("action", [pytest.param(Shop.subscribe, marks=pytest.mark.slow), Shop.close])
def test_a_handler_may_close_the_session_at_any_moment(
    hub: RudeHub, monkeypatch: pytest.MonkeyPatch, action: Callable[[Shop], None]
) -> None:
    """SIGTERM while it subscribes for the first time, or closes: nothing hangs, nothing is left."""
    monkeypatch.setattr(Session, "_ping", lambda self: None)
    for shop, where in called_everywhere(lambda: Shop(hub), action, Shop.close, OURS):
        if where:
            with pytest.raises(SessionClosed):
                elsewhere(lambda shop=shop: shop.session.subscribe(quotes=[MNQ], wait=0))
        elsewhere(shop.close)
        assert soon(lambda: not threads()), where

"""A Ctrl-C at every moment: afterwards everything still works, and nothing is held."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
import requests
from gateway_model import ACCOUNT, MNQ, GatewayModel
from interruptions import called_everywhere, elsewhere, interrupted_everywhere, is_free
from rude_hub import soon
from token_fakes import DAY, FakeService

from tests.echo_server import EchoServer, running
from topstep_sync import clock
from topstep_sync.api.journal import Journal
from topstep_sync.api.ledger import ALONE
from topstep_sync.api.results import PlacedOrder
from topstep_sync.api.rooms import Rooms
from topstep_sync.auth import token_manager
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.clock import ManualClock, SystemClock
from topstep_sync.config import Config
from topstep_sync.errors import CircuitOpen, ConnectFailed, OrderStateUnknown, SessionClosed, TopstepError
from topstep_sync.events import OrderEvent
from topstep_sync.http.adapter import ResilientAdapter
from topstep_sync.http.circuit_breaker import CircuitBreaker, State
from topstep_sync.http.guarded import GuardedPost
from topstep_sync.http.routes import Circuit
from topstep_sync.http.warmth import Warmth
from topstep_sync.http.watch import Watch
from topstep_sync.models import Order, Token
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.redact import Secret

##################################################### the tool #####################################################


class Locked:
    """Something with a lock, of a kind that a handler in the same thread may or may not take again."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.count = 0

    def add(self) -> None:
        with self.lock:
            more = len("x")
            self.count += more


def test_a_handler_that_is_called_everywhere_finds_a_lock_that_hangs() -> None:
    """It runs at every moment, within the lock too: a plain lock hangs there, one that knows its thread does not."""
    calls = called_everywhere(lambda: Locked(threading.RLock()), Locked.add, Locked.add)
    counts = [locked.count for locked, _ in calls]
    assert [2] * (len(counts) - 1) + [1] == counts
    assert len(counts) > 2
    plain, before = Locked(threading.Lock()), set(threading.enumerate())
    with pytest.raises(TimeoutError, match=r"called at Locked\.add:\d+ hangs"):
        list(called_everywhere(lambda: plain, Locked.add, Locked.add, timeout=0.2))
    plain.lock.release()
    for thread in set(threading.enumerate()) - before:  # one that hangs within a tracer crashes Python 3.12.1 later
        thread.join(5.0)
        assert not thread.is_alive()


SOON = {"login_cooldown_seconds": 0.0, "backoff_seconds": (0.01,)}


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interruption may cost those who wait is a second; here it is less."""
    monkeypatch.setattr(clock, "SLICE", 0.02)
    monkeypatch.setattr(token_manager, "RECHECK", 0.02)


class LaterClock(SystemClock):
    """The machine's own clock, *ahead* seconds later; without a lock that an interruption could leave closed."""

    ahead = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return super().monotonic() + self.ahead

    def epoch(self) -> float:
        return super().epoch() + self.ahead


class Scene:
    """A manager at a certain point of its life, and perhaps somebody who waits for its token."""

    def __init__(self) -> None:
        self.clock = LaterClock()
        self.service = FakeService(self.clock)  # type: ignore[arg-type]
        self.manager = TokenManager(SOON, self.service, clock=self.clock)
        self.waiter: threading.Thread | None = None
        self.found: list[Any] = []

    def waited_for(self) -> "Scene":
        """A login is under way, and another thread waits for its token."""
        self.service.gate.clear()
        self.waiter = threading.Thread(target=self._wait, daemon=True)
        self.waiter.start()
        assert self.service.entered.wait(10)
        return self

    def _wait(self) -> None:
        try:
            self.found.append(self.manager.get_token(deadline=20.0))
        except SessionClosed as error:
            self.found.append(error)

    def holding(self, age: float = 0.0) -> "Scene":
        """There is a token, *age* seconds old."""
        self.manager.get_token(deadline=10.0)
        self.clock.ahead += age
        return self

    def check(self, where: str) -> None:
        """Whoever waits is served, and so is the next caller; nothing is held."""
        self.service.gate.set()
        assert is_free(self.manager.lock), where
        assert elsewhere(lambda: self.manager.get_token(deadline=20.0)), where
        if self.waiter is not None:
            self.waiter.join(20)
            assert len(self.found) == 1, f"a waiter hangs after an interruption at {where}"
        assert elsewhere(self.manager.stats)["waiting"] == 0, where
        self.manager.close()


def quietly(call: Callable[[TokenManager], object]) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        with contextlib.suppress(TopstepError):
            call(scene.manager)

    return act


SCENES = {
    "first token": (lambda: Scene(), lambda m: m.get_token(deadline=10.0)),
    "nothing comes": (lambda: Scene().waited_for(), lambda m: m.token(deadline=0.01)),
    "in the background": (lambda: Scene().holding(DAY - 3600), lambda m: m.token(deadline=10.0)),
    "expired": (lambda: Scene().holding(DAY), lambda m: m.token(deadline=10.0)),
    "refused": (lambda: Scene().holding(), lambda m: m.rejected(m.token(), deadline=10.0)),
    "adopt": (lambda: Scene().waited_for(), lambda m: m.adopt("adopted-token")),
    "logout": (lambda: Scene().waited_for(), lambda m: m.logout()),
    "logout with a token": (lambda: Scene().holding(), lambda m: m.logout()),
    "state": (lambda: Scene().holding(DAY), lambda m: m.get_state()),
    "stats": (lambda: Scene().waited_for(), lambda m: m.stats()),
}


@pytest.mark.parametrize("name", SCENES)
def test_the_token_manager_goes_on_after_a_ctrl_c_at_any_moment(name: str) -> None:
    """The next caller gets a token, whoever waited gets one, the lock is free, and no place in the queue is lost."""
    prepare, call = SCENES[name]
    count = 0
    for scene, where in interrupted_everywhere(prepare, quietly(call)):
        scene.check(where)
        count += 1
    assert count > 8


def test_a_token_manager_can_be_closed_after_a_ctrl_c_in_close() -> None:
    """Whoever waits is released by the second `close` at the latest, and nobody is served afterwards."""
    for scene, where in interrupted_everywhere(lambda: Scene().waited_for(), lambda scene: scene.manager.close()):
        elsewhere(scene.manager.close)
        assert scene.waiter is not None
        scene.waiter.join(20)
        assert [SessionClosed] == [type(one) for one in scene.found], where
        assert is_free(scene.manager.lock), where
        with pytest.raises(SessionClosed):
            scene.manager.token()
        scene.service.gate.set()


def test_a_login_of_the_callers_own_thread_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be had, the caller logs in itself; interrupted at any moment, the next one logs in anew."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def act(scene: Scene) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            scene.manager.get_token(deadline=10.0)

    for scene, where in interrupted_everywhere(Scene, act):
        scene.check(where)


################################################ breaker and adapter ################################################


def due(time: Any = None) -> CircuitBreaker:
    """A breaker whose opening is over: the next call is the probe."""
    breaker = CircuitBreaker("orders", {"open_min": 1e-9}, clock=time or SystemClock())
    for _ in range(5):
        breaker.failure(breaker.before_call(), "HTTP 503")
    return breaker


def fail() -> None:
    raise ConnectFailed("down")


@pytest.mark.parametrize("function", [lambda: None, fail], ids=["that succeeds", "that fails"])
def test_the_probe_is_given_back_after_a_ctrl_c_at_any_moment(function: Callable[[], None]) -> None:
    """Interrupted around the probe, or in it: the next call is the probe at once, and the lock is free."""

    def act(breaker: CircuitBreaker) -> None:
        with contextlib.suppress(ConnectFailed):
            breaker.call(function)

    for breaker, where in interrupted_everywhere(due, act):
        assert is_free(breaker._lock), where
        breaker.call(lambda: None)
        assert breaker.state is State.CLOSED, where


def test_a_listener_that_is_interrupted_takes_no_probe_along() -> None:
    """What a listener raises ends the call; the next one may probe."""
    breaker = due()

    def listener(change: Any) -> None:
        raise KeyboardInterrupt

    breaker.listen(listener)
    with pytest.raises(KeyboardInterrupt):
        breaker.before_call()
    breaker._listeners.clear()
    breaker.call(lambda: None)
    assert State.CLOSED is breaker.state


def test_a_probe_of_which_nothing_is_heard_is_lost() -> None:
    """Two minutes later another call may probe, and what the first one says then is ignored."""
    time = ManualClock()
    breaker = due(time)
    time.advance(1.0)
    first = breaker.before_call()
    time.advance(119.0)
    with pytest.raises(CircuitOpen):
        breaker.before_call()
    told: list[tuple[State, State]] = []
    breaker.listen(lambda change: told.append((change.before, change.after)))
    time.advance(1.0)
    second = breaker.before_call()
    assert [(State.HALF_OPEN, State.OPEN), (State.OPEN, State.HALF_OPEN)] == told
    breaker.failure(first, "late")
    assert State.HALF_OPEN is breaker.state
    breaker.success(second)
    assert State.CLOSED is breaker.state


class Permits:
    """A limiter that always agrees; a permit hears the first word, as real ones do."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.given = 0
        self.open = False

    def acquire(self, endpoint: str, *, priority: Any = None, deadline: Any = None) -> Any:
        self.given, self.open = self.given + 1, True
        return self

    def _say(self, word: str) -> None:
        if self.open:
            self.open = False
            self.words.append(word)

    def done(self) -> None:
        self._say("done")

    def refund(self) -> None:
        self._say("refund")

    def gave_up(self) -> None:
        self._say("gave up")

    def throttled(self, retry_after: float | None) -> None:
        self._say("throttled")


class OneToken:
    """A token manager that always has the same."""

    def token(self, deadline: Any = None) -> Token:
        return Token(Secret("token-1"), 1, 0.0, 1e12)

    def rejected(self, token: Token, deadline: Any = None) -> Token:
        return self.token()

    def adopt(self, value: str, *, user_name: str | None = None, api_key: str | None = None) -> None: ...


class Way:
    """An adapter whose breaker wants a probe, in front of a gateway that answers as scripted."""

    def __init__(self, server: EchoServer, status: int) -> None:
        self.permits = Permits()
        settings: dict[str, Any] = {"retry": {"max_attempts": 1}, "breaker": {"open_min": 1e-9}}
        config = Config(base_url=server.url, **settings)
        self.adapter = ResilientAdapter(config, tokens=OneToken(), limiter=self.permits)
        self.breaker = self.adapter.breakers[Circuit.ACCOUNT]
        self.server, self.url = server, server.url + "/api/Account/search"
        self.ask()  # a connection to use again
        for _ in range(5):
            self.breaker.failure(self.breaker.before_call(), "HTTP 503")
        server.script[:] = [(status, {})]

    def ask(self) -> int:
        request = requests.Request("POST", self.url, data=b"{}").prepare()
        return self.adapter.send(request).status_code


@pytest.fixture(scope="module")
def server() -> Iterator[EchoServer]:
    with running() as one:
        yield one


@pytest.mark.filterwarnings("ignore:.*unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*<socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("status", [pytest.param(200, marks=pytest.mark.slow), 503])
def test_a_call_can_be_interrupted_at_any_moment(status: int, server: EchoServer) -> None:
    """Permit and probe are given back, the pool and the watch go on, and the next call is answered."""
    parts = ("topstep_sync", "urllib3.connectionpool", "urllib3.poolmanager", "requests.adapters", "queue", "threading")
    for way, where in interrupted_everywhere(lambda: Way(server, status), lambda way: way.ask(), parts):
        assert len(way.permits.words) == way.permits.given, where
        server.script.clear()
        assert 200 == elsewhere(way.ask), where
        assert State.CLOSED is way.breaker.state, where
        assert all(watched.over for watched in way.adapter._watch._current), where
        way.adapter.close()
    gc.collect()  # of connections that nobody has got yet, so that no later test is told of them


def test_a_login_can_be_interrupted_at_any_moment() -> None:
    """The token manager's own calls, on a caller's thread: permit and probe are given back."""

    def prepare() -> tuple[GuardedPost, Permits, CircuitBreaker]:
        permits, breaker = Permits(), due()
        return GuardedPost(lambda *call: (200, {}, b"{}"), permits, breaker, SystemClock()), permits, breaker

    for (post, permits, breaker), where in interrupted_everywhere(prepare, lambda made: made[0]("/p", b"", None)):
        assert len(permits.words) == permits.given, where
        post("/p", b"", None)
        assert State.CLOSED is breaker.state, where


################################################# threads of ours #################################################


@pytest.fixture
def interrupted_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Threads cannot be started but for a Ctrl-C, until it is undone."""

    def interrupt(self: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        yield patch


def test_the_watch_is_started_again(interrupted_start: pytest.MonkeyPatch) -> None:
    """A Ctrl-C while its thread starts costs the next calls nothing: they start it, whatever their deadlines are."""
    watch = Watch()
    with pytest.raises(KeyboardInterrupt):
        watch.enter(0.0)
    interrupted_start.undo()
    late = watch.enter(SystemClock().monotonic() + 0.01)
    end = SystemClock().monotonic() + 10
    while not late.cut and SystemClock().monotonic() < end:
        SystemClock().sleep(0.001)
    assert late.cut
    watch.close()


def test_warmth_is_started_again(interrupted_start: pytest.MonkeyPatch) -> None:
    """A Ctrl-C while its thread starts leaves it off for the next `start`."""
    pinged = threading.Event()
    warmth = Warmth(pinged.set, 60.0)
    with pytest.raises(KeyboardInterrupt):
        warmth.start()
    interrupted_start.undo()
    warmth.start()
    assert pinged.wait(10)
    warmth.stop()


class GatewayClock(SystemClock):
    """Real waits, and the hour that a model of the gateway has."""

    def __init__(self, model: GatewayModel) -> None:
        self._model = model

    def epoch(self) -> float:
        return self._model.clock.epoch()


class Desk:
    """An order under a tag of the caller's own, at a gateway that executes each tag once; somebody may want it, too."""

    def __init__(self, joined: bool) -> None:
        self.model = GatewayModel()
        config = Config(orders={"verify_seconds": (0.01, 0.01)})
        self.orders = Rooms(self._call, get=lambda path: "pong", config=config, clock=GatewayClock(self.model)).orders
        self.joiner: threading.Thread | None = None
        self.joined: list[Any] = []
        self._wanted = joined

    def _call(self, *args: Any, **options: Any) -> Any:
        reply = self.model.call(*args, **options)
        if self._wanted and self.joiner is None:
            self.joiner = threading.Thread(target=lambda: self.joined.append(self.outcome()), daemon=True)
            self.joiner.start()
            assert soon(lambda: self.orders._ledger.find("entry-1").flight is not ALONE)
        return reply

    def place(self) -> PlacedOrder:
        return self.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")

    def outcome(self) -> Any:
        try:
            return self.place()
        except TopstepError as error:
            return error


@pytest.mark.parametrize("joined", [False, True])
def test_an_order_is_placed_once_whenever_it_is_interrupted(joined: bool) -> None:
    """After a Ctrl-C at any moment the same intent gives the one order; who waited for it is told, and is free."""
    for desk, where in interrupted_everywhere(lambda: Desk(joined), Desk.place, ("topstep_sync.api",)):
        assert isinstance(elsewhere(desk.place), PlacedOrder), where
        assert ["entry-1"] == desk.model.executed, where
        if desk.joiner is not None:
            desk.joiner.join(5.0)
            (told,) = desk.joined
            assert isinstance(told, (PlacedOrder, OrderStateUnknown)), where


class Trouble(Desk):
    """The same, where the first attempt goes wrong."""

    def __init__(self, fault: str, folder: Path) -> None:
        super().__init__(joined=False)
        self.model.faults["Order/place"] = [fault]
        self.journal = Journal(folder / "journal")
        if fault == "full":
            self.journal.write = self._full  # type: ignore[method-assign]
        self.orders._placer._journal = self.journal
        self.error: BaseException | None = None

    def _full(self, *_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    def try_it(self) -> None:
        try:
            self.place()
        except TopstepError as error:
            self.error = error
        except KeyboardInterrupt as error:
            self.error = error
            raise

    def verify(self) -> Order | None:
        return self.orders.verify("entry-1")

    def sent(self) -> bool:
        return any(path == "/api/Order/place" for path, _ in self.model.calls)


@pytest.mark.parametrize("fault", ["lost", "refused", "full"])
def test_an_order_that_goes_wrong_can_be_interrupted_at_any_moment(fault: str, tmp_path: Path) -> None:
    """Whatever else goes wrong, a Ctrl-C leaves an order that can be asked for, and placed, by its tag."""
    for desk, where in interrupted_everywhere(lambda: Trouble(fault, tmp_path), Trouble.try_it, ("topstep_sync.api",)):
        if fault == "lost" and isinstance(desk.error, KeyboardInterrupt) and desk.sent():
            assert any("verify('entry-1')" in note for note in desk.error.__notes__), where
        desk.model.faults = {}
        if fault == "full":
            del desk.journal.write
        desk.model.clock.advance(1.0)
        assert isinstance(elsewhere(desk.verify), (Order, NoneType)), where
        assert isinstance(elsewhere(desk.place), PlacedOrder), where
        assert ["entry-1"] == desk.model.executed, where


class Watched(Desk):
    """The same under a guard, with an order of one that works."""

    def __init__(self) -> None:
        super().__init__(joined=False)
        config = Config(guard={"max_position": 3})
        self.orders = Rooms(self._call, get=str, config=config, clock=GatewayClock(self.model)).orders
        self.working = self.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)

    def grow(self) -> None:
        self.orders.modify(self.working, size=2)

    def shrink(self) -> object:
        return self.orders.modify(self.working, size=1)

    def claims(self) -> tuple[int, int, int]:
        """What the guard counts for ever, changes adrift apart; and the readings that it believes to be under way."""
        guard = self.orders._guard
        assert guard is not None
        if guard._claims:  # a generator that was interrupted as it began may wait for its end
            gc.collect()
        return len(guard._claims) - len(guard._adrift), len(guard._adrift), len(guard._readings)


@pytest.mark.parametrize("action", [Watched.place, Watched.grow])
def test_the_guard_counts_nothing_for_ever_after_a_ctrl_c(action: Callable[[Watched], Any]) -> None:
    """Whenever an order or a change is interrupted, its claim ends; a change that may come counts until the next."""
    for desk, where in interrupted_everywhere(Watched, action, ("topstep_sync.api.guard", "contextlib")):
        claims, adrift, readings = desk.claims()
        assert (0, 0) == (claims, readings), where
        if adrift:
            elsewhere(desk.shrink)
            assert (0, 0, 0) == desk.claims(), where


class Counter:
    """A consumer with events of all kinds before it, some of them at hand; it takes them one by one."""

    def __init__(self, at_hand: bool, late: bool) -> None:
        self.events = EventQueue()
        self.taken: list[Any] = []
        at = 0.0 if late else clock.SYSTEM_CLOCK.monotonic()
        self.events.put([OrderEvent(data=number, received_at=at) for number in range(3)])  # type: ignore[arg-type]
        if at_hand:
            self.taken.append(self.events.get())

    def take(self) -> None:
        while not self.events.empty():
            event = self.events.get_nowait()
            self.taken.append(event)

    def take_all(self) -> None:
        self.taken += self.events.drain()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("at_hand", [False, True])
@pytest.mark.parametrize("take", [Counter.take, Counter.take_all])
def test_no_event_is_lost_to_a_ctrl_c(take: Callable[[Counter], None], at_hand: bool, late: bool) -> None:
    """Whenever the consumer is interrupted, every event was taken or still waits, in order, and once."""
    for counter, where in interrupted_everywhere(lambda: Counter(at_hand, late), take, ("topstep_sync.realtime",)):
        rest = elsewhere(counter.events.drain)
        assert [0, 1, 2] == [event.data for event in counter.taken + rest], where

"""The thread that keeps a hub connection up, from `connect` to `disconnect`: attempts, pauses, and what lies between.

| attribute | written by | read by |
|---|---|---|
| `_state`, `reason` | the owner's thread; once it gave up, whoever disconnects | anybody |
| `link`, `outbox`, `Estate` | the owner's thread | anybody |
| what is in an outbox | anybody | the owner's thread |
| the socket | the owner's thread | the owner's thread |
"""

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from typing import Final

from topstep_sync.clock import FOREVER, Clock, Signal
from topstep_sync.config import StreamConfig
from topstep_sync.errors import ConnectionLost
from topstep_sync.realtime.calls import Outbox
from topstep_sync.realtime.dialing import Dialer
from topstep_sync.realtime.lifecycle import Event, Schedule, State, after_logout, step
from topstep_sync.realtime.link import Ended, Link, Sink
from topstep_sync.realtime.signalr import FastDecoder
from topstep_sync.realtime.subscriptions import Subscriptions
from topstep_sync.realtime.waker import Interrupted, Waker
from topstep_sync.realtime.websocket import BufferedWebSocket

_log = logging.getLogger("topstep_sync.realtime")

JOIN: Final = 1.0  # seconds; an owner that was stopped ends well within it, whatever it is doing
_GLANCE: Final = 0.1  # seconds; how often who waits for its turn looks whether it is still wanted

_SETTLED: Final = (State.CONNECTED, State.FAILED, State.DISCONNECTED)


@dataclass
class Estate:
    """What the owners of one connection hand on: how to connect, whom to tell, and what it has been through."""

    name: str
    config: StreamConfig
    clock: Clock
    dialer: Dialer
    sink: Sink
    fast: FastDecoder | None
    sure: tuple[float, float]  # of the last connection
    subscriptions: Subscriptions = field(default_factory=Subscriptions)
    turn: threading.Lock = field(default_factory=threading.Lock)  # held by the one owner's thread that may act
    stood: bool = False  # whether it was ever established since `connect`
    gap_start: float | None = None  # of a gap that goes on
    logout_at: float = -FOREVER  # monotonic: when the gateway last said that another program took over
    reconnects: list[float] = field(default_factory=list)
    faults: int = 0


class Owner:
    """Keeps a connection up until it is stopped, or gives up. It may be stopped by anybody, before it began too.

    Args:
        before: what the owner before it came to: FAILED, or else DISCONNECTED.
    """

    def __init__(self, estate: Estate, before: State) -> None:
        self._estate = estate
        self._state = step(before, Event.CONNECT)
        self.reason: str | None = None
        self._goes_on = before is State.FAILED  # what was missed since it gave up is a gap like any other
        self._begun = False
        self.settled = Signal()
        """Set while CONNECTED, FAILED or DISCONNECTED."""
        self.link: Link | None = None
        """The open connection, while there is one."""
        self.outbox: Outbox | None = None
        """What others lay down for it, while it is established."""
        self._waker = Waker(estate.clock)
        self._thread = threading.Thread(target=self._run, name=f"topstep-{estate.name}", daemon=True)

    ############################################### what anybody may do ###############################################

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return State.DISCONNECTED if self._waker.stopped and not self._begun else self._state

    @property
    def over(self) -> bool:
        """Whether it keeps nothing up any more, or will soon cease to."""
        return self._waker.stopped or self._state is State.FAILED

    @property
    def legacy(self) -> State:
        """What the next owner begins with."""
        return State.FAILED if self._state is State.FAILED else State.DISCONNECTED

    @property
    def current(self) -> bool:
        """Whether this is its thread."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Its thread runs."""
        self._thread.start()

    def call_off(self) -> None:
        """It never begins, though its thread may have been started; nobody waits for it."""
        self.stop()
        self.settled.set()
        if not self._thread.is_alive():
            self._waker.close()

    def stop(self) -> None:
        """It ends, soon."""
        self._waker.stop()

    def wake(self) -> None:
        """It looks around now."""
        self._waker.wake()

    def join(self) -> None:
        """Its thread has ended, unless it is the caller's, or was never started; it needs well below a second."""
        with contextlib.suppress(RuntimeError):
            self._thread.join(JOIN)

    def dismiss(self) -> None:
        """If it gave up, that is forgotten; told by nobody once the next owner has its turn."""
        turn = self._estate.turn
        if self._state is State.FAILED and turn.acquire(timeout=_GLANCE):
            try:
                if self._move(Event.DISCONNECT, None):
                    self._tell()
            finally:
                turn.release()

    def abandon(self) -> None:
        """In a child process: its thread is not here, and the connection is the parent's."""
        self._waker.close()

    ############################################# what its thread does #############################################

    def _run(self) -> None:
        turn = self._estate.turn
        try:
            while not turn.acquire(timeout=_GLANCE):  # the owner before it is at its goodbye
                if self._waker.stopped:
                    return
            try:
                self._begun = not self._waker.stopped
                if self._begun:
                    self._own()
            finally:
                turn.release()
        finally:
            self.settled.set()
            self._waker.close()

    def _own(self) -> None:
        estate = self._estate
        if not self._goes_on:
            estate.stood, estate.gap_start = False, None
        try:
            self._tell()
            self._keep_up()
        except Interrupted:
            self._step(Event.DISCONNECT)
        except BaseException as error:  # a bug of ours, or a SystemExit of theirs, must not look like a quiet market
            _log.exception("! the thread of the %s connection failed", estate.name)
            self._step(Event.GAVE_UP, f"internal error: {type(error).__name__}: {error}")
        finally:
            estate.subscriptions.release()

    def _keep_up(self) -> None:
        estate, schedule = self._estate, Schedule(self._estate.config)
        while True:
            try:
                self._live(schedule)
            except Ended as ended:
                ending, reason = ended.ending, ended.reason
            now = estate.clock.monotonic()
            ending = after_logout(ending, now - estate.logout_at)
            delay = schedule.after(ending, now, estate.clock.random())
            if delay is None:
                _log.error("! the %s connection gave up: %s", estate.name, reason)
                self._step(Event.GAVE_UP, reason)
                return
            _log.warning("~ %s: %s; next attempt in %.1f s", estate.name, reason, delay)
            self._step(Event.LOST, reason)
            self._waker.sleep(estate.clock.monotonic() + delay)

    def _live(self, schedule: Schedule) -> None:
        """One connection, from the attempt to its end, which is raised."""
        ws = self._estate.dialer.open(self._waker)
        try:
            self._serve(ws, schedule)
        finally:
            ws.drop()

    def _serve(self, ws: BufferedWebSocket, schedule: Schedule) -> None:
        estate, outbox = self._estate, Outbox()
        clock, wants = estate.clock, estate.subscriptions
        link = Link(ws, self._waker, clock, estate.config, wants, outbox, estate.sink, estate.fast)
        polite = False
        try:
            wants.fresh()
            link.handshake()
            schedule.up(clock.monotonic())
            self.link = link
            link.serve(lambda: self._established(outbox))
        except Interrupted:
            polite = True
            raise
        finally:
            self.link = None
            estate.faults += link.faults
            estate.sure = link.sure
            if estate.stood and estate.gap_start is None:
                estate.gap_start = link.sure[1]
            wants.lost()
            try:
                link.end(polite)
            finally:
                self.outbox = None
                outbox.fail(ConnectionLost(f"the {estate.name} connection ended before this was sent"))

    def _established(self, outbox: Outbox) -> None:
        estate, self.outbox = self._estate, outbox
        again, estate.gap_start, estate.stood = estate.gap_start, None, True
        if again is not None:
            now = estate.clock.monotonic()
            estate.reconnects = [at for at in estate.reconnects if now - at < 3600] + [now]
        self._step(Event.ESTABLISHED)
        estate.sink.established(again, estate.clock.epoch())

    def _step(self, event: Event, reason: str | None = None) -> None:
        if self._move(event, reason):
            self._tell()

    def _move(self, event: Event, reason: str | None) -> bool:
        """Whether *event* changes what is told; nobody's handler runs between the question and the change."""
        state = step(self._state, event)
        if state is self._state and event is not Event.LOST:
            return False
        self._state, self.reason = state, reason
        return True

    def _tell(self) -> None:
        estate, state, reason = self._estate, self._state, self.reason
        if state in _SETTLED:
            self.settled.set()
        else:
            self.settled.clear()
        _log.info("= %s is %s%s", estate.name, state, f": {reason}" if reason else "")
        estate.sink.changed(state, reason)

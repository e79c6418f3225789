"""The one that goes to the store of a shared budget, so that no lock is held meanwhile and nobody waits for reports."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from topstep_sync.clock import Clock
from topstep_sync.http.lane import Lane
from topstep_sync.http.shared_lane import Errand, SharedLane
from topstep_sync.http.sharing import PATIENCE, Answer, BudgetBusy, BudgetLost, SharedBudget

LOG: Final = logging.getLogger("topstep_sync.http")

TICK: Final = 0.05
"""Seconds for which reports are gathered; nothing to a window of 30 s, and one transaction tells all of them."""

JOIN: Final = 10.0
"""Seconds that `close` gives the thread; a store answers or fails sooner."""


class Courier:
    """Exchanges with the store: for permits on the thread of who waits for one, for reports on a thread of its own.

    | attribute | written by | read by |
    |---|---|---|
    | lanes' pool, outbox, errand | whoever holds the lane's lock | the same |
    | `_thread`, `_closed` | callers, under `_lock` | callers, the thread |
    """

    def __init__(self, budget: SharedBudget, lanes: Iterable[SharedLane], clock: Clock) -> None:
        self.budget = budget
        self._lanes = tuple(lanes)
        self._clock = clock
        self._lock = threading.Lock()  # guards the start of the thread
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wanted = threading.Event()
        self._ended = threading.Event()
        self._lost = False

    def fetch(self, lane: Lane, *, urgent: bool, patience: float, wait: bool = False) -> bool:
        """Permits are at hand if the store had any; False when nobody asked.

        Args:
            lane: the class of the permits.
            urgent: whether the reserve may be used.
            patience: seconds that it may take.
            wait: do so while another thread is at the store, so that "none" is the store's word and not the moment's.
        """
        assert isinstance(lane, SharedLane)
        asked = self._visit(lane, lambda now: lane.ask(now, urgent), patience, wait)
        if asked:
            self._start()
        return asked

    def told_to_wait(self, lane: Lane, *, urgent: bool) -> bool:
        """Whether the store has no permit for such a call now."""
        assert isinstance(lane, SharedLane)
        with lane.lock:
            return lane.ask_at[urgent] > lane.now()

    def flush(self, *, everything: bool = False) -> None:
        """What ended has been told; *everything*: and leases at hand are given back."""
        for lane in self._lanes:

            def question(now: float, lane: SharedLane = lane) -> Errand | None:
                return lane.tell(now, everything=everything)

            self._visit(lane, question, PATIENCE, everything)

    def _visit(self, lane: SharedLane, question: Callable[[float], Errand | None], patience: float, wait: bool) -> bool:
        """Whether the store was asked *question*. The lane knows the outcome, whatever happened."""
        answer, why, busy = None, "", False
        try:
            errand = self._set_out(lane, question, patience if wait else 0.0)
            if errand is None:
                return False
            answer = self.budget.exchange(lane.rules, errand.ask, patience)
        except BudgetLost as error:
            busy = isinstance(error, BudgetBusy) and patience < PATIENCE
            why = "" if busy else str(error)
        except Exception as error:
            why = f"it failed with {type(error).__name__}"  # a store's bug; Ctrl-C is nobody's
            raise
        finally:
            self._come_back(lane, answer, why)
        if not busy:
            self._tell_once(why)
        return True

    def _set_out(self, lane: SharedLane, question: Callable[[float], Errand | None], wait: float) -> Errand | None:
        """This thread's errand to the store, after *wait* seconds at most while another thread is there."""
        end = self._clock.monotonic() + wait
        while True:
            with lane.lock:
                now = lane.now()
                if now >= end or not lane.whole(lane.away, now):
                    return lane.whole(question, now)
                back = threading.Event()
                lane.onlookers.append(back)
            self._clock.wait(back, end - now)

    def _come_back(self, lane: SharedLane, answer: Answer | None, why: str) -> None:
        """The errand of this thread, if it has one, is over."""
        with lane.lock:
            errand, now = lane.errand, lane.now()
            if errand is None or errand.thread != threading.get_ident():
                return
            if answer is None:
                waiter = lane.whole(lane.unanswered, errand, why, now)
            else:
                waiter = lane.whole(lane.answered, errand, answer, now)
            onlookers, lane.onlookers = lane.onlookers, []
        for event in onlookers:
            event.set()
        if waiter is not None:
            waiter.wake.set()

    def _tell_once(self, why: str) -> None:
        """The store's going and coming back is logged once each."""
        if bool(why) == self._lost:
            return
        self._lost = bool(why)
        if why:
            LOG.warning("! shared rate budget (%s) out of reach: %s", self.budget.kind, why)
        else:
            LOG.info("= shared rate budget (%s) is back", self.budget.kind)

    ########################################### the thread ###########################################

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="topstep-budget", daemon=True)
                self._thread.start()
        self._wanted.set()

    def _run(self) -> None:
        """Reports go out within two ticks of the end of their calls, until `close`."""
        while not self._ended.is_set():
            self._clock.wait(self._wanted)
            self._wanted.clear()
            while not self._clock.wait(self._ended, TICK) and any(lane.busy_here() for lane in self._lanes):
                self._flush_quietly()

    def _flush_quietly(self) -> None:
        try:
            self.flush()
        except Exception:  # a store's bug must not end the reports of all later calls
            LOG.exception("! reports to the shared rate budget (%s) failed", self.budget.kind)

    def close(self) -> None:
        """The thread has ended, and everything that could be told is told. May be called again."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        self._ended.set()
        self._wanted.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN)
        self.flush(everything=True)
        self.budget.close()

    def health(self) -> dict[str, object]:
        """What the store is, and whether it can be reached."""
        lost = next((lane.lost for lane in self._lanes if lane.lost), "")
        return {"kind": self.budget.kind, "ok": not lost, "why": lost}

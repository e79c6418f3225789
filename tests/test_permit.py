"""What Ctrl-C can do to a permit: nothing, wherever it comes."""

import dis
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from limiter_world import ORDERS

import topstep_sync.http
from topstep_sync.clock import Deadline, ManualClock
from topstep_sync.errors import RateLimitTimeout
from topstep_sync.http import rate_limiter
from topstep_sync.http.permit import Permit
from topstep_sync.http.rate_limiter import RateLimiter
from topstep_sync.http.shared_budget import MemoryBudget
from topstep_sync.http.shared_lane import SharedLane
from topstep_sync.http.sharing import Ask, Rules

ROOM = str(Path(topstep_sync.http.__file__).parent)
SMALL: dict[str, Any] = {"general_limit": 3, "general_window": 0.2, "reserved": 0, "margin": 0.0}


# Where an interruption is not looked at: a store's copy of the window, which is dropped then; and the end of a permit
# that went out of use, where Python itself drops the exception.
SKIPPED = ("Permit.__del__", "SharedWindow._restore", "SharedWindow._mend", "SharedWindow.dump", "SharedWindow.load")


def looked_at(code: CodeType) -> bool:
    return code.co_filename.startswith(ROOM) and not code.co_qualname.startswith(SKIPPED)


@cache
def handler_of(code: CodeType, offset: int) -> int | None:
    """Where an exception goes that is raised at *offset*."""
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return next((entry.target for entry in table if entry.start <= offset < entry.end), None)


class Interrupting:
    """Raises KeyboardInterrupt at the n-th of the places where Python looks for signals: when a function begins, when
    a call has returned (its result is lost, and the exception belongs to the call), and at the turn of a loop."""

    def __init__(self, nth: int) -> None:
        self.nth = nth
        self.seen = 0
        self._before: dict[FrameType, int] = {}

    def _look(self) -> None:
        self.seen += 1
        if self.seen == self.nth:
            raise KeyboardInterrupt

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if looked_at(frame.f_code) and event in ("call", "c_return"):
            self._look()

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not looked_at(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before, self._before[frame] = self._before.get(frame, -1), frame.f_lasti
            if before >= 0 and self._looks_after(frame.f_code, before, frame.f_lasti):
                self._look()
        return self._trace

    @staticmethod
    def _looks_after(code: CodeType, before: int, offset: int) -> bool:
        name = dis.opname[code.co_code[before]]
        # A call at the end of a protected block is inside it, what follows is not; `_profile` sees to that one.
        return name.startswith(("CALL", "JUMP_BACKWARD")) and handler_of(code, before) == handler_of(code, offset)

    def run(self, work: Callable[[], Any]) -> bool:
        """Whether *work* was interrupted."""
        before = sys.gettrace()  # that of coverage, where that is measured
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
            sys.setprofile(None)
            self._before.clear()
        return False


class Scene:
    """A limiter in some state, a permit that may be held, and what is interrupted."""

    def __init__(self, shared: bool, state: str, act: str) -> None:
        self.clock = ManualClock(auto=True)
        self.budget = MemoryBudget(clock=self.clock) if shared else None
        self.limiter = RateLimiter(SMALL, clock=self.clock, budget=self.budget)
        self.lane = self.limiter._lanes["general"]  # type: ignore[index]
        if self.limiter._courier is not None:
            self.limiter._courier._start = lambda: None  # type: ignore[method-assign]  # nobody else is at the store
        if state == "full":
            for _ in range(3):
                self.limiter.acquire(ORDERS).done()
        elif state == "expiring":
            for _ in range(3):
                self.limiter.acquire(ORDERS).done()
            self.clock.advance(0.21)
        elif state == "probing":
            self.limiter.acquire(ORDERS).throttled(1.0)
            self.clock.advance(1.5)
        elif state == "strays":
            self.limiter.acquire(ORDERS)
            self.limiter.acquire(ORDERS)
        self.held: list[Permit] = [] if act in ("acquire", "try_acquire") else [self.limiter.acquire(ORDERS)]
        self.act = act

    def __call__(self) -> None:
        if self.held:
            getattr(self.held[0], self.act)()
        else:
            getattr(self.limiter, self.act)(ORDERS)

    def used(self) -> int:
        if self.budget is None:
            return self.limiter.budget()["general"].used
        assert self.limiter._courier is not None
        self.limiter._courier.flush(everything=True)
        return self.budget.exchange(Rules.of(self.limiter._config, "general"), Ask("x")).used

    def lock_is_free(self) -> bool:
        free: list[bool] = []

        def look() -> None:  # the lock is free for its own thread in any case
            free.append(self.lane.lock.acquire(timeout=1))
            if free[0]:
                self.lane.lock.release()

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return free[0]


STATES = ["calm", "full", "expiring", "probing", "strays"]
ACTS = ["acquire", "try_acquire", "done", "refund", "gave_up", "throttled"]


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="tracing opcodes takes minutes there; 3.11 and 3.13 look")
@pytest.mark.parametrize(
    "shared", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["alone", "shared"]
)  # fmt: skip
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("act", ACTS)
def test_ctrl_c_anywhere(shared: bool, state: str, act: str) -> None:
    """Wherever it comes, the lock is free, nobody stands in line, nothing sent is uncounted, and no slot is lost."""
    nth, interrupted = 0, True
    while interrupted:
        nth += 1 if nth < 250 else 5  # what waits goes round again and again
        scene = Scene(shared, state, act)
        before = scene.used() if act in ("done", "gave_up") else 0
        interrupted = Interrupting(nth).run(scene)
        where = f"at the {nth}th look"
        assert scene.lock_is_free(), where
        assert 0 == len(scene.lane.line), where
        assert scene.used() >= before, where
        known = sum(permit.open for permit in scene.held)
        assert known == scene.lane.in_flight, where
        scene.held.clear()
        # Grace, the longest window that is believed in, and the longest rest after a refusal, twice.
        for _ in range(2):
            scene.clock.advance(5.0 + 12.5 + 10.0)
            assert 0 == scene.used(), where
        scene.limiter.acquire(ORDERS, deadline=Deadline(60.0, scene.clock)).done()
        scene.limiter.close()
    assert nth > 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_real_signals(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of signals at any moment leave every slot accounted for."""
    limiter = RateLimiter(
        {"general_limit": 500, "general_window": 0.02, "grace": 0.0}, budget=MemoryBudget() if shared else None
    )
    if limiter._courier is not None:
        limiter._courier._start = lambda: None  # type: ignore[method-assign]  # nor does the start of a thread
    lane, end, hits = limiter._lanes["general"], time.monotonic() + 3.0, 0  # type: ignore[index]

    def meanwhile() -> None:
        for _ in range(1000):  # and not for ever: a signal may get lost, see below
            if (permit := limiter.try_acquire(ORDERS)) is not None:  # `Event.wait` itself does not survive this
                permit.done()

    old, tracer = signal.signal(signal.SIGALRM, signal.default_int_handler), sys.gettrace()
    sys.settrace(None)  # coverage's tracer takes a lock of its own in a way that an interruption leaves closed for ever
    # One that comes as a permit goes out of use is dropped by Python, and told there.
    monkeypatch.setattr(sys, "unraisablehook", lambda told: None)
    try:
        while time.monotonic() < end:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0003 + hits % 97 * 0.000001)
                meanwhile()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                hits += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        sys.settrace(tracer)
    gc.collect()
    assert hits > 200
    time.sleep(0.05)
    permit = limiter.try_acquire(ORDERS)
    assert permit is not None
    permit.done()
    assert (0, 0) == (limiter.get_stats()["general"]["in_flight"], len(lane.line))
    assert not isinstance(lane, SharedLane) or lane.errand is None
    limiter.close()


class TestDropped:
    def test_it_counts_as_given_up(self) -> None:
        """A permit that nobody has any more is busy for grace and a window, from when it was dropped."""
        clock = ManualClock()
        limiter = RateLimiter({**SMALL, "general_window": 10.0, "general_limit": 1}, clock=clock)
        permit: Permit | None = limiter.acquire(ORDERS)
        clock.advance(2.0)
        assert permit is not None
        permit = None
        assert (15.0, 1) == (limiter.get_wait_time(ORDERS), limiter.get_stats()["general"]["gave_up"])
        clock.advance(15.0)
        assert limiter.try_acquire(ORDERS) is not None

    def test_somebody_waits_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who waits for calls in flight looks up now and then, and learns that one of them will never end."""
        monkeypatch.setattr(rate_limiter, "RECHECK", 0.01)
        limiter = RateLimiter({"general_limit": 1, "general_window": 0.1, "reserved": 0, "grace": 0.1})
        held = [limiter.acquire(ORDERS)]
        waited: list[float] = []
        thread = threading.Thread(target=lambda: waited.append(limiter.acquire(ORDERS).waited))
        thread.start()
        while not limiter.get_stats()["general"]["waiting"]:
            time.sleep(0.001)
        held.clear()
        thread.join(10)
        assert 0.19 <= waited[0] <= 5.0

    def test_a_dropped_probe_holds_up_nobody(self) -> None:
        """The next one goes alone instead."""
        clock = ManualClock()
        limiter = RateLimiter(SMALL, clock=clock)
        for _ in range(3):
            limiter.acquire(ORDERS).done()
        clock.advance(0.202)
        limiter.acquire(ORDERS).throttled(0.02)
        clock.advance(0.03)
        probe: Permit | None = limiter.acquire(ORDERS)
        assert probe is not None
        assert (True, None) == (probe.probe, limiter.try_acquire(ORDERS))
        probe = None
        assert (again := limiter.try_acquire(ORDERS)) is not None
        assert again.probe

    def test_one_that_ended_is_dropped_quietly(self) -> None:
        """Nothing is counted twice."""
        limiter = RateLimiter(SMALL, clock=ManualClock())
        for how in ("done", "gave_up", "refund"):
            getattr(limiter.acquire(ORDERS), how)()
        gc.collect()
        assert (2, 1) == (limiter.budget()["general"].used, limiter.get_stats()["general"]["gave_up"])

    def test_not_in_time(self) -> None:
        """A deadline is refused with the wait that a dropped permit costs."""
        clock = ManualClock()
        limiter = RateLimiter({**SMALL, "general_window": 10.0, "general_limit": 1}, clock=clock)
        limiter.acquire(ORDERS)
        with pytest.raises(RateLimitTimeout) as caught:
            limiter.acquire(ORDERS, deadline=Deadline(5.0, clock))
        assert 15.0 == caught.value.wait_needed


class TestInterrupted:
    """What `test_ctrl_c_anywhere` shows for every place, at one place each: the tracer of coverage sees these."""

    @pytest.mark.parametrize("dropped", [0, 1])
    @pytest.mark.parametrize("act", ["done", "gave_up"])
    def test_the_clock_is_interrupted(self, act: str, dropped: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """The permit is good as before, and nothing is held."""
        limiter = RateLimiter({**SMALL, "general_window": 10.0}, clock=ManualClock())
        lane = limiter._lanes["general"]  # type: ignore[index]
        permit = limiter.acquire(ORDERS)
        for _ in range(dropped):
            limiter.acquire(ORDERS)

        def interrupted() -> float:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(lane, "now", interrupted)
            with pytest.raises(KeyboardInterrupt):
                getattr(permit, act)()
            with pytest.raises(KeyboardInterrupt):
                limiter.get_wait_time(ORDERS)
        assert (True, False) == (permit.open, lane.lock._is_owned())
        getattr(permit, act)()
        assert (1 + dropped, 0) == (limiter.budget()["general"].used, lane.in_flight)
        assert dropped + (act == "gave_up") == limiter.get_stats()["general"]["gave_up"]

    def test_a_waiter_that_has_its_permit_already(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The permit is given back, and the line is empty."""
        clock = ManualClock(auto=True)
        limiter = RateLimiter({**SMALL, "general_limit": 1}, clock=clock)
        lane = limiter._lanes["general"]  # type: ignore[index]
        limiter.acquire(ORDERS).done()
        original = limiter._wait

        def interrupted(*args: Any) -> Permit:
            original(*args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(limiter, "_wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                limiter.acquire(ORDERS)
        assert (0, 0) == (len(lane.line), limiter.budget()["general"].used)
        assert limiter.try_acquire(ORDERS) is not None

"""The limiter as a caller sees it."""

import threading

import pytest

from topstep_sync.clock import Deadline, ManualClock
from topstep_sync.errors import RateLimitTimeout, SessionClosed
from topstep_sync.http.rate_limiter import RateLimiter

ORDERS = "/api/Order/search"
CANCEL = "/api/Order/cancel"
BARS = "/api/History/retrieveBars"
PING = "/api/Status/ping"

SMALL = {"general_limit": 5, "general_window": 10.0, "history_limit": 3, "history_window": 5.0, "reserved": 0}


def make(clock: ManualClock | None = None, **changes: object) -> RateLimiter:
    return RateLimiter({**SMALL, **changes}, clock=clock or ManualClock())


def fill(limiter: RateLimiter, endpoint: str = ORDERS) -> int:
    """Take and complete permits until there is none; how many."""
    taken = 0
    while (permit := limiter.try_acquire(endpoint)) is not None:
        permit.done()
        taken += 1
    return taken


class TestWindow:
    def test_limit_is_granted_at_once_and_no_more(self) -> None:
        """As many calls as documented go at once; the next one does not."""
        limiter = make()

        assert 5 == fill(limiter)
        assert limiter.try_acquire(ORDERS) is None

    def test_slot_is_busy_until_completion_plus_window(self) -> None:
        """The window of a slot starts when its call is complete, not when it was granted."""
        clock = ManualClock()
        limiter = make(clock, general_limit=1, margin=0.0)
        permit = limiter.acquire(ORDERS)
        clock.advance(7.0)
        permit.done()
        clock.advance(9.99)
        assert limiter.try_acquire(ORDERS) is None
        clock.advance(0.01)

        assert limiter.try_acquire(ORDERS) is not None

    def test_wait_that_cannot_meet_the_deadline_is_refused_at_once(self) -> None:
        """The refusal says how long the wait would have been, and no time is lost."""
        clock = ManualClock()
        limiter = make(clock, margin=0.0)
        fill(limiter)

        with pytest.raises(RateLimitTimeout) as caught:
            limiter.acquire(ORDERS, deadline=Deadline(9.0, clock))

        assert pytest.approx(10.0) == caught.value.wait_needed
        assert 1000.0 == clock.monotonic()

    def test_waiter_gets_the_slot_when_it_is_free(self) -> None:
        """A blocked caller gets its permit as soon as the window allows."""
        clock = ManualClock(auto=True)
        limiter = make(clock, margin=0.0)
        fill(limiter)

        permit = limiter.acquire(ORDERS)

        assert pytest.approx(10.0) == permit.waited

    def test_close_releases_waiters(self) -> None:
        """Whoever waits when the limiter is closed learns it."""
        clock = ManualClock()
        limiter = make(clock)
        fill(limiter)
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                limiter.acquire(ORDERS)
            except SessionClosed as error:
                caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        clock.wait_for_sleepers(1)
        limiter.close()
        thread.join(5)

        assert 1 == len(caught)

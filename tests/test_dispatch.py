"""Callbacks run in order on a thread of their own, whatever they do."""

import logging
import threading

import pytest
from rude_hub import soon

from topstep_sync.clock import SYSTEM_CLOCK
from topstep_sync.realtime.dispatch import Dispatcher
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.router import CallbackSink
from topstep_sync.realtime.subscriptions import Step, Want


def test_in_order_and_past_failures(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is logged, and the next one runs."""
    got: list[int] = []
    dispatcher = Dispatcher("topstep-test")
    for i in range(100):
        dispatcher.put(got.append, i)
        dispatcher.put(lambda: 1 // 0)
    dispatcher.close()
    assert list(range(100)) == got
    assert 100 == caplog.text.count("ZeroDivisionError: ")


def test_close_waits_for_nobody_for_long_and_may_be_called_from_inside() -> None:
    """A callback that hangs does not hold up close; one that closes its own dispatcher is fine."""
    release, closed = threading.Event(), threading.Event()
    dispatcher = Dispatcher("topstep-test")
    dispatcher.put(lambda: release.wait(5))
    dispatcher.put(print)
    assert soon(lambda: dispatcher.backlog == 1)
    dispatcher.close(timeout=0.05)
    release.set()
    other = Dispatcher("topstep-test")
    other.put(lambda: (other.close(), closed.set()))
    assert closed.wait(5)


def test_it_starts_again_after_close() -> None:
    """A connection that is used again has its callbacks again."""
    got: list[int] = []
    dispatcher = Dispatcher("topstep-test")
    for i in range(3):
        dispatcher.put(got.append, i)
        dispatcher.close()
    assert [0, 1, 2] == got


def test_the_router_tells_its_observers(caplog: pytest.LogCaptureFixture) -> None:
    """States reach observers until they are taken off; refused subscriptions are logged with the hub's words."""
    caplog.set_level(logging.WARNING)
    sink = CallbackSink(None, "topstep-test", SYSTEM_CLOCK)
    got: list[tuple[State, str | None]] = []
    off = sink.observe(lambda state, reason: got.append((state, reason)))
    sink.changed(State.CONNECTED, None)
    off()
    sink.changed(State.FAILED, "x")
    sink.refused(Step(Want("SubscribeOrders", (7,)), "SubscribeOrders", False), "no such account")
    sink.established(None, 0.0)
    sink.close()
    assert ([(State.CONNECTED, None)], float("inf")) == (got, sink.due(0.0))
    assert "SubscribeOrders(7): no such account" in caplog.text
    with pytest.raises(AssertionError):
        sink.events([], 0.0, 0.0)
    with pytest.raises(TypeError, match="routes nothing"):
        CallbackSink(7, "topstep-test", SYSTEM_CLOCK)


def test_in_a_forked_child_the_callbacks_start_anew() -> None:
    """What waited belongs to the parent; what is put afterwards runs."""
    got: list[int] = []
    sink = CallbackSink(None, "topstep-test", SYSTEM_CLOCK)
    sink._dispatcher._work.append((got.append, (1,)))
    sink._dispatcher._lock.acquire()
    sink.forked()
    sink.call(got.append, 2)
    sink.close()
    assert [2] == got

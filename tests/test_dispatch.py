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


def test_two_callbacks_never_run_at_once_and_keep_their_order() -> None:
    """One that takes longer than `close` waits is followed, not overtaken, by what comes after another start."""
    got: list[str] = []
    begun, release, threads = threading.Event(), threading.Event(), set()
    dispatcher = Dispatcher("topstep-test")

    def slow() -> None:
        begun.set()
        release.wait(5)
        got.append("slow")

    dispatcher.put(slow)
    assert begun.wait(5)
    for i in range(3):
        dispatcher.close(timeout=0.01)
        dispatcher.open()
        dispatcher.put(lambda i=i: (got.append(str(i)), threads.add(threading.current_thread())))
        running = [thread for thread in threading.enumerate() if thread.name == "topstep-test"]
        assert (1, []) == (len(running), got)
    release.set()
    dispatcher.close(timeout=5)
    assert (["slow", "0", "1", "2"], 1) == (got, len(threads))
    assert soon(lambda: not [thread for thread in threading.enumerate() if thread.name == "topstep-test"])


def test_what_comes_after_close_leaves_no_thread() -> None:
    """The last words of a connection may come late; they are told, and the thread that tells them ends."""
    got: list[int] = []
    dispatcher = Dispatcher("topstep-test")
    dispatcher.close()
    for i in range(100):
        dispatcher.put(got.append, i)
    assert soon(lambda: len(got) == 100)
    assert list(range(100)) == got
    assert soon(lambda: not [thread for thread in threading.enumerate() if thread.name == "topstep-test"])


def test_32_threads_put_and_close() -> None:
    """Everything runs once, and what one thread put runs in its order, whoever opens and closes meanwhile."""
    got: list[tuple[int, int]] = []
    dispatcher = Dispatcher("topstep-test")

    def work(number: int) -> None:
        for i in range(50):
            dispatcher.put(got.append, (number, i))
            if i % 10 == number % 10:
                dispatcher.close(timeout=0.001)
                dispatcher.open()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    dispatcher.close(timeout=10)
    assert soon(lambda: len(got) == 1600)
    assert [list(range(50))] * 32 == [[i for who, i in got if who == number] for number in range(32)]


def test_callbacks_wait_for_a_thread_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who tells something is not bothered; it is told later, when the owner looks again."""
    got: list[int] = []
    sink = CallbackSink(None, "topstep-test", SYSTEM_CLOCK)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: _refuse())
        sink.call(got.append, 1)
        sink.call(got.append, 2)
        assert 8.0 == sink.due(7.0)
    assert "can't start new thread" in caplog.text
    assert float("inf") == sink.due(8.0)
    assert soon(lambda: [1, 2] == got)
    sink.close()

    def interrupt(self: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sink.call(got.append, 3)
    sink.call(got.append, 4)
    assert soon(lambda: [1, 2, 3, 4] == got)
    sink.close()


def _refuse() -> None:
    raise RuntimeError("can't start new thread")


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

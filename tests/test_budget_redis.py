"""The budget in Redis: the script decides as the Python code does, and trouble is told without secrets."""

import builtins
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limiter_world import running_redis

from topstep_sync.clock import ManualClock
from topstep_sync.errors import MissingExtra
from topstep_sync.http import budget_redis
from topstep_sync.http.budget_redis import RedisBudget
from topstep_sync.http.shared_budget import MemoryBudget
from topstep_sync.http.sharing import DONE, GAVE_UP, REFUSED, UNUSED, Ask, BudgetLost, Ended, Rules

RULES = Rules("general", 8, 10.0, 0.0, 2, 5.0)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.mark.interop
class TestReal:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["ask", "ask", "urgent", "again", "lost", DONE, DONE, UNUSED, GAVE_UP, REFUSED]),
                st.sampled_from([0.0, 0.25, 3.0, 10.0, 70.0]),
                st.integers(0, 9),
            ),
            max_size=40,
        )
    )
    def test_it_answers_like_the_python_code(self, url: str, steps: list[tuple[str, float, int]]) -> None:
        """Whatever is asked and told, Redis and memory give the same answers."""
        clock = ManualClock()
        both = [RedisBudget(url, "parity", clock=clock), MemoryBudget(clock=clock)]
        both[0].forget(RULES)
        held: list[tuple[str, int]] = []
        serials = dict.fromkeys("012", 0)
        known = dict.fromkeys("012", 0)
        for what, pause, which in steps:
            clock.advance(pause)
            who, ended, needed = f"{which % 3}", [], which
            if what in (DONE, UNUSED, GAVE_UP, REFUSED):
                if not held:
                    continue
                who, number = held.pop(which % len(held))
                ended = [Ended(number, what, which / 8, 1.0, None, serials[who] if which == 5 else 0)]
                needed = which % 2
            if what != "again":
                serials[who] += 1
            ask = Ask(who, needed, 9, what == "urgent", ended, serials[who] if which != 7 else 0, known[who])
            real, model = (budget.exchange(RULES, ask) for budget in both)
            if model.granted and what != "lost":
                held += [(who, model.lease)] * model.granted
                known[who] = max(known[who], model.lease)
            assert pytest.approx(model.wait, abs=1e-5) == real.wait
            assert (model.lease, model.granted, model.probe, model.used, model.gate, model.cap) == (
                real.lease, real.granted, real.probe, real.used, real.gate, real.cap
            )  # fmt: skip
            assert (pytest.approx(model.span), model.why) == (real.span, real.why)
        both[0].close()

    def test_server_time(self, url: str) -> None:
        """Without a clock, the server's is used, in the script and in Python alike."""
        budget, rules = RedisBudget(url, "time"), Rules("general", 2, 0.2, 0.0, 0, 0.1)
        budget.forget(rules)
        assert 2 == budget.exchange(rules, Ask("a", 2, 2)).granted
        assert 0.1 < budget.exchange(rules, Ask("a", 1, 1, False, [Ended(1, DONE, 0.0)] * 2)).wait < 0.201
        time.sleep(0.21)
        probe = budget.exchange(rules, Ask("a", 1, 1))
        assert (1, True) == (probe.granted, probe.probe)
        budget.close()

    def test_one_round_trip_a_lease(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lease that is a matter of counting is one command."""
        budget = RedisBudget(url, "trips", clock=ManualClock())
        budget.forget(RULES)
        budget.exchange(RULES, Ask("a", 1, 1))
        monkeypatch.setattr(budget, "_decide", lambda *_: pytest.fail("more than one round trip"))
        sent: list[Any] = []
        connection = budget._client.connection_pool.get_connection()
        original = connection.send_command
        connection.send_command = lambda *args, **facts: (sent.append(args[0]), original(*args, **facts))[1]
        budget._client.connection_pool.release(connection)
        answer = budget.exchange(RULES, Ask("a", 2, 2, False, [Ended(1, DONE, 0.0)]))
        assert (2, ["EVALSHA"]) == (answer.granted, sent)
        budget.close()

    def test_it_does_not_stay_for_ever(self, url: str) -> None:
        """What nobody uses for an hour is gone from the server."""
        budget = RedisBudget(url, "ttl")
        budget.exchange(RULES, Ask("a", 1, 1))
        budget.exchange(RULES, Ask("a", 1, 1))
        assert 3500 < budget._client.ttl(budget._name(RULES)) <= 3600
        budget.close()

    def test_a_decision_is_made_anew_when_the_window_changed(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two processes that decide at once do not overwrite each other; endless change is told."""
        clock = ManualClock()
        budget, other = RedisBudget(url, "race", clock=clock), RedisBudget(url, "race", clock=clock)
        budget.forget(RULES)
        original, times = budget_redis.load, 2

        def meddling(*args: Any) -> Any:
            nonlocal times
            if times > 0:
                times -= 1
                with monkeypatch.context() as calm:
                    calm.setattr(budget_redis, "load", original)
                    other._decide(RULES, Ask("b", 1, 1))
            return original(*args)

        monkeypatch.setattr(budget_redis, "load", meddling)
        assert 4 == budget._decide(RULES, Ask("a", 8, 8)).granted
        times = 10**6
        with pytest.raises(BudgetLost, match="changed 50 times"):
            budget._decide(RULES, Ask("a", 1, 1))
        budget.close()
        other.close()

    def test_a_server_without_the_script(self, url: str) -> None:
        """A server that was started anew, or was told to forget scripts, gets it again."""
        budget = RedisBudget(url, "flushed", clock=ManualClock())
        budget.exchange(RULES, Ask("a", 1, 1))
        budget._client.script_flush()
        assert 2 == budget.exchange(RULES, Ask("a", 1, 1)).used
        budget.close()

    def test_connections_that_were_dropped_while_idle(self, url: str) -> None:
        """A restart or a proxy that cuts idle connections costs nobody a refusal."""
        budget, other = RedisBudget(url, "dropped", clock=ManualClock()), RedisBudget(url, "dropped")
        budget.exchange(RULES, Ask("a", 1, 1))
        other._client.client_kill_filter(_type="normal", skipme=True)
        assert 2 == budget.exchange(RULES, Ask("a", 1, 1)).used
        budget.close()
        other.close()

    def test_a_server_that_may_not_write(self, url: str) -> None:
        """After a failover the old server refuses; nothing is kept open to it, so a name is looked up again."""
        budget, admin = RedisBudget(url, "failover", clock=ManualClock()), RedisBudget(url, "admin")
        budget.exchange(RULES, Ask("a", 1, 1))
        admin._client.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(BudgetLost, match="ReadOnly"):
                budget.exchange(RULES, Ask("a", 1, 1))
        finally:
            admin._client.replicaof("NO", "ONE")
        idle = budget._client.connection_pool._available_connections
        assert (True, 2) == (
            all(connection._sock is None for connection in idle), budget.exchange(RULES, Ask("a", 1, 1)).used
        )  # fmt: skip
        budget.close()
        admin.close()

    def test_an_answer_that_comes_too_late(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lease that the server gave after we stopped listening counts, until the next exchange gives it back."""
        monkeypatch.setattr(budget_redis, "TIMEOUT", 0.1)
        budget, admin = RedisBudget(url, "late", clock=ManualClock()), RedisBudget(url, "admin")
        budget.exchange(RULES, Ask("a", 1, 1, serial=1))
        admin._client.execute_command("CLIENT", "PAUSE", "250", "WRITE")
        with pytest.raises(BudgetLost, match="Timeout"):
            budget.exchange(RULES, Ask("a", 3, 3, ended=[Ended(1, DONE, 0.0)], serial=2, last=1))
        time.sleep(0.3)
        told = [Ended(1, DONE, 0.0, first=2)]
        assert 2 == budget.exchange(RULES, Ask("a", 1, 1, ended=told, serial=3, last=1)).used
        budget.close()
        admin.close()

    @pytest.mark.parametrize("stored", [b"\x80", b"junk", b"\xc1", b"", b"\x93\x01\x02\x03"])
    def test_what_cannot_be_read_begins_anew(self, url: str, stored: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """A value that is no window, or none of this version, is told and replaced."""
        budget = RedisBudget(url, "junk", clock=ManualClock())
        budget._client.set(budget._name(RULES), stored)
        assert 6 == budget.exchange(RULES, Ask("a", 8, 8)).granted
        assert "cannot be read" in caplog.text
        budget.close()


class TestTrouble:
    def test_nobody_listens(self) -> None:
        """A server that is not there is a store out of reach; the password of its address is in no message."""
        budget = RedisBudget("redis://:hunter2@127.0.0.1:1/0", "k")
        for call in (lambda: budget.exchange(RULES, Ask("a", 1, 1)), lambda: budget.forget(RULES)):
            with pytest.raises(BudgetLost, match="Redis: ConnectionError") as caught:
                call()
            assert "hunter2" not in str(caught.value)
        budget.close()

    def test_the_extra_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names what to install."""
        original = builtins.__import__

        def without(name: str, *args: Any) -> Any:
            if name == "redis":
                raise ImportError(name)
            return original(name, *args)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtra, match=r"topstep-sync\[redis\]"):
            RedisBudget("redis://127.0.0.1:1/0", "k")

"""A Ctrl-C at every moment: afterwards everything still works, and nothing is held."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from interruptions import elsewhere, interrupted_everywhere, is_free
from token_fakes import DAY, FakeService

from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.clock import SystemClock
from topstep_sync.errors import SessionClosed, TopstepError

SOON = {"login_cooldown_seconds": 0.0, "backoff_seconds": (0.01,)}


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

"""What the tests about tokens share: a source of tokens whose every answer can be set, and ways to wait for threads."""

import threading
from collections.abc import Callable
from typing import Any

from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_policy import TokenState
from topstep_sync.clock import SYSTEM_CLOCK, ManualClock, Signal
from topstep_sync.models import Token
from topstep_sync.redact import Secret

HOUR = 3600.0
DAY = 24 * HOUR


class FakeService:
    """An auth service whose every answer a test can set: an exception to raise, or what to return."""

    def __init__(self, clock: ManualClock, life: float = DAY) -> None:
        self.clock = clock
        self.life = life
        self.logins = 0
        self.validations = 0
        self.logouts: list[str] = []
        self.on_login: Callable[[], Any] = lambda: None
        self.on_validate: Callable[[Token], Any] = lambda token: self.issue("rotated")
        self.gate = Signal()  # clear it to hold every call
        self.gate.set()
        self.entered = Signal()

    def issue(self, kind: str = "login") -> Token:
        now = self.clock.epoch()
        return Token(Secret(f"{kind}-{self.logins}-{self.validations}-secret"), 0, now, now + self.life)

    def login(self) -> Token:
        self.logins += 1
        return self._answer(lambda: self.on_login() or self.issue())

    def validate(self, token: Token) -> Token | None:
        self.validations += 1
        return self._answer(lambda: self.on_validate(token))

    def logout(self, token: Token) -> None:
        self.logouts.append(token.value)

    def _answer(self, make: Callable[[], Any]) -> Any:
        self.entered.set()
        assert SYSTEM_CLOCK.wait(self.gate, 30)
        answer = make()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def land() -> None:
    """No refresh is under way any more."""
    for thread in threading.enumerate():
        # One whose start was interrupted stays listed for ever, and never runs: CPython cannot take it back.
        if thread.name == "topstep-token" and thread.is_alive():
            thread.join(10)
            assert not thread.is_alive()


def landed(manager: TokenManager) -> TokenState:
    """The state once no refresh is under way."""
    land()
    return manager.get_state()


def together(count: int, call: Callable[[], Any]) -> list[Any]:
    """What *count* threads that call at the same moment got: results, or the exceptions that came instead."""
    barrier = threading.Barrier(count)
    found: list[Any] = [None] * count

    def run(index: int) -> None:
        barrier.wait(30)
        try:
            found[index] = call()
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


def locals_of(error: BaseException, *skipped: str) -> str:
    """What a crash reporter prints: locals of all frames of *error* and of all it came from; not of *skipped* files."""
    shown, seen, todo = [], set(), [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        trace = one.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename not in skipped:  # a test's own frames hold the secrets by name
                shown.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next
        todo += [one.__cause__, one.__context__]  # type: ignore[list-item]
        shown.append(repr(one) + str(one) + repr(vars(one)))
    return "\n".join(shown)

"""Where a shared budget is kept: in memory, in a SQLite file of this machine, or in Redis for several machines."""

import threading
from pathlib import Path
from typing import Final

from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.config import Config
from topstep_sync.errors import ConfigError
from topstep_sync.http.shared_window import SharedWindow
from topstep_sync.http.sharing import PATIENCE, Answer, Ask, Rules, SharedBudget, key_of

FILE: Final = "rate-budget.sqlite3"


def open_budget(config: Config, *, clock: Clock = SYSTEM_CLOCK) -> SharedBudget | None:
    """The shared budget that `config.rate` wants; `None` when the limiter counts alone. Nothing is opened yet.

    Raises:
        ConfigError: Redis is wanted without an address.
        MissingExtra: Redis is wanted, and the library is not installed.
    """
    rate, key = config.rate, key_of(config.user_name, config.base_url)
    if rate.budget == "sqlite":
        from topstep_sync.http.budget_sqlite import SQLiteBudget  # only who shares pays for the import

        return SQLiteBudget(rate.budget_path or default_path(), key, clock=clock)
    if rate.budget == "redis":
        if rate.budget_path is None:
            raise ConfigError("RateConfig.budget is 'redis' without budget_path; expected redis://host:6379/0")
        from topstep_sync.http.budget_redis import RedisBudget

        try:
            return RedisBudget(rate.budget_path, key)
        except ValueError:  # its text may hold the address, and that a password
            raise ConfigError("RateConfig.budget_path is no address; expected redis://host:6379/0") from None
    return None


def default_path() -> Path:
    """The budget file in the user's state folder."""
    import platformdirs

    return platformdirs.user_state_path("topstep-sync") / FILE


class MemoryBudget:
    """A budget that several limiters of one process share: two sessions of the same user, say. Thread-safe."""

    kind = "memory"

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards the windows
        self._windows: dict[str, bytes] = {}

    def exchange(self, rules: Rules, ask: Ask, patience: float = PATIENCE) -> Answer:
        with self._lock:
            now = self._clock.monotonic()
            # Read and written like everywhere else: an exchange that Ctrl-C ends half-way has not happened.
            window = SharedWindow.load(rules, self._windows.get(rules.name), now)
            answer = window.exchange(now, ask)
            self._windows[rules.name] = window.dump()
            return answer

    def forget(self, rules: Rules) -> None:
        with self._lock:
            self._windows.pop(rules.name, None)

    def forked(self) -> None:
        """The child has a copy of its own from here on: memory is not shared."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Nothing is held that must be closed."""

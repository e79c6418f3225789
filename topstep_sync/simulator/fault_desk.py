"""Where faults are ordered from Python."""

from collections.abc import Callable
from typing import Any, Self

import msgspec

from topstep_sync.simulator.faults import Fault
from topstep_sync.simulator.world import World


class FaultSwitch:
    """One fault in force; as a context manager it is over at the end of the block."""

    def __init__(self, run: Callable[[Callable[[World], Any]], Any], fault: Fault) -> None:
        self._run = run
        self._fault = fault

    @property
    def struck(self) -> int:
        """How often it has struck."""
        return self._fault.struck

    def remove(self) -> None:
        """It strikes no more."""
        self._run(lambda world: world.faults.remove(self._fault))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"FaultSwitch({self._fault!r})"


class FaultDesk:
    """Where faults are ordered. Thread-safe; kinds are in `faults.REST_KINDS` and `faults.HUB_KINDS`."""

    def __init__(self, run: Callable[[Callable[[World], Any]], Any]) -> None:
        self._run = run

    def add(self, operation: str, kind: str, **options: Any) -> FaultSwitch:
        """The next call of *operation* (`Order/place`, `*`) meets a fault of that kind.

        Args:
            options: fields of `faults.Fault`: `times`, `skip`, `probability`, `until`, `status`, `seconds`, ...
        """
        fault = Fault(operation=operation, kind=kind, **options)
        self._run(lambda world: world.faults.add(fault, world.clock.monotonic()))
        return FaultSwitch(self._run, fault)

    def status(self, operation: str, status: int, **options: Any) -> FaultSwitch:
        """That status instead of the work."""
        return self.add(operation, "status", status=status, **options)

    def lose(self, operation: str, **options: Any) -> FaultSwitch:
        """The work is done and its reply lost."""
        return self.add(operation, "lose", **options)

    def reset(self, operation: str, **options: Any) -> FaultSwitch:
        """The connection is reset before the call is read."""
        return self.add(operation, "reset", **options)

    def late(self, operation: str, seconds: float, **options: Any) -> FaultSwitch:
        """The work is done so many seconds late, whether or not the client still waits."""
        return self.add(operation, "late", seconds=seconds, **options)

    def slow(self, operation: str, seconds: float, **options: Any) -> FaultSwitch:
        """The work is done at once and answered so many seconds late."""
        return self.add(operation, "slow", seconds=seconds, **options)

    def clear(self) -> None:
        """No fault is in force."""
        self._run(lambda world: world.faults.clear())

    def active(self) -> list[Fault]:
        """The rules in force, as copies."""
        return self._run(lambda world: [msgspec.structs.replace(rule) for rule in world.faults.rules])  # type: ignore[no-any-return]

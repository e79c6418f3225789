"""What goes wrong with single events on their way to one connection: twice, never, late, out of order, cut."""

from collections.abc import Callable
from typing import Final

from topstep_sync.simulator.hub_dialect import RECORD_END
from topstep_sync.simulator.hub_link import Link
from topstep_sync.simulator.world import World

FLOOD: Final = 1000
"""How often an event comes that meets the fault `flood`."""

Later = Callable[[Link, float, Callable[[], None]], None]


class EventFaults:
    """Applies the rules of `faults.STREAM_KINDS`. Loop thread only.

    Args:
        later: runs an action some real seconds from now, unless the link has ended.
    """

    def __init__(self, world: World, later: Later) -> None:
        self._world: Final = world
        self._later: Final = later
        self._held: dict[str, list[bytes]] = {}

    def pass_through(self, link: Link, target: str, records: list[bytes]) -> list[bytes]:
        """What is to be sent now in the place of *records*."""
        faults = self._world.faults
        if not faults.rules and not self._held:
            return records
        fault = faults.take(f"/hubs/{link.hub}/{target.lower()}", self._world.clock.monotonic())
        held = self._held.pop(link.id, [])
        if fault is None:
            return records + held
        if fault.kind == "reorder":
            self._held[link.id] = records
            return held
        if fault.kind == "delay":
            self._later(link, fault.seconds, lambda: self._put(link, records))
            return held
        if fault.kind == "duplicate":
            return records * 2 + held
        if fault.kind == "flood":
            return records * FLOOD + held
        if fault.kind == "garble":
            return [_garbled(record, fault.body) for record in records] + held
        return held  # a gap

    def forget(self, link: Link) -> None:
        """What was held back for *link* is never sent."""
        self._held.pop(link.id, None)

    @staticmethod
    def _put(link: Link, records: list[bytes]) -> None:
        for record in records:
            link.put(record)


def _garbled(record: bytes, body: str) -> bytes:
    return (body.encode() if body else record[: len(record) // 2]) + RECORD_END

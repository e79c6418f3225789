"""A recording played through the hubs: every record, byte for byte, to whoever subscribed to what it is about."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from topstep_sync.simulator.bus import USER_HUB, Publication
from topstep_sync.simulator.hub_dialect import RECORD_END
from topstep_sync.simulator.hub_link import Link
from topstep_sync.simulator.hub_payloads import topic_of
from topstep_sync.simulator.hub_server import Hubs
from topstep_sync.simulator.recording import Entry, read

log = logging.getLogger("topstep_sync.simulator")

_PAUSE_EVERY: Final = 200  # records between two looks at the sockets, when played as fast as possible


class _Invocation(msgspec.Struct):
    target: str = ""
    arguments: list[Any] = []


_decode: Final = msgspec.json.Decoder(_Invocation).decode


async def play(hubs: Hubs, entries: Iterable[Entry], speed: float = 1.0) -> int:
    """*entries* have been sent; how many there were.

    Args:
        speed: how many times as fast as they were recorded; 0: as fast as the connections take them.
    """
    loop = asyncio.get_running_loop()
    start, first, count = loop.time(), None, 0
    for count, entry in enumerate(entries, 1):
        first = entry.at if first is None else first
        if speed > 0:
            # Even without a wait, so that what was sent leaves at its time.
            await asyncio.sleep(max(0.0, (entry.at - first) / speed - (loop.time() - start)))
        elif count % _PAUSE_EVERY == 0:
            await hubs.drain(entry.hub)
        for link in listeners(hubs, entry):
            link.put(entry.record + RECORD_END)
    hubs.flush()
    return count


def play_on_demand(hubs: Hubs) -> None:
    """The recording that the settings name, if any, plays from the first subscription on.

    Raises:
        RecordingError, OSError: there is no such recording.
    """
    settings, loop = hubs.world.settings, asyncio.get_running_loop()
    if not settings.replay:
        return
    next(read(settings.replay), None)  # a wrong name should be told now, not to the first client

    def start() -> None:
        task = loop.create_task(play(hubs, read(settings.replay), settings.replay_speed))
        _playing.add(task)
        task.add_done_callback(_finished)

    hubs.on_first_subscription = start


_playing: Final[set[asyncio.Task[int]]] = set()  # a loop keeps weak references only


def _finished(task: asyncio.Task[int]) -> None:
    _playing.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("! the replay broke off: %s", error)


def listeners(hubs: Hubs, entry: Entry) -> list[Link]:
    """Who hears *entry*: subscribers of its topic; everybody on its hub when it has none."""
    topic = _topic(entry)
    return [link for link in hubs.of(entry.hub) if not topic or topic in link.topics]


def _topic(entry: Entry) -> str:
    try:
        found = _decode(entry.record)
    except msgspec.MsgspecError:
        return ""
    subject = found.arguments[0] if found.arguments else None
    if entry.hub == USER_HUB:
        return topic_of(Publication(entry.hub, found.target, (), _account(subject)))
    return topic_of(Publication(entry.hub, found.target, (), None, subject if isinstance(subject, str) else None))


def _account(event: Any) -> int | None:
    """The account a user event is about, in whichever shape it was recorded."""
    while isinstance(event, list) and event:
        event = event[0]
    if isinstance(event, dict):
        data = event.get("data", event)
        return data.get("accountId") if isinstance(data, dict) else None
    return None

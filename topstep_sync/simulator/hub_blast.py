"""Quotes as fast as a connection takes them: numbered, encoded a chunk at a time, frames and all."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from topstep_sync.simulator.hub_dialect import RECORD_END
from topstep_sync.simulator.hub_frames import frame_head
from topstep_sync.simulator.hub_socket import HubSocket

CONTRACT: Final = "CON.F.US.MNQ.Z26"
MOST_RECORDS: Final = 10_000
"""Records a message may have."""
MOST_BYTES: Final = 1024 * 1024
"""Bytes a record may have."""

_CHUNK: Final = 256 * 1024  # bytes written at once: big enough that the loop's own cost does not show
_PACE: Final = 0.01  # seconds between the chunks of a paced blast
_RECORD: Final = (
    '{"type":1,"target":"GatewayQuote","arguments":["%s",{"symbol":"F.US.MNQ","contract":"%s",'
    '"lastPrice":21000.25,"bestBid":21000.25,"bestAsk":21000.5,"volume":%%d,'
    '"lastUpdated":"2026-11-24T15:00:00.1234567+00:00","timestamp":"2026-11-24T15:00:00.123+00:00"%s}]}'
)
_FILLER: Final = ',"note":"%s"'


def record_template(size: int, contract_id: str = CONTRACT) -> bytes:
    """A quote of about *size* bytes, with `%d` where its number goes (`volume`)."""
    bare = len(_RECORD % (contract_id, contract_id, "")) + len(RECORD_END)
    missing = size - bare - len(_FILLER % "")
    filler = _FILLER % ("x" * missing) if missing > 0 else ""
    return (_RECORD % (contract_id, contract_id, filler)).encode() + RECORD_END


def chunks(
    count: int, burst: int, size: int, contract_id: str = CONTRACT, most: int = 1_000_000
) -> Iterator[tuple[int, bytes]]:
    """Frames of *burst* records each, numbered from 0 up to *count*: how many records a chunk holds, and its bytes.

    Args:
        most: records a chunk, at most, though never less than one frame.
    """
    record = record_template(size, contract_id)
    per_chunk = max(1, min(_CHUNK // len(record), most) // burst) * burst
    at = 0
    while at < count:
        digits = len(str(at))
        end = min(at + per_chunk, count, 10**digits)  # numbers of one length share a frame head
        whole = at + (end - at) // burst * burst
        if whole == at:
            end = min(at + burst, count)
            yield end - at, _mixed(range(at, end), record)
        else:
            end = whole
            yield end - at, _uniform(range(at, end), burst, digits, record)
        at = end


def _uniform(numbers: range, burst: int, digits: int, record: bytes) -> bytes:
    length = burst * (len(record) - 2 + digits)
    template = frame_head(length) + record * burst
    if burst == 1:
        return b"".join([template % number for number in numbers])
    starts = numbers[::burst]
    return b"".join([template % tuple(range(start, start + burst)) for start in starts])


def _mixed(numbers: Sequence[int], record: bytes) -> bytes:
    payload = b"".join([record % number for number in numbers])
    return frame_head(len(payload)) + payload


async def blast(
    sockets: list[HubSocket],
    count: int,
    *,
    burst: int = 1,
    size: int = 275,
    rate: float = 0.0,
    contract_id: str = CONTRACT,
) -> tuple[int, float]:
    """*count* quotes have been sent to each of *sockets*; how many to one that stayed, and in how many seconds.

    Args:
        burst: records a message.
        size: bytes a record, about.
        rate: records a second; 0: as fast as the slowest connection takes them.

    Raises:
        ValueError: a message or a record beyond all measure.
    """
    for name, value, most in (("burst", burst, MOST_RECORDS), ("size", size, MOST_BYTES)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} of a blast is {value}; expected 1 to {most}")
    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    most = max(1, int(rate * _PACE)) if rate > 0 else count
    for number, data in chunks(count, burst, size, contract_id, most):
        taken = [await socket.send_bytes(data) for socket in sockets]
        if not any(taken):
            break
        sent += number
        ahead = sent / rate - (loop.time() - start) if rate > 0 else 0.0
        await asyncio.sleep(max(0.0, ahead))
    return sent, loop.time() - start

"""Bars as a pure function of contract, time and seed: any page of any pull can be checked against any other.

The level of a contract is a sum of smooth waves of random height, from 24 weeks down to 10 seconds, so that the close
of one bar is the open of the next and bars of all units agree on opens and closes. Volume is additive in the same way.
"""

import functools
import math
from typing import Any, Final

from topstep_sync.messages import RetrieveBars
from topstep_sync.simulator.catalogue import Instrument
from topstep_sync.simulator.sessions import DAY, cme_open
from topstep_sync.simulator.wire import wire_time

_MASK: Final = (1 << 64) - 1

# Length of a wave in seconds, and its height as a share of the price.
_WAVES: Final = (
    (24 * 7 * DAY, 0.08),
    (14 * DAY, 0.02),
    (DAY, 0.006),
    (7200, 0.0016),
    (600, 0.0006),
    (60, 0.0002),
    (10, 0.00007),
)


def mix(value: int) -> int:
    """64 well-mixed bits of *value* (splitmix64's finaliser)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@functools.lru_cache(maxsize=4096)
def _key(text: str) -> int:
    return int.from_bytes(text.encode()[-8:], "big") ^ mix(sum(ord(c) << (i % 48) for i, c in enumerate(text)))


@functools.lru_cache(maxsize=1 << 16)
def _knot(key: int, wave: int, index: int) -> float:
    return mix(key ^ (wave << 56) ^ index) / _MASK * 2 - 1


def level(instrument: Instrument, epoch: float, seed: int) -> int:
    """The contract's level at an instant, in ticks."""
    key = _key(f"{seed}/{instrument.id}")
    total = 0.0
    for wave, (length, height) in enumerate(_WAVES):
        index, part = divmod(epoch, length)
        share = part / length
        left = _knot(key, wave, int(index))
        total += height * (left + (_knot(key, wave, int(index) + 1) - left) * share)
    return max(1, round(instrument.root.level * math.exp(total) / instrument.root.tick_size))


SECONDS: Final = {1: 1, 2: 60, 3: 3600, 4: DAY, 5: 7 * DAY, 6: 30 * DAY}


def bars(instrument: Instrument, request: RetrieveBars, now: float, seed: int, *, always: bool) -> list[dict[str, Any]]:
    """The newest bars of the window, newest first."""
    length = SECONDS[request.unit] * request.unit_number
    end = min(request.end_time.timestamp(), now)
    start = request.start_time.timestamp()
    opening = int(end // length) * length
    found: list[dict[str, Any]] = []
    while opening >= start and len(found) < request.limit:
        if (opening + length <= end or request.include_partial_bar) and (always or cme_open(opening)):
            found.append(_bar(instrument, opening, min(end, opening + length), length, seed))
        opening -= length
    return found


def _bar(instrument: Instrument, opening: int, until: float, length: int, seed: int) -> dict[str, Any]:
    first, last = level(instrument, opening, seed), level(instrument, until, seed)
    noise = mix(_key(instrument.id) ^ opening ^ length)
    reach = 1 + math.isqrt(length) // 4
    price = instrument.price
    return {
        "t": wire_time(opening),
        "o": price(first),
        "h": price(max(first, last) + noise % reach),
        "l": price(max(1, min(first, last) - (noise >> 16) % reach)),
        "c": price(last),
        "v": 1 + (noise >> 32) % (10 * length),
    }

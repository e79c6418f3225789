"""The level of a contract as a pure function of time and seed: a sum of waves between random knots.

Long series are evaluated wave by wave over the whole list: a year of minutes costs a second, not half a minute. One
instant and a long series give the same value to the last bit, so that pages of bars fit together.
"""

import functools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from topstep_sync.simulator.catalogue import Instrument
from topstep_sync.simulator.sessions import DAY

_MASK: Final = (1 << 64) - 1

# Length of a wave in seconds, and its height as a share of the price.
WAVES: Final = (
    (168 * DAY, 0.08), (14 * DAY, 0.02), (DAY, 0.006), (7200, 0.0016), (600, 0.0006), (60, 0.0002), (10, 0.00007),
)  # fmt: skip


def mix(value: int) -> int:
    """64 well-mixed bits of *value* (splitmix64's finaliser)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


# Knots are drawn from a table: mixing 64 bits for each of a million would take seconds.
TABLE: Final = tuple(mix(index) / _MASK * 2 - 1 for index in range(4096))
_STEP: Final = 2654435761  # Knuth's multiplier: neighbours land far apart


@functools.lru_cache(maxsize=4096)
def key(text: str) -> int:
    """A number that belongs to *text*, the same in every process."""
    value = 0
    for letter in text:
        value = mix(value ^ ord(letter))
    return value >> 20


def knot(wave_key: int, index: int) -> float:
    """The height of a wave's knot, from -1.0 to 1.0."""
    return TABLE[(index * _STEP + wave_key >> 12) & 4095]


def level(instrument: Instrument, instant: float, seed: int) -> int:
    """The contract's level at an instant, in ticks."""
    return levels(instrument, (instant,), seed)[0]


def levels(instrument: Instrument, instants: Sequence[float], seed: int) -> list[int]:
    """The contract's levels at *instants*, which ascend, in ticks."""
    own = key(f"{seed}/{instrument.id}")
    waves = [_wave(instants, *wave, own + number * 977) for number, wave in enumerate(WAVES)]
    scale, start = instrument.root.level / instrument.root.tick_size, 1.0
    return [max(1, round(scale * sum(heights, start))) for heights in zip(*waves, strict=True)]


def _wave(instants: Sequence[float], length: int, height: float, wave_key: int) -> list[float]:
    values: list[float] = []
    first, count = 0, len(instants)
    while first < count:
        index = int(instants[first] // length)
        begin = index * length
        left = knot(wave_key, index) * height
        rise = knot(wave_key, index + 1) * height - left
        if first + 1 == count or instants[first + 1] >= begin + length:
            values.append(left + rise * ((instants[first] - begin) / length))
            first += 1
            continue
        last = bisect_left(instants, begin + length, first)
        values += [left + rise * ((instant - begin) / length) for instant in instants[first:last]]
        first = last
    return values

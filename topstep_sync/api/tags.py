"""Custom tags: what makes an order findable before anybody knows its id.

A tag is minted before the first attempt and never changes afterwards. The gateway refuses a tag it has seen on the
account (rejected orders burn theirs, too), so it is also the last line against a duplicate.
"""

import os
import re
from typing import Final

from topstep_sync.errors import InvalidRequest

# Crockford's base 32: no I, L, O, U.
ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ULID_LENGTH: Final = 26
SEPARATOR: Final = "~"
# GUESS: the gateway's limit is not documented; one client caps at 60. A longer tag that is refused would settle it.
LONGEST: Final = 60
LABEL: Final = re.compile(rf"[A-Za-z0-9_.-]{{1,{LONGEST - ULID_LENGTH - 1}}}")
TAG: Final = re.compile(rf"[!-~]{{1,{LONGEST}}}")

PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]
CHANCE: Final = 16  # characters
DRAWN: Final = 64  # chances drawn at a time: asking the operating system costs a single order more than all the rest

_SPELLING: Final = 8 * ALPHABET.encode()  # of any byte, its lower five bits as a character
_CHANCES: Final[list[str]] = []
_ULID: Final = re.compile(rf"[{ALPHABET}]{{{ULID_LENGTH}}}")


def ulid(epoch: float) -> str:
    """48 bits of milliseconds since 1970 and 80 bits of chance, as 26 characters that sort by time.

    The chance is the operating system's, not the clock's: two processes, and a process and its fork, must differ.
    """
    ms = round(epoch * 1000) & ((1 << 48) - 1)
    while True:
        try:  # taking it off the list is a single step, whoever else does it
            high = f"{PAIRS[ms >> 40]}{PAIRS[ms >> 30 & 1023]}{PAIRS[ms >> 20 & 1023]}"
            return f"{high}{PAIRS[ms >> 10 & 1023]}{PAIRS[ms & 1023]}{_CHANCES.pop()}"
        except IndexError:
            drawn = os.urandom(CHANCE * DRAWN).translate(_SPELLING).decode()
            _CHANCES.extend([drawn[at : at + CHANCE] for at in range(0, len(drawn), CHANCE)])


def mint(label: str | None, epoch: float) -> str:
    """A tag that no order has: ``<label>~<ULID>``, or the ULID alone."""
    if label is None:
        return ulid(epoch)
    if not isinstance(label, str) or not LABEL.fullmatch(label):
        raise InvalidRequest(f"label is {label!r}; expected {LABEL.pattern} (letters, digits, _ . -)")
    return f"{label}{SEPARATOR}{ulid(epoch)}"


def checked(tag: str) -> str:
    """A caller's own tag, if the gateway can be expected to keep it as it is."""
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        raise InvalidRequest(f"custom_tag is {tag!r}; expected 1 to {LONGEST} printable ASCII characters, no space")
    return tag


def minted_at(tag: str) -> float | None:
    """When a minted *tag* was made, in seconds since 1970; `None` for a tag that somebody else made."""
    code = tag.rpartition(SEPARATOR)[2]
    if not _ULID.fullmatch(code):
        return None
    value = 0
    for character in code[:10]:
        value = value << 5 | ALPHABET.index(character)
    return value / 1000


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_CHANCES.clear)  # what the parent still holds is the parent's

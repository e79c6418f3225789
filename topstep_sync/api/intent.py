"""One intent to have one order: what became of it, and by what evidence. Pure: no clock, no call.

The gateway's answer to one attempt is one of five (`Answer`); the intent itself goes through the states below. An
intent whose reply was once lost can never again become `NOT_EXECUTED`: only evidence about the tag ends it.
"""

import enum
from collections.abc import Mapping
from typing import Final

from topstep_sync.errors import (
    APIError,
    AuthenticationError,
    DuplicateCustomTag,
    Fate,
    RateLimited,
    TopstepError,
)


class Answer(enum.Enum):
    """What one attempt to place an order told us."""

    ACCEPTED = "accepted"  # success and an order id
    REJECTED = "rejected"  # the gateway said no; the tag may be used up
    NOT_EXECUTED = "not executed"  # never sent, or turned away at the door: the same tag may be sent again
    DUPLICATE = "duplicate"  # an order with this tag exists
    AMBIGUOUS = "ambiguous"  # anything else


class State(enum.Enum):
    __hash__ = object.__hash__  # Enum's own is Python, and every order looks four of these up

    PREPARED = "prepared"  # has its tag; nothing was sent
    SENT = "sent"  # an attempt is in flight
    RESENT = "resent"  # a second attempt is in flight, and the first may still execute
    LOST = "lost"  # the reply did not settle it: being looked up
    ACCEPTED = "accepted"  # the gateway has the order
    REJECTED = "rejected"  # the gateway refused the order
    NOT_EXECUTED = "not executed"  # the gateway never saw it
    UNKNOWN = "unknown"  # given up for now; a later look-up may settle it
    ABSENT = "absent"  # looked up after the horizon: there is no such order


class Event(enum.Enum):
    __hash__ = object.__hash__

    SEND = "send"
    ACCEPT = "accept"
    REJECT = "reject"
    TURN_AWAY = "turn away"
    LOSE = "lose"
    FIND = "find"
    FIND_REJECTED = "find rejected"
    GIVE_UP = "give up"
    MISS = "miss"


# What every order needs; on Python 3.11 each `Event.SEND` runs the enum's own Python code.
PREPARED: Final = State.PREPARED
SEND: Final = Event.SEND
ACCEPT: Final = Event.ACCEPT
LOSE: Final = Event.LOSE


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.PREPARED, Event.SEND): State.SENT,
    (State.PREPARED, Event.TURN_AWAY): State.NOT_EXECUTED,
    (State.SENT, Event.ACCEPT): State.ACCEPTED,
    (State.SENT, Event.REJECT): State.REJECTED,
    (State.SENT, Event.TURN_AWAY): State.NOT_EXECUTED,
    (State.SENT, Event.LOSE): State.LOST,
    (State.LOST, Event.SEND): State.RESENT,
    # Whatever a second attempt is refused for says nothing about the first: that is looked up.
    (State.RESENT, Event.ACCEPT): State.ACCEPTED,
    (State.RESENT, Event.LOSE): State.LOST,
    (State.LOST, Event.FIND): State.ACCEPTED,
    (State.LOST, Event.FIND_REJECTED): State.REJECTED,
    (State.LOST, Event.GIVE_UP): State.UNKNOWN,
    (State.UNKNOWN, Event.FIND): State.ACCEPTED,
    (State.UNKNOWN, Event.FIND_REJECTED): State.REJECTED,
    (State.UNKNOWN, Event.GIVE_UP): State.UNKNOWN,
    (State.UNKNOWN, Event.MISS): State.ABSENT,
    # Only a look-up that found nothing lets an intent that was once lost be sent again.
    (State.ABSENT, Event.SEND): State.RESENT,
    # An order that came later than any horizon is still found.
    (State.ABSENT, Event.FIND): State.ACCEPTED,
    (State.ABSENT, Event.FIND_REJECTED): State.REJECTED,
    (State.ABSENT, Event.GIVE_UP): State.UNKNOWN,
    (State.ABSENT, Event.MISS): State.ABSENT,
}

OPEN: Final = frozenset({State.PREPARED, State.SENT, State.RESENT, State.LOST, State.UNKNOWN})
"""States in which an order may exist that nobody knows of."""


def step(state: State, event: Event) -> State:
    """The state after *event*; a pair that is not in the table is a bug here and raises `KeyError`."""
    return TRANSITIONS[state, event]


def answer(error: BaseException) -> Answer:
    """What a failed attempt says about the order. Source: resilience study §1.5, gateway docs 2026-09.

    Everything that is not provably one of the others is ambiguous, our own bugs and Ctrl-C included.
    """
    if isinstance(error, DuplicateCustomTag):
        return Answer.DUPLICATE
    if not isinstance(error, TopstepError) or error.fate is Fate.UNKNOWN:
        return Answer.AMBIGUOUS
    if error.fate is Fate.NOT_SENT or isinstance(error, (RateLimited, AuthenticationError)):
        return Answer.NOT_EXECUTED
    if isinstance(error, APIError) and error.status_code == 409:  # a conflict with what? look
        return Answer.AMBIGUOUS
    return Answer.REJECTED

"""ORDER-001: one intent, at most one order.

One attempt, never repeated by the layers below unless it was provably not sent. Then, by its answer (`intent.Answer`):

==============  =======================================================================================
accepted        the order
rejected        the gateway's error
not executed    the error; the same tag may be sent again
duplicate       the order exists: look it up
ambiguous       look it up by tag in open and recent orders, and listen to the user hub; absent after
                the horizon: resend the *same* tag once if the caller wants it so, else `OrderStateUnknown`
==============  =======================================================================================
"""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from topstep_sync.api.intent import ACCEPT, SEND, Answer, Event, State, answer
from topstep_sync.api.journal import Journal
from topstep_sync.api.ledger import Intent, Ledger, Sought
from topstep_sync.api.lookup import Lookup
from topstep_sync.api.results import PlacedOrder
from topstep_sync.api.seam import Call, Ears, Listen, heard
from topstep_sync.clock import Clock, Waitable
from topstep_sync.config import OrderConfig
from topstep_sync.errors import (
    BadReply,
    DuplicateCustomTag,
    NotSent,
    OrderError,
    OrderRejected,
    OrderStateUnknown,
    SessionClosed,
    TopstepError,
)
from topstep_sync.messages import PlaceReply
from topstep_sync.models import Order, OrderStatus

PLACE: Final = "/api/Order/place"
LONG_AGO: Final = 30 * 86400.0  # GUESS: seconds within which most tags that are used twice have been used before
FLIGHT: Final = 300.0  # seconds somebody waits for the flight of another thread; two attempts and two horizons fit in

log = logging.getLogger("topstep_sync.orders")


class Placer:
    """Carries intents out. Thread-safe; different tags run side by side, one tag is in flight once."""

    def __init__(
        self,
        call: Call,
        lookup: Lookup,
        ledger: Ledger,
        config: OrderConfig,
        *,
        clock: Clock,
        listen: Listen,
        closed: Waitable,
        journal: Journal | None,
        longest_call: float,
    ) -> None:
        self._call = call
        self._lookup = lookup
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._listen = listen
        self._closed = closed
        self._journal = journal
        self._longest_call = longest_call

    @property
    def horizon(self) -> float:
        """Seconds after which an order that was not found is taken as absent."""
        return sum(self._config.verify_seconds)

    def place(self, new: Intent, wanted: Callable[[], bool] | None, timeout: float | None) -> PlacedOrder:
        """The order that *new* became.

        Args:
            wanted: asked before an order that was looked for in vain is sent again; `None`: it is not.
            timeout: seconds for one attempt.
        """
        outcome: PlacedOrder | BaseException | None = None
        try:
            entry = self._ledger.board(new)
            while entry is not new:
                joined = self._join(entry)
                if joined is not None:
                    return joined
                entry = self._ledger.board(new)
            if entry.doubtful:
                order = self.settle(entry, wait=True)
                if order is not None:
                    outcome = self._answer(entry, order, None)
                    return outcome
            if self._journal is not None:
                self.record(entry, sending=timeout or self._longest_call, must=True)
            error = self._attempt(entry, timeout)
            outcome = entry.placed if error is None else self._find_out(entry, error, wanted, timeout)
            assert outcome is not None, "an attempt without an error has left its order"
            return outcome
        except BaseException as error:
            outcome = error
            raise
        finally:
            try:
                if isinstance(outcome, BaseException):
                    self._abandon(new, outcome)
                self._ledger.land(new, outcome)
            except BaseException as error:  # a Ctrl-C at this very moment; whoever has joined waits for the landing
                self._abandon(new, error)
                self._ledger.land(new, outcome)
                raise

    def settle(self, entry: Intent, *, wait: bool) -> Order | None:
        """The order of an intent whose fate is open, in any status; `None` once the horizon has passed without it.

        Raises:
            OrderStateUnknown: the look-ups failed, so nothing is known.
        """
        order, failed = self.seek(entry.sought, wait=wait)
        if order is not None:
            self._found(entry, order)
            return order
        # One look before the horizon is no evidence: the order may still come.
        over = wait or self._clock.epoch() >= max(entry.since, entry.lost) + self.horizon
        if not self._ledger.conclude(entry, Event.MISS if failed is None and over else Event.GIVE_UP):
            order, failed = self.seek(entry.sought, wait=False)  # somebody else has had to do with it meanwhile
            if order is None:
                raise self.unknown(entry.sought, failed) from failed
            return order
        self.record(entry)
        if failed is not None:
            raise self.unknown(entry.sought, failed) from failed
        return None

    def seek(self, sought: Sought, *, wait: bool) -> tuple[Order | None, TopstepError | None]:
        """The order, or why the last look-up failed, or neither: it is not there.

        Looks at once, and with *wait* again for as long as the order might still appear.
        """
        left = max(sought.since, sought.lost) + self.horizon - self._clock.epoch() if wait else 0.0
        delays, total = [0.0], 0.0
        for delay in self._config.verify_seconds:
            if total < left:
                delays.append(min(delay, left - total))
                total += delay
        with heard(self._listen, sought.account_id) as source:
            return self._look(sought, Ears(source, self._clock, self._closed), delays)

    def _join(self, entry: Intent) -> PlacedOrder | None:
        """The outcome of the flight that another thread carries out for the same tag; `None`: it was over, in vain."""
        flight, interrupted = self._ledger.join(entry), None
        if flight is None:
            return entry.placed
        if self._clock.wait(flight.landed, FLIGHT):
            if isinstance(flight.outcome, PlacedOrder):
                return flight.outcome
            if isinstance(flight.outcome, Exception):
                raise flight.outcome
            interrupted = flight.outcome  # Ctrl-C was for that thread
        if entry.placed is None:
            raise self.unknown(entry.sought, interrupted) from interrupted
        return entry.placed

    def _find_out(
        self, entry: Intent, error: BaseException, wanted: Callable[[], bool] | None, timeout: float | None
    ) -> PlacedOrder:
        """What became of an attempt whose reply does not say."""
        again: BaseException | None = error
        # Listening begins here and not before the attempt, where it would cost every order that goes well; so with a
        # hub open the first look is at once, for its event may have come before.
        with heard(self._listen, entry.request.account_id) as source:
            ears = Ears(source, self._clock, self._closed)
            delays = (0.0, *self._config.verify_seconds) if ears.listening else self._config.verify_seconds
            order, failed = self._look(entry.sought, ears, delays)
            if order is None and failed is None and wanted is not None and wanted():
                log.warning("retry %s: not found in %.1f s; sent again with the same tag", entry.tag, self.horizon)
                self.record(entry, sending=timeout or self._longest_call)
                again = self._attempt(entry, timeout)
                if again is None:
                    return self._placed(entry)
                order, failed = self._look(entry.sought, ears, delays)
        if order is None:
            entry.step(Event.GIVE_UP)
            self.record(entry)
            raise self.unknown(entry.sought, failed or again) from again
        self._found(entry, order)
        return self._answer(entry, order, again)

    def _attempt(self, entry: Intent, timeout: float | None) -> BaseException | None:
        """Nothing when the order was accepted; the error when it has to be looked up. Raises what is definite."""
        entry.step(SEND)
        try:
            reply = self._call(PLACE, entry.request, PlaceReply, timeout=timeout)
        except BaseException as error:
            return self._judge(entry, error)
        if not isinstance(reply.order_id, int):
            entry.lost = self._clock.epoch()
            entry.step(Event.LOSE)
            return BadReply(f"{PLACE}: success, but no order id", endpoint=PLACE, status_code=200)
        entry.placed = PlacedOrder.of(entry.request, reply.order_id)
        entry.step(ACCEPT)
        if self._journal is not None:
            self.record(entry)
        return None

    def _judge(self, entry: Intent, error: BaseException) -> BaseException | None:
        kind = answer(error)
        entry.lost = self._clock.epoch()
        if isinstance(error, TopstepError):
            error.custom_tag = entry.tag
            # A tag of the caller's own may have been used before; unless a layer below has sent it twice, it was.
            if kind is Answer.DUPLICATE and not entry.minted and error.attempts < 2 and entry.state is State.SENT:
                if self._is_ours(entry, error):
                    return None
                kind = Answer.REJECTED
        if kind in (Answer.REJECTED, Answer.NOT_EXECUTED) and entry.state is State.SENT:
            entry.step(Event.REJECT if kind is Answer.REJECTED else Event.TURN_AWAY)
            self.record(entry)
            raise error
        log.warning("! %s: %s; looking it up", entry.tag, type(error).__name__)
        entry.step(Event.LOSE)
        if not isinstance(error, Exception):  # Ctrl-C: the user wants out, and gets out
            raise error
        return error

    def _is_ours(self, entry: Intent, error: TopstepError) -> bool:
        """Whether what uses the tag is this very order: something on the way may have sent it twice.

        Raises:
            OrderStateUnknown: it cannot be found out.
        """
        # One look far back: an older order with the tag is shown, and is the answer at once. Only where none is to be
        # seen can waiting change it: then it may be this order, which the gateway has and does not show yet.
        order, failed = self.seek(replace(entry.sought, since=entry.since - LONG_AGO), wait=False)
        if order is None:
            order, failed = self.seek(entry.sought, wait=True)
        if failed is None and (order is None or not self._lookup.is_of(order, entry.request, entry.since)):
            if order is not None and isinstance(error, OrderError):
                error.order_id = order.id
            return False
        entry.step(Event.LOSE)
        if order is None:
            raise self.unknown(entry.sought, failed) from error
        self._found(entry, order)
        return True

    def _look(self, sought: Sought, ears: Ears, delays: Iterable[float]) -> tuple[Order | None, TopstepError | None]:
        order: Order | None = None
        failed: TopstepError | None = None
        for delay in delays:
            order = ears.hear(delay, sought.hears)
            if order is not None:
                failed = None  # whatever failed before, it is known now
                break
            if ears.closed.is_set():  # whatever the looks before it said, the horizon was not reached
                failed = SessionClosed("the session was closed during the look-up")
                break
            try:
                order, failed = self._lookup.by_tag(sought.account_id, sought.tag, sought.since), None
            except TopstepError as error:
                failed = error
            if order is not None:
                break
        return order, failed

    def _found(self, entry: Intent, order: Order) -> None:
        log.info("= %s is order %s, %s", entry.tag, order.id, order.status.name)
        rejected = order.status is OrderStatus.REJECTED
        placed = None if rejected else PlacedOrder.of(entry.request, order.id, order)
        if self._ledger.conclude(entry, Event.FIND_REJECTED if rejected else Event.FIND, placed):
            self.record(entry)

    def _answer(self, entry: Intent, order: Order, error: BaseException | None) -> PlacedOrder:
        """What the caller is told of an order that was found."""
        if order.status is OrderStatus.REJECTED:
            raise self._rejection(entry, order, error) from error
        return self._placed(entry)

    def _placed(self, entry: Intent) -> PlacedOrder:
        assert entry.placed is not None
        return entry.placed

    def _rejection(self, entry: Intent, order: Order, error: BaseException | None) -> OrderRejected:
        if isinstance(error, OrderRejected) and not isinstance(error, DuplicateCustomTag):
            return error
        return OrderRejected(
            f"order {order.id} ({entry.tag}) was rejected; the reply with the reason was lost",
            endpoint=PLACE,
            order_id=order.id,
            custom_tag=entry.tag,
        )

    def _abandon(self, entry: Intent, error: BaseException) -> None:
        """Whatever ended the flight, the intent says where it stands and the error says how to find the order."""
        if entry.state is State.PREPARED:
            entry.step(Event.TURN_AWAY)
        if entry.state in (State.SENT, State.RESENT):
            entry.lost = self._clock.epoch()
            entry.step(Event.LOSE)
        if entry.state is State.LOST:
            entry.step(Event.GIVE_UP)
            self.record(entry)
        if entry.state is State.UNKNOWN and not isinstance(error, OrderStateUnknown):
            error.add_note(f"The order may exist: session.orders.verify({entry.tag!r})")
        elif entry.placed is not None:
            error.add_note(f"The order exists: session.orders.verify({entry.tag!r})")

    def unknown(self, sought: Sought, cause: BaseException | None) -> OrderStateUnknown:
        """The error that says that nothing is known about *sought*, and how to find out."""
        why = "it was not found" if cause is None else f"{type(cause).__name__}: {cause}"
        return OrderStateUnknown(
            f"the order may exist ({why}); before placing another: session.orders.verify({sought.tag!r})",
            tag=sought.tag,
            custom_tag=sought.tag,
            since=sought.since,
            last_error=why,
            endpoint=PLACE,
        )

    def record(self, entry: Intent, *, sending: float | None = None, must: bool = False) -> None:
        """The intent is in the journal. One that could not be written is not sent; an outcome is not lost for it.

        Args:
            sending: seconds within which an attempt that begins now will have ended.
        """
        if self._journal is None:
            return
        now = self._clock.epoch()
        try:
            self._journal.write(entry, now, until=None if sending is None else now + sending)
        except OSError as error:
            if must:
                raise NotSent(f"the order journal cannot be written ({error}); nothing was sent") from error
            log.exception("! %s (%s) is not in the journal", entry.tag, entry.state.value)

"""The daily guard: rules under which new risk is refused before anything is sent. Off unless configured.

What it asks of every order, and of every change that makes one bigger, is where the position could end in the worst
case: everything of that side fills that works at the gateway, is on its way there, or may have got there unheard (an
`OrderStateUnknown` that no look-up has settled), and nothing of the other side. Of the stop and the target of one
entry only one counts, for only one fills; the legs of an entry that still works do not count at all.

An order that leaves the position in that case on the side where it is, or flat, only reduces it, and passes every
rule. Whatever else it is, it is new risk: four sells against one contract held are one way out and three ways in.
`positions.close`, `close_part`, `cancel`, `cancel_all` and `flatten` are never asked about.

What the rules need to know and cannot find out counts as a refusal: a guard that lets orders through when it is blind
is none. Orders of several threads are counted together, as nobody's order is sent before its claim is entered here;
and it counts until the gateway shows the order, not only until it has accepted it. Orders of other programs are seen
once the gateway shows them.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, time
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from topstep_sync.api import calendar
from topstep_sync.api.exposure import Pending, net_size, pending, signed, worst
from topstep_sync.api.ledger import Intent
from topstep_sync.clock import Clock
from topstep_sync.config import GuardConfig
from topstep_sync.errors import AccountNotFound, Fate, OrderNotFound, RiskRefused, TopstepError
from topstep_sync.messages import PlaceOrder
from topstep_sync.models import Order, OrderSide, Position, Trade, given

T = TypeVar("T")
Doubtful = Callable[[], Iterable[Intent]]
"""The intents that may have an order nobody knows of."""

log = logging.getLogger("topstep_sync.orders")

SHOWN: Final = 16.0  # GUESS: seconds after which the gateway shows what it accepted; as long as a lost order is sought
TRIES: Final = 3  # readings of the account before a claim is judged by the most that it could find there


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Room that an order, or a bigger size of one, may take."""

    account_id: int
    contract_id: str
    side: OrderSide
    size: int
    """Contracts of the whole order."""
    tag: str = ""
    """Of an order that is placed."""
    order_id: int = 0
    """Of one that is changed."""

    def beside(self, other: "Claim") -> bool:
        """Whether *other* is about the same position, and does not stand for the same new order."""
        same = (self.account_id, self.contract_id) == (other.account_id, other.contract_id)
        return same and not (self.tag and self.tag == other.tag)

    def shown(self, orders: Iterable[Order], *, ended: bool = False) -> bool:
        """Whether the gateway's *orders* are told of it: the working ones, or with *ended* all that began of late."""
        if self.order_id:  # one that works no more has no size that may come
            return not ended and self.order_id not in {order.id for order in orders if order.size < self.size}
        return self.tag in {order.custom_tag for order in orders if not (ended and order.status.working)}

    @classmethod
    def of(cls, request: PlaceOrder) -> "Claim":
        return cls(
            account_id=request.account_id,
            contract_id=request.contract_id,
            side=request.side,
            size=request.size,
            tag=str(request.custom_tag),
        )


class Kept(msgspec.Struct, frozen=True):
    """A claim that was accepted, and that the gateway may not show yet."""

    claim: Claim
    at: float
    """Seconds since 1970."""
    until: float
    """By the monotonic clock."""


class Holdings(msgspec.Struct, frozen=True):
    """What the gateway shows of one position."""

    net: int
    orders: list[Order]

    def after(self, claims: Iterable[Claim], side: OrderSide) -> int:
        """Where the position could end on *side*, with all of *claims*."""
        orders, items = self.orders, list[Pending]()
        tags = {order.custom_tag for order in orders}
        for claim in claims:
            if claim.order_id:
                orders = [_resized(order, claim) for order in orders]
            elif claim.tag not in tags:
                items.append(Pending(signed(claim.side, claim.size), claim.tag))
        return worst(self.net, [*pending(orders), *items], side)


def _resized(order: Order, claim: Claim) -> Order:
    return replace(order, size=max(order.size, claim.size)) if order.id == claim.order_id else order


def earned(trades: Iterable[Trade]) -> float:
    """What the fills have earned after fees, in account currency; open positions are not valued."""
    total = 0.0
    for trade in trades:
        if not trade.voided:
            gross = trade.profit_and_loss if given(trade.profit_and_loss) else 0.0
            costs = trade.commissions if given(trade.commissions) else 0.0
            total += float(gross or 0.0) - trade.fees - float(costs)  # type: ignore[arg-type]
    return total


def day_start(now: datetime) -> datetime:
    """When the trading day of *now* began: 17:00 in Chicago."""
    local = now.astimezone(calendar.CHICAGO)
    day = local.date() if local.time() >= calendar.OPENS else local.date() - calendar.ONE_DAY
    return datetime.combine(day, calendar.OPENS, calendar.CHICAGO).astimezone(UTC)


def within(local: time, begin: time | None, end: time | None) -> bool:
    """Whether *local* lies in the daily window, which may pass midnight."""
    if begin is None or end is None:
        return (begin is None or local >= begin) and (end is None or local < end)
    return begin <= local < end if begin <= end else local >= begin or local < end


def clock_time(text: str | None) -> time | None:
    """``15:10`` or ``8`` as a time."""
    if text is None:
        return None
    hour, _, minute = text.partition(":")
    return time(int(hour), int(minute or 0))


class Guard:
    """Asks the gateway only for what the configured rules need. Thread-safe.

    Args:
        positions, working, trades: what the account holds, what may still fill, what filled since an instant.
        recent: the account's orders since an instant (seconds since 1970), ended ones too.
    """

    def __init__(
        self,
        config: GuardConfig,
        *,
        clock: Clock,
        positions: Callable[[int], Iterable[Position]],
        working: Callable[[int, str], Iterable[Order]],
        trades: Callable[[int, datetime], Iterable[Trade]],
        recent: Callable[[int, float], Iterable[Order]],
    ) -> None:
        self._config = config
        self.on = any(value is not None for value in vars(config).values())
        """Whether any rule is configured."""
        self._clock = clock
        self._positions = positions
        self._working = working
        self._trades = trades
        self._recent = recent
        self._lock = threading.Lock()  # guards what follows
        self._claims: list[Claim] = []
        self._adrift: list[Claim] = []  # those of them that are changes of which nobody knows whether they came about
        self._kept: list[Kept] = []
        self._readings: dict[int, list[Claim]] = {}  # per reading of an account: what was released meanwhile

    def placing(self, request: PlaceOrder, doubtful: Doubtful = tuple) -> AbstractContextManager[None]:
        """*request* may be sent within, and counts for whoever else asks meanwhile.

        Raises:
            RiskRefused: a rule forbids it, or cannot be checked; nothing was sent.
        """
        return self._counting(Claim.of(request), doubtful, sending=True)

    def allows(self, request: PlaceOrder, doubtful: Doubtful = tuple) -> bool:
        """Whether *request* may be sent now; what stands for the same order already is not counted beside it."""
        try:
            with self._counting(Claim.of(request), doubtful, sending=False):
                return True
        except TopstepError as error:  # whatever it is, the order that was lost is not it
            log.warning("! %s: not sent again; %s", request.custom_tag, error)
            return False

    @contextmanager
    def _counting(self, claim: Claim, doubtful: Doubtful, *, sending: bool) -> Iterator[None]:
        keep: Claim | None = None
        try:
            self._enter(claim, doubtful)
            keep = claim if sending else None  # after a Ctrl-C, too: it may have been accepted
            yield
        except Exception:
            keep = None  # if its fate is open, it is among the doubtful ones by now
            raise
        finally:
            try:
                self._release(claim, keep=keep)
            except BaseException:  # a Ctrl-C at this very moment; the claim would count for ever
                self._release(claim, keep=keep)
                raise

    @contextmanager
    def changing(self, order: Order, size: int, doubtful: Doubtful = tuple) -> Iterator[None]:
        """*order* may be given *size* within; only a bigger one is new risk.

        Raises:
            RiskRefused: as for `placing`.
        """
        claim = Claim(
            account_id=order.account_id, contract_id=order.contract_id, side=order.side, size=size, order_id=order.id
        )
        bigger, gone = size > order.size, [claim]
        keep = adrift = None
        try:
            if bigger:
                self._enter(claim, doubtful)
            settled = self._before(claim, enter=not bigger)
            # What may still be carried out counts until the order has ended, or has been changed again.
            adrift = claim
            yield
            # Of the changes before it; one of another thread that is still on its way may come after it.
            keep, adrift, gone = claim if bigger else None, None, [claim, *settled]
        except BaseException as error:
            if getattr(error, "fate", Fate.UNKNOWN) is not Fate.UNKNOWN:
                adrift = None
            raise
        finally:
            try:
                self._release(*gone, keep=keep, adrift=adrift)
            except BaseException:  # as above
                self._release(*gone, keep=keep, adrift=adrift)
                raise

    def _before(self, claim: Claim, *, enter: bool) -> list[Claim]:
        """The changes of the same order that *claim*, once it is certain, has settled; with *enter*, it counts now."""
        with self._lock:
            if enter:  # no new risk, unless another thread makes the order smaller still meanwhile
                self._claims.append(claim)
            before = [*self._adrift, *(kept.claim for kept in self._kept)]
            return [earlier for earlier in before if earlier.order_id == claim.order_id]

    def sure(self, question: Callable[[], T]) -> T:
        """The answer to *question*.

        Raises:
            RiskRefused: there is none.
            OrderNotFound, AccountNotFound: that is the answer.
        """
        try:
            return question()
        except (OrderNotFound, AccountNotFound):
            raise
        except TopstepError as error:
            raise RiskRefused(f"the daily guard cannot be sure ({type(error).__name__}: {error})") from error

    def _enter(self, claim: Claim, doubtful: Doubtful) -> None:
        """*claim* counts from now on. Between its last look at the other claims and that, there is no gap."""
        rule, cause = self._by_size(claim.size) or self._by_time(), None
        if rule is None:
            rule, cause = self._by_loss(claim.account_id)
        if rule is None and self._config.max_position is None:
            with self._lock:
                self._claims.append(claim)
            return
        for _ in range(TRIES):
            refusal, again = self.sure(lambda: self._judged(claim, rule, doubtful))
            if refusal is None:
                return
            if not again:
                break
        raise RiskRefused(f"the daily guard forbids new risk: {refusal}") from cause

    def _judged(self, claim: Claim, rule: str | None, doubtful: Doubtful) -> tuple[str | None, bool]:
        """Why *claim* is refused, or `None` when it was entered; and whether another reading might say otherwise."""
        missed: list[Claim] = []
        now = self._clock.monotonic()
        try:
            with self._lock:
                self._readings[id(missed)] = missed
                kept = [k for k in self._kept if now < k.until and claim.beside(k.claim)]
            lost = [Claim.of(entry.request) for entry in doubtful()]
            # Orders before positions: what fills in between is seen twice, and not overlooked.
            orders = list(self._working(claim.account_id, claim.contract_id))
            unseen = self._unseen(claim.account_id, [k for k in kept if not k.claim.shown(orders)])
            held = Holdings(net_size(self._positions(claim.account_id), claim.contract_id), orders)
            with self._lock:
                del self._readings[id(missed)]
                self._kept = [k for k in self._kept if k not in kept or k in unseen]
                waiting = [k.claim for k in unseen]
                others = [other for other in (*lost, *missed, *waiting, *self._claims) if claim.beside(other)]
                refusal = self._refusal(claim, rule, held, others)
                if refusal is None:
                    self._claims.append(claim)
        except BaseException:
            with self._lock:
                self._readings.pop(id(missed), None)
            raise
        # What was released meanwhile may be among what was read, and would be counted twice then.
        return refusal, bool(missed)

    def _unseen(self, account_id: int, kept: list[Kept]) -> list[Kept]:
        """Those of *kept*, which no working order is, that have not ended either, as far as the gateway shows."""
        if not [k for k in kept if k.claim.tag]:
            return kept
        try:
            recent = list(self._recent(account_id, min(k.at for k in kept)))
        except TopstepError as error:
            log.info("~ the guard counts what it cannot see: %s", error)
            return kept
        return [k for k in kept if not k.claim.shown(recent, ended=True)]

    def _release(self, *claims: Claim, keep: Claim | None = None, adrift: Claim | None = None) -> None:
        """*claims* count no more for whoever begins to look now, but for *adrift*; *keep* does until it is shown."""
        now = self._clock.monotonic()
        fresh = [] if keep is None else [Kept(keep, self._clock.epoch(), now + SHOWN)]
        over = {id(claim) for claim in claims}
        with self._lock:  # in this order, so that it can be done again after a Ctrl-C
            gone = [c for c in self._claims if id(c) in over and c is not adrift]
            for missed in self._readings.values():
                missed.extend(gone)
            self._claims = [c for c in self._claims if id(c) not in over or c is adrift]
            left = [c for c in self._adrift if id(c) not in over]
            self._adrift = left if adrift is None else [*left, adrift]
            kept = [k for k in self._kept if k.until > now and id(k.claim) not in over]
            self._kept = [*kept, *fresh]

    def _refusal(self, claim: Claim, rule: str | None, held: Holdings, others: list[Claim]) -> str | None:
        """What the worst case says about *claim*, if *rule* is what forbids new risk just now."""
        after = held.after([*others, claim], claim.side)
        if signed(claim.side, after) <= 0:
            return None
        before = held.after(others, claim.side)
        if rule is not None:
            return rule + _hint(held.net, before, claim.side)
        most = self._config.max_position
        if most is None or abs(after) <= most:
            return None
        return f"the position could become {after:+d}; max_position is {most}" + _hint(held.net, before, claim.side)

    def _by_size(self, size: int) -> str | None:
        most = self._config.max_order_size
        return f"an order of {size}; max_order_size is {most}" if most and size > most else None

    def _by_time(self) -> str | None:
        begin, end = self._config.open_from, self._config.open_until
        if begin is None and end is None:
            return None
        local = datetime.fromtimestamp(self._clock.epoch(), UTC).astimezone(calendar.CHICAGO).time()
        if within(local, clock_time(begin), clock_time(end)):
            return None
        return f"it is {local:%H:%M} in Chicago; new risk is taken from {begin or '00:00'} until {end or '24:00'}"

    def _by_loss(self, account_id: int) -> tuple[str | None, TopstepError | None]:
        most = self._config.max_daily_loss
        if most is None:
            return None, None
        now = datetime.fromtimestamp(self._clock.epoch(), UTC)
        try:
            result = earned(self._trades(account_id, day_start(now)))
        except TopstepError as error:  # no new risk then; a way out must stay open all the same
            return f"what was lost today cannot be found out ({type(error).__name__}: {error})", error
        if -result < most:
            return None, None
        return f"{-result:.2f} lost since 17:00 Chicago; max_daily_loss is {most:.2f}", None


def _hint(net: int, before: int, side: OrderSide) -> str:
    """What an order that was meant as a way out runs into."""
    waiting = abs(before - net)
    if signed(side, net) >= 0 or not waiting:
        return ""
    word = "buys" if side is OrderSide.BUY else "sells"
    return f"; {net:+d} is held and {word} of {waiting} may still fill: cancel them first, or use positions.close"

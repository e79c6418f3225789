"""The daily guard: rules under which new risk is refused before anything is sent. Off unless configured.

An order that only reduces a position always passes. What the rules need to know and cannot find out counts as a
refusal: a guard that lets orders through when it is blind is none.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, time

from topstep_sync.api import calendar
from topstep_sync.api.results import PlacedOrder
from topstep_sync.clock import Clock
from topstep_sync.config import GuardConfig
from topstep_sync.errors import RiskRefused, TopstepError
from topstep_sync.messages import ModifyOrder, PlaceOrder
from topstep_sync.models import Order, OrderSide, Position, PositionType, Trade, given


def net_size(positions: Iterable[Position], contract_id: str) -> int:
    """Contracts held, negative when short."""
    held = (p for p in positions if p.contract_id == contract_id)
    return sum(-p.size if p.type is PositionType.SHORT else p.size for p in held)


def signed(side: OrderSide, size: int) -> int:
    return size if side is OrderSide.BUY else -size


def reduces(net: int, change: int) -> bool:
    """Whether *change* only takes away from *net*, without turning it over."""
    return net * change < 0 and abs(change) <= abs(net)


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
    """

    def __init__(
        self,
        config: GuardConfig,
        *,
        clock: Clock,
        positions: Callable[[int], Iterable[Position]],
        working: Callable[[int, str], Iterable[Order]],
        trades: Callable[[int, datetime], Iterable[Trade]],
    ) -> None:
        self._config = config
        self.on = any(value is not None for value in vars(config).values())
        """Whether any rule is configured."""
        self._clock = clock
        self._positions = positions
        self._working = working
        self._trades = trades

    def check(self, request: PlaceOrder) -> None:
        """Returns when *request* may be sent.

        Raises:
            RiskRefused: a rule forbids it, or cannot be checked; nothing was sent.
        """
        self._check(request.account_id, request.contract_id, request.side, request.size, request.size)

    def check_change(self, order: Order | PlacedOrder, request: ModifyOrder) -> None:
        """Returns when *order* may be changed so; only a bigger one is new risk.

        Raises:
            RiskRefused: as for `check`.
        """
        size = request.size
        if isinstance(size, int) and size > order.size:
            self._check(order.account_id, order.contract_id, order.side, size - order.size, size)

    def _check(self, account_id: int, contract_id: str, side: OrderSide, added: int, size: int) -> None:
        if not self.on:
            return
        try:
            reason = self._reason(account_id, contract_id, signed(side, added), size)
        except TopstepError as error:
            raise RiskRefused(f"the daily guard cannot be sure ({type(error).__name__}: {error})") from error
        if reason:
            raise RiskRefused(f"the daily guard forbids new risk: {reason}")

    def _reason(self, account_id: int, contract_id: str, change: int, size: int) -> str | None:
        most = self._config.max_order_size
        reason = f"an order of {size}; max_order_size is {most}" if most and size > most else self._by_time()
        if reason is None and self._config.max_position is None and self._config.max_daily_loss is None:
            return None
        net = net_size(self._positions(account_id), contract_id)
        if reduces(net, change):
            return None
        return reason or self._by_position(account_id, contract_id, net, change) or self._by_loss(account_id)

    def _by_time(self) -> str | None:
        begin, end = self._config.open_from, self._config.open_until
        if begin is None and end is None:
            return None
        local = datetime.fromtimestamp(self._clock.epoch(), UTC).astimezone(calendar.CHICAGO).time()
        if within(local, clock_time(begin), clock_time(end)):
            return None
        return f"it is {local:%H:%M} in Chicago; new risk is taken from {begin or '00:00'} until {end or '24:00'}"

    def _by_position(self, account_id: int, contract_id: str, net: int, change: int) -> str | None:
        most = self._config.max_position
        if most is None:
            return None
        same = [o for o in self._working(account_id, contract_id) if signed(o.side, 1) * change > 0]
        pending = sum(signed(o.side, o.size - int(o.fill_volume or 0)) for o in same)
        after = net + pending + change
        if abs(after) <= most or abs(after) <= abs(net):
            return None
        return f"the position could become {after:+d}; max_position is {most}"

    def _by_loss(self, account_id: int) -> str | None:
        most = self._config.max_daily_loss
        if most is None:
            return None
        now = datetime.fromtimestamp(self._clock.epoch(), UTC)
        result = earned(self._trades(account_id, day_start(now)))
        return f"{-result:.2f} lost since 17:00 Chicago; max_daily_loss is {most:.2f}" if -result >= most else None

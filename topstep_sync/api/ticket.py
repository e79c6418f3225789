"""From what a trader says to what the gateway takes: a `PlaceOrder`, checked. Pure.

Every refusal here is one the gateway would give as well, but later, with less to say, and with the tag used up.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypedDict

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from topstep_sync.api import brackets
from topstep_sync.api.arguments import SIDES, account_number, choice, contract_name, number, type_of, whole
from topstep_sync.api.results import PlacedOrder
from topstep_sync.errors import InvalidRequest
from topstep_sync.messages import Bracket, ModifyOrder, PlaceOrder
from topstep_sync.models import Account, Contract, Order, OrderSide, OrderType

_MARKET: Final = OrderType.MARKET  # on Python 3.11 each look at it runs the enum's own Python code
MOST_TRAIL_TICKS: Final = 1000  # "Trail Distance exceeds maximum (1000)": gateway docs, place, seen 2026-09

# Type → the prices it needs, and takes. Source: gateway docs, place, 2026-09; StopLimit is in the enum only.
NEEDS: Final[Mapping[OrderType, frozenset[str]]] = {
    OrderType.MARKET: frozenset(),
    OrderType.LIMIT: frozenset({"limit_price"}),
    OrderType.STOP: frozenset({"stop_price"}),
    OrderType.STOP_LIMIT: frozenset({"limit_price", "stop_price"}),
    OrderType.TRAILING_STOP: frozenset({"trail_price"}),
    OrderType.JOIN_BID: frozenset(),
    OrderType.JOIN_ASK: frozenset(),
}


class Terms(TypedDict, total=False):
    """What `orders.place`, `buy` and `sell` take beside account, contract, side and size."""

    type: OrderType | str | None
    """A type or its name; without one, the given prices say it."""
    limit_price: float | None
    stop_price: float | None
    trail_price: float | None
    """Absolute price at which a trailing stop starts."""
    trail_ticks: int | None
    """The same as a distance from the latest price."""
    stop_loss_ticks: int | None
    """Distance of the protective stop from the entry; a magnitude."""
    stop_loss_price: float | None
    stop_loss_type: OrderType | str
    """``stop`` (default) or ``trailing_stop``."""
    stop_loss: Bracket | None
    """The wire's own form, with signed ticks."""
    take_profit_ticks: int | None
    """Distance of the target from the entry; a magnitude."""
    take_profit_price: float | None
    take_profit: Bracket | None
    """The wire's own form, with signed ticks."""


class Options(Terms, total=False):
    """What `orders.buy` and `sell` take beside that; see `orders.place`."""

    label: str | None
    custom_tag: str | None
    resend: bool | Callable[[], bool]
    timeout: float | None


class Live(Options, total=False):
    """The same, to be sent."""

    dry_run: Literal[False]


class Dry(Options):
    """The same, only to be shown."""

    dry_run: Literal[True]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `orders.place` as they were given, unread."""

    account_id: int | Account
    contract_id: str | Contract
    side: Any
    size: Any
    type: Any = None
    limit_price: Any = None
    stop_price: Any = None
    trail_price: Any = None
    trail_ticks: Any = None
    stop_loss_ticks: Any = None
    stop_loss_price: Any = None
    stop_loss_type: Any = "stop"
    stop_loss: Bracket | None = None
    take_profit_ticks: Any = None
    take_profit_price: Any = None
    take_profit: Bracket | None = None

    @property
    def needs_contract(self) -> bool:
        """Whether the tick size matters to it."""
        return not (
            self.limit_price is None
            and self.stop_price is None
            and self.trail_price is None
            and self.trail_ticks is None
            and self.stop_loss_price is None
            and self.take_profit_price is None
        )

    @property
    def needs_last(self) -> bool:
        """Whether the latest price of the market matters to it."""
        asked = (self.limit_price, self.stop_price)
        relative = self.stop_loss_price is not None or self.take_profit_price is not None
        trails = self.trail_ticks is not None or self.trail_price is not None
        return trails or (relative and all(price is None for price in asked))


def unexpected(terms: Mapping[str, Any]) -> TypeError:
    """What to raise for words that an order does not take; names what may have been meant."""
    import difflib

    known = sorted(Options.__annotations__)
    wrong = next((name for name in terms if name not in known), "?")
    near = difflib.get_close_matches(wrong, known, 2, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return TypeError(f"an order takes no {wrong!r}; {hint}")


ABSOLUTE: Final = ("limit_price", "stop_price", "trail_price")
PRICED: Final = (
    "limit_price", "stop_price", "trail_price", "trail_ticks", "stop_loss_price", "take_profit_price",
)  # fmt: skip


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `orders.modify` as they were given, unread."""

    size: Any = None
    limit_price: Any = None
    stop_price: Any = None
    trail_price: Any = None
    trail_ticks: Any = None

    @property
    def needs_contract(self) -> bool:
        """Whether the tick size matters to it."""
        return any(getattr(self, name) is not None for name in (*ABSOLUTE, "trail_ticks"))

    @property
    def needs_last(self) -> bool:
        """Whether the latest price of the market matters to it."""
        return self.trail_price is not None or self.trail_ticks is not None


def kind_of(wish: Wish) -> OrderType:
    """The type that was named, or the one that the given prices amount to."""
    if wish.type is not None:
        return type_of(wish.type)
    if wish.trail_price is not None or wish.trail_ticks is not None:
        return OrderType.TRAILING_STOP
    if wish.stop_price is not None:
        return OrderType.STOP_LIMIT if wish.limit_price is not None else OrderType.STOP
    return OrderType.LIMIT if wish.limit_price is not None else _MARKET


def on_tick(value: Any, name: str, contract: Contract) -> float:
    """*value* as the float with the shortest decimal, if it is on a tick of *contract*."""
    price = number(value, name)
    if not contract.aligned(price):
        below = contract.price(int(price // contract.tick_size))
        raise InvalidRequest(
            f"{name} is {price!r}; {contract.name} trades in steps of {contract.tick_size!r}, "
            f"such as {below!r} or {contract.price(contract.ticks(below) + 1)!r}"
        )
    return contract.round(price)


def check(wish: Wish, tag: str | UnsetType = UNSET) -> PlaceOrder:
    """The request as far as it can be made without knowing the contract, so that nothing is asked in vain.

    Raises:
        InvalidRequest: what is wrong, and what was expected.
    """
    side, kind = choice(wish.side, SIDES, "side"), kind_of(wish)
    if kind is not _MARKET or wish.needs_contract:
        _check_prices(wish, kind)
    bare = wish.stop_loss is wish.stop_loss_ticks is wish.take_profit is wish.take_profit_ticks is None
    return PlaceOrder(
        account_id=account_number(wish.account_id),
        contract_id=contract_name(wish.contract_id),
        type=kind,
        side=side,
        size=whole(wish.size, "size"),
        custom_tag=tag,
        stop_loss_bracket=UNSET if bare else _plain_leg(wish, side, target=False),
        take_profit_bracket=UNSET if bare else _plain_leg(wish, side, target=True),
    )


def _check_prices(wish: Wish, kind: OrderType) -> None:
    given = {name for name in ABSOLUTE if getattr(wish, name) is not None}
    if _check_trail(wish):
        given.add("trail_price")
    missing, surplus = NEEDS[kind] - given, given - NEEDS[kind]
    if missing:
        raise InvalidRequest(f"a {kind.name} order needs {', '.join(sorted(missing))}")
    if surplus:
        raise InvalidRequest(f"a {kind.name} order takes no {', '.join(sorted(surplus))}")
    for name in PRICED:
        if getattr(wish, name) is not None:
            number(getattr(wish, name), name)


def check_revision(wish: Revision) -> None:
    """The same for a change.

    Raises:
        InvalidRequest: what is wrong, and what was expected.
    """
    if all(getattr(wish, name) is None for name in wish.__struct_fields__):
        raise InvalidRequest(f"nothing to change; give one of {', '.join(wish.__struct_fields__)}")
    if wish.size is not None:
        whole(wish.size, "size")
    _check_trail(wish)
    for name in ABSOLUTE:
        if getattr(wish, name) is not None:
            number(getattr(wish, name), name)


def _check_trail(wish: Wish | Revision) -> bool:
    """Whether the wish has a distance to trail at, and if so a possible one."""
    if wish.trail_ticks is None:
        return False
    if whole(wish.trail_ticks, "trail_ticks") > MOST_TRAIL_TICKS:
        raise InvalidRequest(f"trail_ticks is {wish.trail_ticks}; expected {MOST_TRAIL_TICKS} at most")
    if wish.trail_price is not None:
        raise InvalidRequest("trail_price and trail_ticks say the same thing twice; give one")
    return True


def revise(
    wish: Revision,
    account_id: int,
    order_id: int,
    order: Order | PlacedOrder | None,
    contract: Contract | None,
    last: float | None,
) -> tuple[ModifyOrder, int | None]:
    """The request of a checked *wish*, and the distance in ticks that its trail will read back as, where known."""
    prices: dict[str, float] = {}
    if order is not None:
        prices = _prices(wish, order.side, contract, last)
    trail = None
    if "trail_price" in prices and last is not None:
        trail = abs(_known(contract).ticks(last) - _known(contract).ticks(prices["trail_price"]))
    request = ModifyOrder(
        account_id=account_id,
        order_id=order_id,
        size=UNSET if wish.size is None else whole(wish.size, "size"),
        limit_price=prices.get("limit_price", UNSET),
        stop_price=prices.get("stop_price", UNSET),
        trail_price=prices.get("trail_price", UNSET),
    )
    return request, trail


def write(wish: Wish, draft: PlaceOrder, contract: Contract, last: float | None) -> PlaceOrder:
    """The request of a checked *wish*: its *draft*, with the prices.

    Args:
        contract: the contract it is about.
        last: the latest price of the market, where it is known.

    Raises:
        InvalidRequest: what is wrong, and what was expected.
    """
    prices = _prices(wish, draft.side, contract, last)
    entry = prices.get("limit_price", prices.get("stop_price", prices.get("trail_price", last)))
    return replace(
        draft,
        **prices,
        stop_loss_bracket=_leg(wish, draft, contract, entry, target=False),
        take_profit_bracket=_leg(wish, draft, contract, entry, target=True),
    )


def _prices(wish: Wish | Revision, side: OrderSide, contract: Contract | None, last: float | None) -> dict[str, float]:
    given = {name: getattr(wish, name) for name in ABSOLUTE if getattr(wish, name) is not None}
    if wish.trail_ticks is not None:
        given["trail_price"] = trail_price(wish.trail_ticks, side, _known(contract), last)
    prices = {name: on_tick(value, name, _known(contract)) for name, value in given.items()}
    if "trail_price" in prices and last is not None:
        checked_trail(prices["trail_price"], _known(contract), last)
    return prices


def trail_price(distance: int, side: OrderSide, contract: Contract, last: float | None) -> float:
    """Where a trailing stop *distance* ticks away from the market starts: the gateway takes an absolute price."""
    if last is None:
        raise InvalidRequest("trail_ticks counts from the latest price, and none is known; give trail_price instead")
    return contract.price(contract.ticks(last) + (distance if side is OrderSide.BUY else -distance))


def checked_trail(price: float, contract: Contract, last: float) -> None:
    """Refuses a trailing stop further from the market than the gateway allows."""
    distance = abs(contract.ticks(last) - contract.ticks(price))
    if distance > MOST_TRAIL_TICKS:
        raise InvalidRequest(
            f"trail_price is {price!r}, {distance} ticks from the latest price {last!r}; expected an absolute price "
            f"at most {MOST_TRAIL_TICKS} ticks away"
        )


def _plain_leg(wish: Wish, side: OrderSide, *, target: bool) -> Bracket | UnsetType:
    """The leg as far as it needs no price; unset where there is none, or it is given as a price."""
    if target:
        name, raw, magnitude, price = "take_profit", wish.take_profit, wish.take_profit_ticks, wish.take_profit_price
    else:
        name, raw, magnitude, price = "stop_loss", wish.stop_loss, wish.stop_loss_ticks, wish.stop_loss_price
    if raw is None and magnitude is None:
        return UNSET
    if price is not None or (raw is not None and magnitude is not None):
        raise InvalidRequest(f"give one of {name}, {name}_ticks and {name}_price")
    if raw is not None:
        return brackets.checked(raw, side, target=target)
    return brackets.from_ticks(magnitude, side, _leg_type(wish, target=target), target=target)


def _leg(
    wish: Wish, draft: PlaceOrder, contract: Contract, entry: float | None, *, target: bool
) -> Bracket | UnsetType | None:
    name = "take_profit_price" if target else "stop_loss_price"
    price = getattr(wish, name)
    if price is None:
        return draft.take_profit_bracket if target else draft.stop_loss_bracket
    if entry is None:
        raise InvalidRequest(f"{name} counts from the entry, and no price of the market is known; give ticks instead")
    kind = _leg_type(wish, target=target)
    return brackets.from_price(number(price, name), entry, contract, draft.side, kind, target=target)


def _leg_type(wish: Wish, *, target: bool) -> OrderType:
    return OrderType.LIMIT if target else type_of(wish.stop_loss_type)


def _known(contract: Contract | None) -> Contract:
    assert contract is not None, "the caller looks the contract up where wish.needs_contract"
    return contract

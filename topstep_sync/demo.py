"""The demonstration: the main job on the embedded simulator, with two accidents in front of the user's eyes.

It is an ordinary client: one session, one event queue, one main loop. What it knows of the simulator, it uses only to
cause the accidents and, at the end, to ask the other side what really happened.
"""

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, Self

from topstep_sync.clock import SYSTEM_CLOCK, Clock, Deadline
from topstep_sync.events import ConnectionEvent, Event, OrderEvent, PositionEvent, QuoteEvent, Reconnected, TradeEvent
from topstep_sync.models import Account, Order, OrderStatus, PositionType, given
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.session import Session
from topstep_sync.testing import Gateway

ACCOUNT_ID: Final = 704  # the simulator's practice account with Auto OCO brackets
SYMBOL: Final = "MNQ"
MARKET_RATE: Final = 60.0  # events a second; a calm morning of the real contract
PATIENCE: Final = 10.0  # seconds beyond the asked ones for a hub that is slow to come back
SMOOTHING: Final = 0.2  # share of the newest frame in the shown rate
FRAME: Final = 0.1  # seconds between two pictures; faster only flickers


@dataclass
class Picture:
    """What the live display shows, at one instant."""

    elapsed: float = 0.0
    seconds: float = 0.0
    contract: str = ""
    bid: float | None = None
    ask: float | None = None
    position: str = "flat"
    events: int = 0
    rate: float = 0.0
    """Events a second, over the last frame or so."""
    lag: float = 0.0
    """Seconds the oldest waiting event has waited."""
    health: str = ""
    orders: dict[int, Order] = field(default_factory=dict)


class Screen(Protocol):
    """Where the demonstration shows itself."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def say(self, mark: str, text: str) -> None: ...
    def accounts(self, accounts: list[Account]) -> None: ...
    def progress(self, share: float) -> None: ...
    def show(self, picture: Picture) -> None: ...
    def summary(self, rows: list[tuple[str, str, bool]]) -> None: ...


class Demo:
    """One run of the demonstration."""

    def __init__(self, screen: Screen, *, seconds: float = 15.0, seed: int = 7, clock: Clock = SYSTEM_CLOCK) -> None:
        self._screen = screen
        self._seconds = seconds
        self._seed = seed
        self._clock = clock
        self._picture = Picture(seconds=seconds)
        self._tags: list[str] = []
        self._reconnects = 0
        self._cut_at = 0.0
        self._unheard = ""  # tag of the order that fills while the hub is down
        self._recovered = 0
        self._drawn_at = 0.0
        self._counted = 0
        self._bars = 0

    def run(self) -> bool:
        """The whole main job has run; True when everything the summary claims held."""
        with Gateway(seed=self._seed, market_rate=MARKET_RATE) as gateway, Session(config=gateway.config) as session:
            self._screen.say("=", f"simulator at {gateway.url}; logging in as {gateway.user_name}")
            self._screen.accounts(list(session.accounts.search()))
            contract = session.contracts.front_month(SYMBOL)
            self._picture.contract = contract.id
            self._pull_bars(session, contract.id)
            with session.subscribe(accounts=[ACCOUNT_ID], quotes=[contract.id], trades=[contract.id]) as events:
                self._trade(gateway, session, events)
            rows = self._facts(gateway, session)
        self._screen.summary(rows)
        return all(held for _, _, held in rows)

    def _pull_bars(self, session: Session, contract_id: str) -> None:
        start = datetime.now(UTC) - timedelta(days=5)
        bars = session.history.bars(contract_id, "1m", start=start, progress=lambda p: self._screen.progress(p.share))
        self._bars = len(bars)
        self._screen.say("<", f"{len(bars)} one-minute bars of {contract_id} since {bars[0].t:%Y-%m-%d %H:%M}")

    ############################################## the main loop ##############################################

    def _trade(self, gateway: Gateway, session: Session, events: EventQueue) -> None:
        """Between two acts of the script, the main loop polls the queue; nothing else ever waits."""
        begun, patience = self._clock.monotonic(), Deadline(self._seconds + PATIENCE, self._clock)
        for due in self._script(gateway, session):
            while not due() and not patience.expired:
                for event in _batch(events, FRAME):
                    self._take(event)
                self._picture.elapsed = self._clock.monotonic() - begun
                self._show(session, events)

    def _script(self, gateway: Gateway, session: Session) -> Iterator[Callable[[], bool]]:
        """The acts; what is yielded says when the next one is due."""
        yield lambda: self._share >= 0.10
        self._place(session, "an ordinary order")
        yield lambda: self._share >= 0.30
        self._screen.say("!", "accident 1: the gateway takes the next order, and its reply is lost")
        gateway.faults.lose("Order/place", times=1)
        self._place(session, "looked up by its tag instead of sent again")
        yield lambda: self._share >= 0.45
        self._screen.say("!", "accident 2: both hub connections are cut; the user hub refuses the first way back")
        gateway.faults.add("hubs/user", "refuse", status=503)
        self._cut_at = self._clock.monotonic()
        gateway.drop_hubs("all", "rst")
        self._unheard = self._place(session, "filled while no hub can tell")
        yield lambda: self._share >= 0.85 and self._reconnects >= 2
        session.positions.close(ACCOUNT_ID, self._picture.contract)
        self._screen.say(">", "position closed")
        yield lambda: self._share >= 1.0 and self._picture.position == "flat"

    @property
    def _share(self) -> float:
        return self._picture.elapsed / self._seconds

    def _show(self, session: Session, events: EventQueue) -> None:
        """A new picture, if it is time for one."""
        picture = self._picture
        took = picture.elapsed - self._drawn_at
        if took >= FRAME:
            picture.rate += (SMOOTHING if picture.rate else 1.0) * (
                (picture.events - self._counted) / took - picture.rate
            )
            picture.lag, picture.health = events.lag, str(session.health())
            self._screen.show(picture)
            self._drawn_at, self._counted = picture.elapsed, picture.events

    def _take(self, event: Event) -> None:
        """One event of the queue is in the picture."""
        picture = self._picture
        picture.events += 1
        match event:
            case QuoteEvent(data=quote):
                picture.bid = quote.best_bid if given(quote.best_bid) else picture.bid  # type: ignore[assignment]
                picture.ask = quote.best_ask if given(quote.best_ask) else picture.ask  # type: ignore[assignment]
            case OrderEvent(data=order):
                picture.orders[order.id] = order
                filled = order.status is OrderStatus.FILLED and order.custom_tag == self._unheard
                self._recovered += event.recovered and filled
                self._screen.say("<", f"order {order.id} {order.status.name.lower()}{_recovered(event)}")
            case TradeEvent(data=trade):
                self._screen.say(
                    "<", f"fill {trade.side.name.lower()} {trade.size} at {trade.price}{_recovered(event)}"
                )
            case PositionEvent(data=position):
                side = "long" if position.type is PositionType.LONG else "short"
                picture.position = f"{side} {position.size} at {position.average_price}" if position.size else "flat"
            case Reconnected(source=hub, recovered_count=found):
                self._reconnects += 1
                took = (event.received_at - self._cut_at) * 1000
                told = f"; REST says {found} things happened meanwhile" if hub == "user" else ""
                self._screen.say("=", f"{hub} hub back {took:.0f} ms after the cut, subscribed again{told}")
            case ConnectionEvent(source=hub, state=state, reason=reason):
                self._screen.say("=", f"{hub} hub {state.lower()}" + (f": {reason}" if reason else ""))

    def _place(self, session: Session, what: str) -> str:
        """The custom tag of a new order."""
        order = session.orders.buy(ACCOUNT_ID, self._picture.contract, 1)
        self._tags.append(order.custom_tag)
        self._screen.say(">", f"{what}: buy 1 → order {order.id}, tag {order.custom_tag}")
        return order.custom_tag

    def _facts(self, gateway: Gateway, session: Session) -> list[tuple[str, str, bool]]:
        """What was claimed, what the gateway says, and whether they agree."""
        tags = set(self._tags)
        executed = [order for order in gateway.executed_orders if order.custom_tag in tags]
        refused = sum(1 for request in gateway.requests if request.status == 429)
        logins = sum(1 for request in gateway.requests if request.path.lower().endswith("loginkey"))
        return [
            ("bars pulled", str(self._bars), self._bars > 0),
            (
                "orders meant / executed by the gateway",
                f"{len(tags)} / {len(executed)}",
                len(tags) == len(executed) == len(self._tags) == 3,
            ),
            ("orders filled while the hub was down / learned", f"1 / {self._recovered}", self._recovered == 1),
            ("hub connections lost and recovered", str(self._reconnects), self._reconnects >= 2),
            ("events received", str(self._picture.events), self._picture.events > 0),
            ("logins", str(logins), logins == 1),
            ("requests refused by the rate limit", str(refused), refused == 0),
        ]


def _batch(events: EventQueue, timeout: float) -> list[Event]:
    """What is there; after *timeout* seconds without anything, nothing."""
    try:
        return [events.get(timeout=timeout), *events.drain()]
    except queue.Empty:
        return []


def _recovered(event: Event) -> str:
    return " (recovered after the gap)" if event.recovered else ""

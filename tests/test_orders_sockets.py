"""The stories of `test_orders_machine` over real sockets: session, HTTP, both hubs, simulator and its exchange.

Only time is not real: the rooms and the gateway live on one clock that waits move, so an order that is executed eight
seconds late costs no second. The network between them is as it is.
"""

import contextlib
import functools
import os
import queue
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stories import often

from topstep_sync import errors
from topstep_sync.api.rooms import Rooms
from topstep_sync.clock import Waitable
from topstep_sync.config import Config
from topstep_sync.events import Event
from topstep_sync.models import Order, OrderSide, OrderStatus, OrderType
from topstep_sync.session import Session
from topstep_sync.testing import Gateway

ACCOUNT, MNQ = 704, "CON.F.US.MNQ.Z26"
LATE = 8.0  # seconds after which a broker's order was seen to appear
TAKEN = "Specified custom tag is already in use"

# What becomes of a call: a fault of the simulator with its options, or a name that `Wire` knows itself.
FAULTS: dict[str, dict[str, Any]] = {
    "lose": {"kind": "lose"}, "drop": {"kind": "reset-read"}, "reset": {"kind": "reset"},
    "truncate": {"kind": "truncate"}, "html": {"kind": "html"},
    "500": {"kind": "status", "status": 500}, "500-after": {"kind": "after", "status": 500},
    "502": {"kind": "status", "status": 502}, "502-after": {"kind": "after", "status": 502},
    "408-after": {"kind": "after", "status": 408}, "409-after": {"kind": "after", "status": 409},
    "429": {"kind": "status", "status": 429, "retry_after": "0"}, "401": {"kind": "status", "status": 401},
    "pending": {"kind": "code-after", "error_code": 6}, "unknown": {"kind": "code", "error_code": 7},
    "taken": {"kind": "code-after", "error_code": 2, "message": TAKEN},
}  # fmt: skip
PLACING = ["", "", *FAULTS, "late", "midway", "unreachable", "ctrl-c", "ctrl-c-after"]
CHANGING = [name for name in PLACING if name not in ("taken", "pending", "unknown")]
DEATHS = ["before", "after", "late", "lose", "drop"]
LOOK_UPS = ("/api/Order/search", "/api/Order/searchOpen", "/api/Order/v2/query", "/api/Order/searchById")

# How the look-ups of one call fare: mostly well, some badly, and at times nothing answers.
unlucky = st.lists(st.sampled_from(["", "", "500", "reset", "429", "html"]), max_size=6) | st.just(["500"] * 60)

# Which of several, by number: real sockets have their own timing, and what is drawn must not depend on it.
any_of = st.integers(0, 30)

QUICK = {
    "rate": {"general_limit": 1_000_000, "general_window": 0.05, "grace": 0.05, "reserved": 0},
    "retry": {"base_delay": 0.0, "throttle_delay": 0.0, "budget_min": 1_000_000},
    "breaker": {"consecutive_failures": 1_000_000, "min_calls": 1_000_000},
}


class Killed(BaseException):
    """The process is gone: whatever it does while this is raised has not happened."""


class World:
    """A gateway whose time stands still until somebody waits."""

    def __init__(self) -> None:
        self.gateway = Gateway(speed=0.0, market_rate=0.0, limiter="none", general_limit=1_000_000).start()
        self.gateway.set_price(MNQ, 21000.0)
        self.now = self.gateway.run(lambda world: world.clock.monotonic())
        self.start = self.gateway.run(lambda world: world.clock.start)

    def monotonic(self) -> float:
        return self.now

    def epoch(self) -> float:
        return self.start + self.now

    def random(self) -> float:
        return 0.5

    def sleep(self, delay: float) -> None:
        if delay > 0:
            self.gateway.advance(delay)
            self.now += delay

    def wait(self, event: Waitable, timeout: float | None = None) -> bool:
        assert timeout is not None, "nobody would ever wake up"
        if not event.is_set():
            self.sleep(timeout)
        return event.is_set()

    def begin_anew(self, *, forgetful: bool) -> None:
        """Nothing is left of the story before. A forgetful gateway takes a tag twice, which the real one never does."""
        self.sleep(LATE + 1.0)

        def clean(world: Any) -> None:
            world.exchange.reset()
            world.faults.clear()
            world.evidence.arrivals.clear()
            if forgetful:
                world.exchange.accounts[ACCOUNT].tags = Forgotten()

        self.gateway.run(clean)

    def orders(self) -> dict[str, list[tuple[int, OrderStatus]]]:
        """By tag, what the exchange really has; bracket legs not included."""

        def real(world: Any) -> dict[str, list[tuple[int, OrderStatus]]]:
            found: dict[str, list[tuple[int, OrderStatus]]] = {}
            for order in world.exchange.orders.values():
                if order.parent is None:
                    found.setdefault(order.custom_tag, []).append((order.id, order.status))
            return found

        return self.gateway.run(real)


class Forgotten(set[str]):
    def __contains__(self, tag: object) -> bool:
        return False


class Patient:
    """Events of a real hub, waited for on the world's clock."""

    def __init__(self, source: Any, world: World) -> None:
        self._source, self._world = source, world

    def get(self, timeout: float | None = None) -> Event:
        for seconds in (0.0, timeout or 0.0):
            self._world.sleep(seconds)
            with contextlib.suppress(queue.Empty):
                return self._source.get(timeout=0.002)  # real seconds: as long as the loopback takes
        raise queue.Empty


class Wire:
    """`Session.call`, with one fault in front of each call as the story has it."""

    def __init__(self, world: World, session: Session) -> None:
        self.world, self.session = world, session
        self.faults: dict[str, list[str]] = {}
        self.sent: list[tuple[str, Any]] = []
        self.dies: str = ""  # where the process is killed in its next call
        self.dead = lambda: None  # what is done in the moment of its death

    def call(self, path: str, request: Any, reply: Any, **options: Any) -> Any:
        self.sent.append((path, request))
        planned = self.faults.get(path)
        fault = planned.pop(0) if planned else ""
        if self.dies and path == "/api/Order/place":
            return self._die(path, request, reply, options)
        if fault == "ctrl-c":
            raise KeyboardInterrupt
        if fault == "unreachable":
            raise errors.ConnectFailed("refused", endpoint=path, attempts=1)
        if fault == "midway":
            self.world.gateway.revoke_tokens()
        self.world.sleep(0.001)
        with self._broken(path, request, fault):
            result = self.session.call(path, request, reply, **options)
        if fault == "ctrl-c-after":
            raise KeyboardInterrupt
        return result

    @contextlib.contextmanager
    def _broken(self, path: str, request: Any, fault: str) -> Iterator[None]:
        if fault == "late":
            self.later(path, request)
            fault = "drop"
        if fault not in FAULTS:
            yield
            return
        # Look-ups are repeated below: the fault has to last.
        options = {"times": None if path in LOOK_UPS or fault == "401" else 1, **FAULTS[fault]}
        with self.world.gateway.faults.add(path, **options):
            yield

    def later(self, path: str, request: Any) -> None:
        """The gateway executes *request* after all, when nobody is listening any more."""

        def plan(world: Any) -> None:
            exchange = world.exchange
            work = {
                "/api/Order/place": functools.partial(exchange.place, request),
                "/api/Order/modify": functools.partial(exchange.modify, request),
                "/api/Order/cancel": lambda: exchange.cancel(request.account_id, request.order_id),
            }[path]
            world.clock.call_later(LATE, work)

        self.world.gateway.run(plan)

    def _die(self, path: str, request: Any, reply: Any, options: dict[str, Any]) -> None:
        death, self.dies = self.dies, ""
        with contextlib.suppress(errors.TopstepError):
            if death == "after":
                self.session.call(path, request, reply, **options)
            elif death != "before":
                with self._broken(path, request, death):
                    self.session.call(path, request, reply, **options)
        self.dead()
        raise Killed


WORLD: list[World] = []


@pytest.fixture(autouse=True, scope="module")
def _world() -> Iterator[None]:
    WORLD.append(World())
    yield
    WORLD.pop().gateway.close()


class SocketMachine(RuleBasedStateMachine):
    """The client on one side, the gateway on the other, and in between a network that loses things."""

    @initialize(forgetful=st.booleans(), hub=st.booleans())
    def begin(self, forgetful: bool, hub: bool) -> None:
        self.world = WORLD[0]
        self.world.begin_anew(forgetful=forgetful)
        self.folder = tempfile.TemporaryDirectory()
        self.journal = Path(self.folder.name) / "journal"
        self.told: dict[str, str] = {}  # tag → what the caller was told last: order, rejected, not sent, unknown
        self.held: dict[str, int] = {}
        self.requests: dict[str, Any] = {}
        self.number = 0
        self.events: Any = None
        self.start()
        if hub:
            self.the_hub_comes_or_goes()

    def start(self) -> None:
        """A process begins."""
        self.session = Session(config=self.world.gateway.config_with(**QUICK))
        self.wire = Wire(self.world, self.session)
        config = Config(orders={"journal_path": str(self.journal)})
        self.rooms = Rooms(
            self.wire.call,
            get=str,
            config=config,
            clock=self.world,
            listen=self.listen,
            closed=self.session._closed,
        )

    def end(self) -> None:
        if self.events is not None:
            self.events.close()
            self.events = None
        self.session.close()

    @contextlib.contextmanager
    def listen(self, account_id: int) -> Iterator[Any]:
        with self.session._listen(account_id) as source:
            yield None if source is None else Patient(source, self.world)

    def teardown(self) -> None:
        if hasattr(self, "rooms"):
            try:
                self.settle_everything()
            finally:
                self.end()
                self.folder.cleanup()

    ############################################ what happens ############################################

    @rule()
    def the_hub_comes_or_goes(self) -> None:
        if self.events is None:
            self.events = self.session.subscribe(accounts=[ACCOUNT])
        else:
            self.events.close()
            self.events = None

    @rule(how=st.sampled_from(["rst", "fin", "close-reconnect"]))
    def the_hub_breaks(self, how: str) -> None:
        self.world.gateway.drop_hubs("user", how)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.world.sleep(seconds)

    @rule(
        first=st.sampled_from(PLACING), second=st.sampled_from(PLACING), look_ups=unlucky, market=st.booleans(),
        resend=st.booleans(), minted=st.booleans(), refused=st.sampled_from([False, False, False, True]),
        legs=st.booleans(),
    )  # fmt: skip
    def place(
        self,
        first: str,
        second: str,
        look_ups: list[str],
        market: bool,
        resend: bool,
        minted: bool,
        refused: bool,
        legs: bool,
    ) -> None:
        """A new intent."""
        self.number += 1
        words: dict[str, Any] = {} if market else {"limit_price": 20000.0 + self.number}
        words |= {"stop_loss_ticks": 400, "take_profit_ticks": 800} if legs else {}
        words |= {} if minted else {"custom_tag": f"entry-{self.number}"}
        if refused:
            self.world.gateway.set_account(ACCOUNT, violation=True)
        self.attempt(first, second, look_ups, contract_id=MNQ, size=1, resend=resend, **words)
        self.world.gateway.set_account(ACCOUNT, violation=False)

    @rule(pick=any_of, fault=st.sampled_from(PLACING), look_ups=unlucky)
    def place_again_under_its_tag(self, pick: int, fault: str, look_ups: list[str]) -> None:
        """The caller insists on an intent that is not settled."""
        open_tags = [t for t, told in self.told.items() if told in ("unknown", "not sent")]
        if open_tags:
            tag = open_tags[pick % len(open_tags)]
            asked = self.requests[tag]
            words = {} if asked.type is OrderType.MARKET else {"limit_price": asked.limit_price}
            if asked.stop_loss_bracket:
                words |= {"stop_loss_ticks": 400, "take_profit_ticks": 800}
            self.attempt(fault, "", look_ups, contract_id=MNQ, size=1, custom_tag=tag, resend=False, **words)

    def attempt(self, first: str, second: str, look_ups: list[str], **words: Any) -> None:
        before = len(self.wire.sent)
        self.wire.faults = {"/api/Order/place": [first, second], **{path: list(look_ups) for path in LOOK_UPS}}
        try:
            placed = self.rooms.orders.place(ACCOUNT, side="buy", **words)
        except errors.OrderStateUnknown as error:
            self.tell(error.tag, "unknown")
        except errors.OrderRejected as error:
            self.tell(error.custom_tag, "rejected")
        except KeyboardInterrupt as error:
            self.tell(error.__notes__[0].split("'")[1], "unknown")
        except (errors.RateLimited, errors.AuthenticationError) as error:
            self.tell(error.custom_tag, "not sent")
        except errors.RequestError as error:
            self.tell(error.custom_tag, "rejected" if error.fate is errors.Fate.REFUSED else "not sent")
        else:
            self.tell(placed.custom_tag, "order")
            self.held[placed.custom_tag] = placed.id
        finally:
            self.wire.faults = {}
        requests = [request for path, request in self.wire.sent[before:] if path == "/api/Order/place"]
        self.requests.update((request.custom_tag, request) for request in requests)
        assert len({request.custom_tag for request in requests}) <= 1, "an intent changed its tag"
        assert len(requests) <= (2 if words["resend"] else 1), "sent more often than allowed"

    @rule(pick=any_of, look_ups=unlucky, wait=st.booleans())
    def verify(self, pick: int, look_ups: list[str], wait: bool) -> None:
        """The caller asks about any intent so far."""
        if self.told:
            tag = list(self.told)[pick % len(self.told)]
            self.wire.faults = {path: list(look_ups) for path in LOOK_UPS}
            with contextlib.suppress(errors.OrderStateUnknown):
                self.check(tag, self.rooms.orders.verify(tag, wait=wait))
            self.wire.faults = {}

    @rule(pick=any_of, fault=st.sampled_from(CHANGING), look_ups=unlucky, cancel=st.booleans())
    def change(self, pick: int, fault: str, look_ups: list[str], cancel: bool) -> None:
        """The caller cancels or changes an order that it holds."""
        if not self.held:
            return
        order_id = list(self.held.values())[pick % len(self.held)]
        path = "/api/Order/cancel" if cancel else "/api/Order/modify"
        self.wire.faults = {path: [fault], **{name: list(look_ups) for name in LOOK_UPS}}
        before = len(self.wire.sent)
        with contextlib.suppress(errors.TopstepError, KeyboardInterrupt):
            if cancel:
                result = self.rooms.orders.cancel(ACCOUNT, order_id)
                assert (False, result.status) == (result.status.working, self.status(order_id))
            else:
                self.rooms.orders.modify(ACCOUNT, order_id, size=2)
        self.wire.faults = {}
        assert cancel or [path] == [sent for sent, _ in self.wire.sent[before:] if sent == path], "sent twice"

    @rule(pick=any_of)
    def the_market_fills_one(self, pick: int) -> None:
        working = sorted(
            number for found in self.world.orders().values() for number, status in found if status is OrderStatus.OPEN
        )
        if working:
            order_id = working[pick % len(working)]
            self.world.gateway.run(lambda world: world.exchange.fill(world.exchange.orders[order_id], 1, 84_000))

    @rule(death=st.sampled_from(DEATHS), minted=st.booleans(), wait=st.floats(0, 12))
    def the_process_is_killed(self, death: str, minted: bool, wait: float) -> None:
        """Around an order; the next process recovers from the journal."""
        self.number += 1
        kept: list[bytes] = []
        self.wire.dies, self.wire.dead = death, lambda: kept.append(self.journal.read_bytes())
        with pytest.raises(Killed):
            self.rooms.orders.buy(ACCOUNT, MNQ, 1, **({} if minted else {"custom_tag": f"entry-{self.number}"}))
        tag = self.wire.sent[-1][1].custom_tag
        self.journal.write_bytes(kept[0])
        self.requests[tag] = self.wire.sent[-1][1]
        self.told[tag] = "unknown"
        had_hub = self.events is not None
        self.end()
        self.world.sleep(wait)
        self.start()
        if had_hub:
            self.the_hub_comes_or_goes()
        recovered = {found.custom_tag: found for found in self.rooms.orders.recover()}
        assert tag in recovered
        for name, found in recovered.items():
            assert "unknown" == self.told[name]
            assert found.state.value in ("accepted", "rejected", "absent")
            self.check(name, found.order if found.state.value != "absent" else None)

    ############################################ what must hold ############################################

    def tell(self, tag: str | None, told: str) -> None:
        assert tag, "an error about an order names its tag"
        self.told[tag] = told

    def status(self, order_id: int) -> OrderStatus:
        return next(s for found in self.world.orders().values() for number, s in found if number == order_id)

    def check(self, tag: str, order: Order | None) -> None:
        """What a look-up found is what the gateway has."""
        real = self.world.orders().get(tag, [])
        if order is None:
            assert [] == real, "called absent, and it is there"
            return
        assert order.id in {number for number, _ in real}
        assert OrderSide.BUY is order.side
        self.told[tag] = "rejected" if order.status is OrderStatus.REJECTED else "order"
        if self.told[tag] == "order":
            self.held[tag] = order.id

    @invariant()
    def nobody_is_misled_and_one_intent_is_at_most_one_order(self) -> None:
        if not hasattr(self, "rooms"):
            return
        real = self.world.orders()
        assert [] == [tag for tag, found in real.items() if len(found) > 1]
        for tag, told in self.told.items():
            found = real.get(tag, [])
            if told == "order":
                assert [self.held[tag]] == [number for number, _ in found]
            elif told == "rejected":
                assert [] == [number for number, status in found if status is not OrderStatus.REJECTED]
            elif told == "not sent":
                assert [] == found

    def settle_everything(self) -> None:
        """Whatever was unknown is settled by `verify` once the gateway answers, and nothing appears afterwards."""
        self.wire.faults = {}
        for tag in [tag for tag, told in self.told.items() if told == "unknown"]:
            order = self.rooms.orders.verify(tag)
            self.check(tag, order)
            if order is None:
                self.told[tag] = "not sent"
        self.world.sleep(LATE + 1.0)
        self.nobody_is_misled_and_one_intent_is_at_most_one_order()
        executed = Counter(order.custom_tag for order in self.world.gateway.executed_orders)
        assert {1} >= set(executed.values())


class TestOrdersOverSockets(SocketMachine.TestCase):
    """Few short stories, for every run."""

    settings = often(10, 10)


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestOrdersOverSocketsInCI(SocketMachine.TestCase):
    """Two hundred."""

    settings = often(200, 20)


@pytest.mark.nightly
@pytest.mark.timeout(0)
class TestOrdersOverSocketsAllNight(SocketMachine.TestCase):
    """Ten thousand. `TOPSTEP_EXAMPLES` says how many in this process: several may share the night."""

    settings = often(int(os.environ.get("TOPSTEP_EXAMPLES", "10000")), 20)

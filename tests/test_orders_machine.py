"""Any sequence of orders, changes and questions under any fault: one intent, one order at most, and nobody misled."""

import contextlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from gateway_model import ACCOUNT, MNQ, GatewayModel
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stories import often

from topstep_sync import errors
from topstep_sync.api.results import PlacedOrder
from topstep_sync.api.rooms import Rooms
from topstep_sync.config import Config
from topstep_sync.models import OrderStatus

FAULTS = [
    "", "", "lost", "dropped", "late", "500", "500-after", "truncated", "silent", "502", "409", "401", "429",
    "refused", "open", "bug", "ctrl-c", "taken",
]  # fmt: skip
LOOK_UPS = ["Order/search", "Order/searchOpen", "Order/v2/query", "Order/searchById"]
# What the gateway says of an order that it turns away, beside a taken tag.
REFUSALS = [None, None, None, (2, None), (3, None), (5, None)]

# How the look-ups of one call fare: mostly well, some badly, and at times nothing answers for a minute.
unlucky = st.lists(st.sampled_from(["", "", "500", "429", "refused", "dropped"]), max_size=8) | st.just(["500"] * 60)


class OrderMachine(RuleBasedStateMachine):
    """The client on one side, a gateway that knows what it really did on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = GatewayModel()
        self.rooms = self.started()
        self.told: dict[str, str] = {}  # tag → what the caller was told last: order, rejected, not sent, unknown
        self.held: dict[str, int] = {}  # tag → id of the order that the caller holds
        self.number = 0

    def started(self) -> Rooms:
        config = Config(orders={"journal_path": str(self.folder / "journal")})
        return Rooms(self.model.call, get=str, config=config, clock=self.model.clock, listen=self.model.listen)

    def teardown(self) -> None:
        self.settle_everything()
        shutil.rmtree(self.folder)

    ############################################ what happens ############################################

    @initialize(forgetful=st.booleans(), hub=st.booleans())
    def begin(self, forgetful: bool, hub: bool) -> None:
        self.model.forgetful = forgetful
        self.model.hub_open = hub

    @rule()
    def the_hub_comes_or_goes(self) -> None:
        self.model.hub_open = not self.model.hub_open

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.model.pass_time(self.model.clock.monotonic() + seconds)

    @rule(
        first=st.sampled_from(FAULTS), second=st.sampled_from(FAULTS), look_ups=unlucky, market=st.booleans(),
        resend=st.booleans(), minted=st.booleans(), refusal=st.sampled_from(REFUSALS),
    )  # fmt: skip
    def place(
        self, first: str, second: str, look_ups: list[str], market: bool, resend: bool, minted: bool, refusal: Any
    ) -> None:
        """A new intent."""
        self.number += 1
        words: dict[str, Any] = {} if market else {"limit_price": 20000.0 + self.number}
        tag = {} if minted else {"custom_tag": f"entry-{self.number}"}
        self.attempt(first, second, look_ups, refusal, contract_id=MNQ, size=1, resend=resend, **words, **tag)

    @rule(data=st.data(), fault=st.sampled_from(FAULTS), look_ups=unlucky)
    def place_again_under_its_tag(self, data: st.DataObject, fault: str, look_ups: list[str]) -> None:
        """The caller insists on an intent that is not settled."""
        open_tags = [tag for tag, told in self.told.items() if told in ("unknown", "not sent") and tag in self.sent()]
        if open_tags:
            tag = data.draw(st.sampled_from(sorted(open_tags)))
            request = self.sent()[tag]
            words = {} if request.type.name == "MARKET" else {"limit_price": request.limit_price}
            self.attempt(fault, "", look_ups, None, contract_id=MNQ, size=1, custom_tag=tag, resend=False, **words)

    def attempt(self, first: str, second: str, look_ups: list[str], refusal: Any, **words: Any) -> None:
        before = len(self.model.calls)
        self.model.faults = {"Order/place": [first, second], **{name: list(look_ups) for name in LOOK_UPS}}
        self.model.reject = refusal
        tag = words.get("custom_tag")
        try:
            placed = self.rooms.orders.place(ACCOUNT, side="buy", **words)
        except errors.OrderStateUnknown as error:
            self.tell(error.tag, "unknown")
        except errors.OrderRejected as error:
            self.tell(error.custom_tag, "rejected")
        except KeyboardInterrupt as error:
            self.tell(tag or error.__notes__[0].split("'")[1], "unknown")
        except errors.RequestError as error:
            self.tell(error.custom_tag, "rejected" if error.fate is errors.Fate.REFUSED else "not sent")
            if isinstance(error, (errors.RateLimited, errors.AuthenticationError)):
                self.told[error.custom_tag] = "not sent"
        else:
            self.hold(placed)
        finally:
            self.model.faults, self.model.reject = {}, None
        sent = [request.custom_tag for path, request in self.model.calls[before:] if path == "/api/Order/place"]
        assert len(set(sent)) <= 1, "an intent changed its tag"
        assert len(sent) <= (2 if words["resend"] else 1), "sent more often than allowed"

    @rule(data=st.data(), look_ups=unlucky, wait=st.booleans())
    def verify(self, data: st.DataObject, look_ups: list[str], wait: bool) -> None:
        """The caller asks about any intent so far."""
        if self.told:
            tag = data.draw(st.sampled_from(sorted(self.told)))
            self.model.faults = {name: list(look_ups) for name in LOOK_UPS}
            with contextlib.suppress(errors.OrderStateUnknown):
                self.check(tag, self.rooms.orders.verify(tag, wait=wait))
            self.model.faults = {}

    @rule(data=st.data(), fault=st.sampled_from(FAULTS), look_ups=unlucky, change=st.sampled_from(["cancel", "modify"]))
    def change(self, data: st.DataObject, fault: str, look_ups: list[str], change: str) -> None:
        """The caller cancels or changes an order that it holds."""
        if not self.held:
            return
        order_id = data.draw(st.sampled_from(sorted(self.held.values())))
        self.model.faults = {f"Order/{change}": [fault], **{name: list(look_ups) for name in LOOK_UPS}}
        before = len(self.model.calls)
        try:
            if change == "cancel":
                assert not self.rooms.orders.cancel(ACCOUNT, order_id).status.working
                assert not self.model.orders[order_id].status.working
            else:
                self.rooms.orders.modify(ACCOUNT, order_id, size=2)
        except (errors.OrderStateUnknown, errors.RequestError, KeyboardInterrupt, ZeroDivisionError):
            pass
        finally:
            self.model.faults = {}
        sent = sum(path == "/api/Order/modify" for path, _ in self.model.calls[before:])
        assert sent <= 1, "a change was sent twice"

    @rule(data=st.data())
    def the_market_fills_one(self, data: st.DataObject) -> None:
        working = [order.id for order in self.model.orders.values() if order.status is OrderStatus.OPEN]
        if working:
            self.model.complete(data.draw(st.sampled_from(working)))

    @rule(fault=st.sampled_from(["lost", "dropped", "late"]))
    def the_process_dies_in_the_middle(self, fault: str) -> None:
        """Between an order and its reply; the next process recovers from the journal."""
        self.number += 1
        tag = f"entry-{self.number}"
        self.model.faults = {"Order/place": [fault], "Order/search": ["ctrl-c"]}
        hub, self.model.hub_open = self.model.hub_open, False
        with pytest.raises(KeyboardInterrupt):
            self.rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag=tag)
        self.model.faults, self.model.hub_open = {}, hub
        self.told[tag] = "unknown"
        self.rooms = self.started()
        recovered = {found.custom_tag: found for found in self.rooms.orders.recover()}
        assert {name for name, told in self.told.items() if told == "unknown"} >= set(recovered)
        for name, found in recovered.items():
            self.check(name, found.order if found.state.value in ("accepted", "rejected") else None)

    ############################################ what must hold ############################################

    def sent(self) -> dict[str, Any]:
        return {request.custom_tag: request for path, request in self.model.calls if path == "/api/Order/place"}

    def tell(self, tag: str | None, told: str) -> None:
        assert tag, "an error about an order names its tag"
        self.told[tag] = told

    def hold(self, placed: PlacedOrder) -> None:
        self.told[placed.custom_tag] = "order"
        self.held[placed.custom_tag] = placed.id

    def check(self, tag: str, order: Any) -> None:
        """What a look-up found is what the gateway has."""
        real = [o for o in self.model.orders.values() if o.custom_tag == tag]
        assert [] == [o for o in real if order is None], "called absent, and it is there"
        if order is not None:
            assert order.id in {o.id for o in real}
            self.told[tag] = "rejected" if order.status is OrderStatus.REJECTED else "order"
            if self.told[tag] == "order":
                self.held[tag] = order.id

    @invariant()
    def one_intent_at_most_one_order(self) -> None:
        executed = Counter(order.custom_tag for order in self.model.orders.values())
        assert [] == [tag for tag, count in executed.items() if count > 1]

    @invariant()
    def nobody_is_misled(self) -> None:
        for tag, told in self.told.items():
            real = [order for order in self.model.orders.values() if order.custom_tag == tag]
            if told == "order":
                assert [self.held[tag]] == [order.id for order in real]
            elif told == "rejected":
                assert [] == [order for order in real if order.status is not OrderStatus.REJECTED]
            elif told == "not sent":
                assert [] == real

    def settle_everything(self) -> None:
        """Whatever was unknown is settled by `verify` once the gateway answers."""
        self.model.faults = {}
        for tag in [tag for tag, told in self.told.items() if told == "unknown"]:
            self.check(tag, self.rooms.orders.verify(tag))
        self.one_intent_at_most_one_order()
        self.nobody_is_misled()


class TestOrders(OrderMachine.TestCase):
    """Few short stories, for every run."""

    settings = often(25, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestOrdersInCI(OrderMachine.TestCase):
    """Two hundred."""

    settings = often(200, 20)


@pytest.mark.nightly
@pytest.mark.timeout(0)
class TestOrdersAllNight(OrderMachine.TestCase):
    """Ten thousand, and longer ones."""

    settings = often(10_000, 40)

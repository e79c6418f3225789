"""ORDER-001: one intent, at most one order."""

import threading
from pathlib import Path
from typing import Any

import pytest
from gateway_model import ACCOUNT, MES, MNQ, GatewayModel
from msgspec import UNSET
from msgspec.structs import replace
from rude_hub import soon

from topstep_sync import errors
from topstep_sync.api import ledger
from topstep_sync.api.ledger import ALONE, Intent
from topstep_sync.api.rooms import Rooms
from topstep_sync.api.seam import VERIFY_TIMEOUT
from topstep_sync.clock import SYSTEM_CLOCK
from topstep_sync.config import Config
from topstep_sync.http.routes import Priority
from topstep_sync.models import OrderSide, OrderStatus, OrderType


@pytest.fixture
def model() -> GatewayModel:
    return GatewayModel()


@pytest.fixture
def rooms(model: GatewayModel) -> Rooms:
    return open_rooms(model)


def open_rooms(model: GatewayModel, **settings: Any) -> Rooms:
    config = Config(orders=settings)
    return Rooms(model.call, get=lambda path: "pong", config=config, clock=model.clock, listen=model.listen)


def paths(model: GatewayModel) -> list[str]:
    return [path.removeprefix("/api/") for path, _ in model.calls]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"limit": 20000.0}, "takes no 'limit'; did you mean limit_price"),
        ({"stop_loss_tick": 40}, "did you mean stop_loss_ticks or stop_loss"),
        ({"tif": "day"}, "takes no 'tif'; there are custom_tag, label"),
    ],
)
def test_a_word_that_no_order_takes(model: GatewayModel, rooms: Rooms, words: dict[str, Any], message: str) -> None:
    """A misspelt word is refused with the ones that may have been meant, and nothing is sent."""
    with pytest.raises(TypeError, match=message):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, **words)
    assert [] == model.calls


def test_orders_by_status(rooms: Rooms) -> None:
    """One status may be named alone, by word or member."""
    placed = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    rooms.orders.buy(ACCOUNT, MNQ, 1)
    for status in ("open", OrderStatus.OPEN, ["open"], ("OPEN", "rejected")):
        assert [placed.id] == [order.id for order in rooms.orders.query(ACCOUNT, statuses=status)]


def test_an_order_gets_its_tag_before_it_is_sent(model: GatewayModel, rooms: Rooms) -> None:
    """The tag that the gateway sees is the one that the caller gets."""
    placed = rooms.orders.place(ACCOUNT, MNQ, side="buy", size=2, limit_price=20990.25, label="scalper")
    path, request = model.calls[-1]
    assert ("/api/Order/place", placed.custom_tag) == (path, request.custom_tag)
    assert placed.custom_tag.startswith("scalper~")
    assert (9056, OrderType.LIMIT, OrderSide.BUY, 20990.25) == (placed.id, placed.type, placed.side, placed.limit_price)


@pytest.mark.parametrize("fault", ["lost", "500-after", "truncated", "silent"])
@pytest.mark.parametrize("hub", [True, False], ids=["hub", "rest"])
def test_a_lost_reply_is_looked_up(model: GatewayModel, rooms: Rooms, fault: str, hub: bool) -> None:
    """An order whose reply is lost after it was accepted comes back as if nothing had happened."""
    model.hub_open = hub
    model.faults["Order/place"] = [fault]
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert [placed.custom_tag] == model.executed
    assert (placed.id, OrderStatus.FILLED) == (placed.record.id, placed.record.status)


def test_an_order_that_comes_late_is_found(model: GatewayModel, rooms: Rooms) -> None:
    """An order that the gateway executes eight seconds after the timeout is still the answer."""
    model.faults["Order/place"] = ["late"]
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert [placed.custom_tag] == model.executed


def test_an_order_that_is_never_found_is_unknown(model: GatewayModel, rooms: Rooms) -> None:
    """After the horizon the caller learns that nothing is known, with the tag to ask about."""
    model.faults["Order/place"] = ["dropped"]
    with pytest.raises(errors.OrderStateUnknown) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert rooms.orders.verify(caught.value.tag) is None
    assert [] == model.executed
    assert 1 == paths(model).count("Order/place")


def test_the_same_tag_is_sent_again_if_the_caller_wants(model: GatewayModel, rooms: Rooms) -> None:
    """With `resend`, an order that was looked for in vain goes out once more under the tag it had."""
    model.faults["Order/place"] = ["dropped"]
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=True)
    sent = {request.custom_tag for path, request in model.calls if path == "/api/Order/place"}
    assert ({placed.custom_tag}, [placed.custom_tag]) == (sent, model.executed)


def test_a_failed_look_up_is_not_absence(model: GatewayModel, rooms: Rooms) -> None:
    """While look-ups fail nothing is sent again, whatever the caller allowed."""
    model.faults["Order/place"] = ["dropped"]
    model.faults["Order/search"] = ["500"] * 50
    with pytest.raises(errors.OrderStateUnknown, match="TransientError"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=True)
    assert 1 == paths(model).count("Order/place")


@pytest.mark.parametrize("fault", ["refused", "open", "429", "401"])
def test_what_was_not_executed_is_not_looked_up(model: GatewayModel, rooms: Rooms, fault: str) -> None:
    """An order that provably never ran raises at once, and its tag may be used again."""
    model.faults["Order/place"] = [fault]
    with pytest.raises(errors.RequestError) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert ["Order/place"] == paths(model)
    again = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag=caught.value.custom_tag)
    assert [again.custom_tag] == model.executed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"size": -1}, "size is -1; expected a whole number"),
        ({"size": 1.5}, "size is 1.5"),
        ({"size": True}, "size is True"),
        ({"side": "long"}, "side is 'long'; expected one of"),
        ({"limit_price": 21000.1}, "21000.0 or 21000.25"),
        ({"limit_price": float("nan")}, "expected a finite number"),
        ({"type": "limit"}, "a LIMIT order needs limit_price"),
        ({"type": "market", "limit_price": 1.0}, "takes no limit_price"),
        ({"stop_loss_ticks": 3}, "stop_loss_ticks is 3; expected a whole number of 4 or more"),
        ({"stop_loss_ticks": -40}, "stop_loss_ticks is -40"),
        ({"limit_price": 21000.0, "stop_loss_price": 21010.0}, "belongs below"),
        ({"label": "a b"}, "label is 'a b'"),
        ({"custom_tag": "ö"}, "custom_tag is 'ö'"),
        ({"trail_ticks": 1001}, "expected 1000 at most"),
    ],
)
def test_bad_orders_are_refused_before_anything_is_sent(
    model: GatewayModel, rooms: Rooms, arguments: dict[str, Any], expected: str
) -> None:
    """A wrong argument is an InvalidRequest that says what was expected, and no order goes out."""
    with pytest.raises(errors.InvalidRequest, match=expected.replace("(", r"\(")):
        rooms.orders.place(ACCOUNT, MNQ, **{"side": "buy", "size": 1, **arguments})
    assert [] == model.calls


def test_a_dry_run_sends_nothing(model: GatewayModel, rooms: Rooms) -> None:
    """`dry_run` gives what would be sent: brackets signed by side, the tag minted."""
    request = rooms.orders.place(
        ACCOUNT, MES, side="sell", size=1, stop_loss_ticks=40, take_profit_ticks=80, dry_run=True
    )
    assert (40, -80) == (request.stop_loss_bracket.ticks, request.take_profit_bracket.ticks)
    assert [] == model.calls


def test_a_duplicate_tag_of_ours_exists(model: GatewayModel, rooms: Rooms) -> None:
    """The gateway says that a minted tag is taken: a layer below has sent it twice, and the order is there."""
    model.faults["Order/place"] = ["lost", "lost"]
    original = model.call

    def twice(path: str, request: Any, reply: Any, **options: Any) -> Any:
        if path.endswith("/place"):
            with pytest.raises(errors.ReplyLost):
                original(path, request, reply, **options)
            model.faults["Order/place"] = []
        return original(path, request, reply, **options)

    rooms.orders._placer._call = twice
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert ([placed.custom_tag], 9056) == (model.executed, placed.id)


def test_a_duplicate_tag_of_the_callers_is_refused(model: GatewayModel, rooms: Rooms) -> None:
    """A tag that the account has had before this process is an error, with the tag to ask about."""
    open_rooms(model).orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    model.clock.advance(3.0)  # more than the two clocks may differ by unnoticed
    with pytest.raises(errors.DuplicateCustomTag) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert "entry-1" == caught.value.custom_tag
    assert OrderStatus.FILLED is rooms.orders.verify("entry-1").status


def test_an_intent_may_be_repeated(model: GatewayModel, rooms: Rooms) -> None:
    """The same order under the same tag is the same order, and is sent once."""
    first = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert first == rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert 1 == paths(model).count("Order/place")


def test_a_tag_stands_for_one_order(model: GatewayModel, rooms: Rooms) -> None:
    """Another order under a tag of this process is refused here."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    with pytest.raises(errors.InvalidRequest, match="stands for another order"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 2, custom_tag="entry-1")


def test_an_unknown_order_may_be_placed_again_under_its_tag(model: GatewayModel, rooms: Rooms) -> None:
    """After OrderStateUnknown the same tag finds the order that came after all, and never makes a second."""
    model.faults["Order/place"] = ["late"]
    model.faults["Order/search"] = ["500"] * 6
    model.faults["Order/searchOpen"] = model.faults["Order/v2/query"] = ["500"] * 12
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    again = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert (["entry-1"], 9056) == (model.executed, again.id)


def test_one_tag_is_in_flight_once(model: GatewayModel, rooms: Rooms) -> None:
    """32 threads that place the same intent at the same time get one order, from one call."""
    inside, go = threading.Event(), threading.Event()
    original = model.call

    def slow(path: str, request: Any, reply: Any, **options: Any) -> Any:
        inside.set()
        assert go.wait(10)
        return original(path, request, reply, **options)

    rooms.orders._placer._call = slow
    rooms.orders._placer._clock = SYSTEM_CLOCK
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")))
        for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert (32, 1, ["entry-1"]) == (len(found), len({order.id for order in found}), model.executed)


def test_whoever_joins_a_flight_shares_its_failure(model: GatewayModel, rooms: Rooms) -> None:
    """The error of a flight reaches those who waited for it, and the next try is free."""
    inside, go, second = threading.Event(), threading.Event(), threading.Event()

    def failing(path: str, request: Any, reply: Any, **options: Any) -> Any:
        inside.set()
        assert go.wait(10)
        raise errors.ConnectFailed("refused")

    rooms.orders._placer._call = failing
    rooms.orders._placer._clock = SYSTEM_CLOCK
    caught: list[BaseException] = []

    def place() -> None:
        try:
            if inside.is_set():
                second.set()
            rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
        except errors.ConnectFailed as error:
            caught.append(error)

    threads = [threading.Thread(target=place) for _ in range(2)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert second.wait(10)
    while rooms.orders._ledger.find("entry-1").flight is ALONE:  # the second has not joined yet
        threads[1].join(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    assert 2 == len(caught)
    rooms.orders._placer._call = model.call
    assert 9056 == rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1").id


def test_whoever_comes_to_a_flight_as_it_fails_begins_anew(model: GatewayModel, rooms: Rooms) -> None:
    """An order that was not sent is not in doubt for a thread that found it in flight and was a moment too late."""
    over, found = threading.Event(), list[Any]()
    ledger = rooms.orders._ledger
    plain = ledger.join

    def late(entry: Intent) -> Any:
        assert over.wait(10)
        return plain(entry)

    def failing(path: str, request: Any, reply: Any, **options: Any) -> Any:
        rooms.orders._placer._call = model.call
        joiner.start()
        assert soon(lambda: bool(joining))
        raise errors.ConnectFailed("refused")

    joining: list[Intent] = []
    ledger.join = lambda entry: (joining.append(entry), late(entry))[1]  # type: ignore[method-assign]
    rooms.orders._placer._call = failing
    joiner = threading.Thread(
        target=lambda: found.append(rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")), daemon=True
    )
    with pytest.raises(errors.ConnectFailed):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    over.set()
    joiner.join(10)
    assert ([9056], ["entry-1"]) == ([order.id for order in found], model.executed)


def test_the_ctrl_c_of_one_flight_is_not_that_of_whoever_joined(model: GatewayModel, rooms: Rooms) -> None:
    """Who waited for an order whose thread was interrupted is told that its fate is unknown, and is not interrupted."""
    inside = threading.Event()
    caught: list[type] = []

    def interrupted(path: str, request: Any, reply: Any, **options: Any) -> Any:
        inside.set()
        assert soon(lambda: rooms.orders._ledger.find("entry-1").flight is not ALONE)  # the second has joined
        raise KeyboardInterrupt

    def place() -> None:
        try:
            rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
        except BaseException as error:
            caught.append(type(error))

    rooms.orders._placer._call = interrupted
    rooms.orders._placer._clock = SYSTEM_CLOCK
    threads = [threading.Thread(target=place) for _ in range(2)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert {KeyboardInterrupt, errors.OrderStateUnknown} == set(caught)


def test_a_flight_that_never_lands_is_unknown(
    model: GatewayModel, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for another thread's order does not wait for ever."""
    entry = Intent(rooms.orders.place(ACCOUNT, MNQ.id, side="buy", size=1, custom_tag="t", dry_run=True), "t", 0.0)
    rooms.orders._ledger.board(entry)
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="t")
    assert [] == model.calls


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (2, None, errors.OrderRejected),
        (2, "Trading is currently unavailable. The instrument is not in an active trading status.",
         errors.OutsideTradingHours),
        (2, "Brackets cannot be used with Position Brackets. You must enable Auto OCO Brackets.",
         errors.BracketRejected),
        (2, "Invalid stop loss ticks (40). Ticks should be less than zero when longing.", errors.BracketRejected),
        (2, "Not enough margin.", errors.InsufficientFunds),
        (3, None, errors.InsufficientFunds), (4, None, errors.AccountViolation),
        (5, None, errors.OutsideTradingHours), (9, None, errors.ContractNotActive),
        (10, None, errors.AccountRejected),
    ],
)  # fmt: skip
def test_a_refusal_is_raised_at_once(
    model: GatewayModel, rooms: Rooms, code: int, message: str | None, expected: type[errors.OrderRejected]
) -> None:
    """A rejected order raises its class, with the record that the gateway kept and the tag; nothing is looked up."""
    model.reject = (code, message)
    with pytest.raises(expected) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert (9056, ["Order/place"]) == (caught.value.order_id, paths(model))
    assert caught.value.custom_tag == model.orders[9056].custom_tag
    assert type(caught.value) is expected


def test_a_rejection_whose_reply_is_lost_is_a_rejection(model: GatewayModel, rooms: Rooms) -> None:
    """An order that is found rejected raises, as it would have with its reply."""
    model.reject = (2, "whatever")
    model.faults["Order/place"] = ["lost"]
    with pytest.raises(errors.OrderRejected, match="the reply with the reason was lost") as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert 9056 == caught.value.order_id


def test_a_rejection_of_the_second_sending_keeps_its_reason(model: GatewayModel, rooms: Rooms) -> None:
    """When the order is sent again and refused, the gateway's reason is what is raised."""
    model.reject = (3, None)
    model.faults["Order/place"] = ["dropped"]
    with pytest.raises(errors.InsufficientFunds):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=True)


@pytest.mark.parametrize("fault", ["refused", "dropped", "late"])
def test_a_second_sending_that_fails_leaves_the_first_in_doubt(model: GatewayModel, rooms: Rooms, fault: str) -> None:
    """The order was sent again and that failed, too: the first may still come, so nothing is known or it was found."""
    model.faults["Order/place"] = ["dropped", fault]
    if fault == "late":
        assert [rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=True).custom_tag] == model.executed
    else:
        with pytest.raises(errors.OrderStateUnknown):
            rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=True)
    assert 2 == paths(model).count("Order/place")


def test_an_order_is_sent_again_once(model: GatewayModel, rooms: Rooms) -> None:
    """There is no third sending."""
    model.faults["Order/place"] = ["dropped"] * 5
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=True)
    assert 2 == paths(model).count("Order/place")


def test_an_order_that_is_no_longer_wanted_is_not_sent_again(model: GatewayModel, rooms: Rooms) -> None:
    """A `resend` function is asked at the time, and its no is a no."""
    asked: list[int] = []
    model.faults["Order/place"] = ["dropped"]
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=lambda: bool(asked.append(1)))
    assert ([1], 1) == (asked, paths(model).count("Order/place"))


@pytest.mark.parametrize("fault", ["ctrl-c", "bug"])
def test_an_interrupted_order_says_how_to_find_it(model: GatewayModel, rooms: Rooms, fault: str) -> None:
    """Ctrl-C in the middle of an order gets out at once, and the traceback names the tag; a bug ends as unknown."""
    model.faults["Order/place"] = [fault]
    with pytest.raises((KeyboardInterrupt, errors.OrderStateUnknown)) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    if fault == "ctrl-c":
        assert ["The order may exist: session.orders.verify('entry-1')"] == caught.value.__notes__
    assert None is rooms.orders.verify("entry-1")


def test_ctrl_c_while_looking_up(model: GatewayModel, rooms: Rooms) -> None:
    """Ctrl-C during the look-up gets out, too, and the order can be found afterwards."""
    model.faults["Order/place"] = ["lost"]
    model.faults["Order/search"] = ["ctrl-c"]
    with pytest.raises(KeyboardInterrupt) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert ["The order may exist: session.orders.verify('entry-1')"] == caught.value.__notes__
    assert OrderStatus.FILLED is rooms.orders.verify("entry-1").status


def test_closing_ends_the_look_up(model: GatewayModel) -> None:
    """A session that closes during a look-up ends it at once, with the tag."""
    closed = threading.Event()
    rooms = Rooms(model.call, get=lambda path: "pong", clock=model.clock, listen=model.listen, closed=closed)
    model.faults["Order/place"] = ["dropped"]
    closed.set()
    with pytest.raises(errors.OrderStateUnknown, match="SessionClosed"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)


def test_the_look_up_goes_first_and_past_the_breaker(model: GatewayModel, rooms: Rooms) -> None:
    """Every question about a lost order has priority 0, a short timeout, and passes an open breaker."""
    model.faults["Order/place"] = ["dropped"]
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    asked = [options for (path, _), options in zip(model.calls, model.options, strict=True) if "place" not in path]
    expected = {"priority": Priority.URGENT, "must_try": True, "timeout": VERIFY_TIMEOUT}
    assert 18 == len(asked)
    assert [expected] == [o for i, o in enumerate(asked) if o not in asked[:i]]


def test_the_search_is_on_the_gateways_clock(model: GatewayModel) -> None:
    """With the gateway an hour behind, the window of the search is moved along."""
    rooms = Rooms(model.call, get=str, clock=model.clock, skew=lambda: -3600.0)
    model.faults["Order/place"] = ["dropped"]
    sent = model.clock.epoch()
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    searched = next(request for path, request in model.calls if path == "/api/Order/search")
    assert sent - 3600.0 - 60.0 == pytest.approx(searched.start_timestamp.timestamp(), abs=0.01)


def test_a_gateway_without_the_newer_endpoints(model: GatewayModel, rooms: Rooms) -> None:
    """An older gateway without v2/query is asked once for it, and the look-up works all the same."""
    model.missing = {"Order/v2/query", "Order/searchById"}
    model.faults["Order/place"] = ["dropped"]
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert 1 == paths(model).count("Order/v2/query")
    placed = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    assert placed.id == rooms.orders.get(placed).id
    model.complete(placed.id)
    assert OrderStatus.FILLED is rooms.orders.get(ACCOUNT, placed.id).status


def test_a_tag_of_ones_own_that_is_taken_by_this_very_order(model: GatewayModel, rooms: Rooms) -> None:
    """Something on the way has sent an order twice: the reply says that the tag is taken, and the order is there."""
    model.faults["Order/place"] = ["taken"]
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert [placed.id] == [order.id for order in model.orders.values()]
    assert placed == rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")


def test_a_rejected_order_that_is_heard_of_between_failed_looks_has_used_the_tag_up(
    model: GatewayModel, rooms: Rooms
) -> None:
    """A look-up that failed before the hub told of the order does not make it this one: no order works."""
    model.reject, model.hub_open = (2, "whatever"), True
    model.faults = {"Order/place": ["taken"], "Order/search": ["500"] * 9, "Order/searchOpen": ["500"] * 9}
    model.late.append((model.clock.monotonic() + 1.0, lambda: model.put(next(iter(model.orders.values())))))
    with pytest.raises(errors.DuplicateCustomTag) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert [caught.value.order_id] == list(model.orders)


@pytest.mark.parametrize("older", [0.0, 60.0, 3600.0])
def test_a_tag_of_ones_own_that_another_order_has(model: GatewayModel, rooms: Rooms, older: float) -> None:
    """An earlier order, or one of other terms, is not this one; the error names it where a look finds it."""
    earlier = open_rooms(model).orders.buy(ACCOUNT, MNQ, 2, custom_tag="entry-1", limit_price=20000.0)
    model.clock.advance(older)
    with pytest.raises(errors.DuplicateCustomTag) as caught:
        rooms.orders.buy(ACCOUNT, MNQ, 2 if older else 1, custom_tag="entry-1", limit_price=20000.0)
    assert earlier.id == caught.value.order_id
    model.complete(earlier.id)
    model.clock.advance(3600.0)
    begun = model.clock.monotonic()
    with pytest.raises(errors.DuplicateCustomTag) as caught:  # ended, and longer ago than is searched for a lost one
        open_rooms(model).orders.buy(ACCOUNT, MNQ, 2, custom_tag="entry-1", limit_price=20000.0)
    assert (earlier.id, True) == (caught.value.order_id, model.clock.monotonic() - begun < 0.1)
    model.clock.advance(31 * 86400.0)
    with pytest.raises(errors.DuplicateCustomTag) as caught:
        open_rooms(model).orders.buy(ACCOUNT, MNQ, 2, custom_tag="entry-1", limit_price=20000.0)
    assert None is caught.value.order_id


@pytest.mark.parametrize("hub", [True, False], ids=["hub", "rest"])
def test_a_tag_of_ones_own_that_is_taken_by_an_order_not_shown_yet(
    model: GatewayModel, rooms: Rooms, hub: bool
) -> None:
    """A gateway that has the order, and shows it three seconds later, has not refused it."""
    model.hub_open = hub
    plain = model.do_order_place

    def unseen(request: Any) -> Any:
        model.late.append((model.clock.monotonic() + 3.0, lambda: plain(request)))
        return 2, "Specified custom tag is already in use", {}

    model.do_order_place = unseen  # type: ignore[method-assign]
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert [placed.id] == list(model.orders)


def test_a_tag_of_ones_own_that_cannot_be_looked_up(model: GatewayModel, rooms: Rooms) -> None:
    """Whether the order that has the tag is this one is unknown, and `verify` settles it."""
    model.faults = {"Order/place": ["taken"], "Order/search": ["500"] * 9}
    model.faults |= {name: ["500"] * 9 for name in ("Order/searchOpen", "Order/v2/query")}
    with pytest.raises(errors.OrderStateUnknown) as caught:
        rooms.orders.buy(ACCOUNT, MNQ, 1, custom_tag="entry-1", limit_price=20000.0)
    model.faults = {}
    assert OrderStatus.OPEN is rooms.orders.verify(caught.value.tag).status


def test_an_absence_is_not_believed_for_ever(model: GatewayModel, rooms: Rooms) -> None:
    """One 404 may be a proxy's: after some minutes the endpoint is asked again, and the legs are seen once more."""
    rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0, stop_loss_ticks=40)
    model.missing = {"Order/v2/query"}
    assert (1, 1) == (len(rooms.orders.working(ACCOUNT)), paths(model).count("Order/v2/query"))
    model.missing = set()
    assert (1, 1) == (len(rooms.orders.working(ACCOUNT)), paths(model).count("Order/v2/query"))
    model.clock.advance(301.0)
    assert 2 == len(rooms.orders.working(ACCOUNT))


def test_a_refused_argument_is_no_missing_endpoint(model: GatewayModel, rooms: Rooms) -> None:
    """A 400 is raised, and the next question is asked all the same."""
    placed = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0, stop_loss_ticks=40)
    model.faults = {"Order/v2/query": ["400", "400"], "Order/searchById": ["400"]}
    with pytest.raises(errors.PermanentError, match="400"):
        rooms.orders.query(ACCOUNT)
    with pytest.raises(errors.PermanentError, match="400"):
        rooms.orders.get(placed)
    assert (2, placed.id) == (len(rooms.orders.query(ACCOUNT)), rooms.orders.get(placed).id)


def test_a_page_that_is_too_large_is_left_to_the_gateway(model: GatewayModel, rooms: Rooms) -> None:
    """A gateway that refuses the size of a page is asked without one, from then on at once."""
    for number in range(7):
        rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0 + number)
    plain = model.do_order_v2_query

    def small(request: Any) -> Any:
        if request.page_size is not UNSET:
            raise model.error("400", "/api/Order/v2/query")
        return plain(replace(request, page_size=3))

    model.do_order_v2_query = small  # type: ignore[method-assign]
    assert 7 == len(rooms.orders.query(ACCOUNT))
    asked = paths(model).count("Order/v2/query")
    assert 7 == len(rooms.orders.query(ACCOUNT))
    assert (1 + 3, 3) == (asked, paths(model).count("Order/v2/query") - asked)


def test_verify_asks_every_account_about_a_tag_it_does_not_know(model: GatewayModel, rooms: Rooms) -> None:
    """A tag of another process is found whichever account it is in; where the account is given, only there."""
    placed = open_rooms(model).orders.buy(704, MNQ.id, 1, label="other")
    assert placed.id == rooms.orders.verify(placed.custom_tag).id
    assert None is rooms.orders.verify(placed.custom_tag, account_id=ACCOUNT, wait=False)
    assert None is rooms.orders.verify("never-heard-of", since="2026-01-01")


def test_two_look_for_the_same_order(model: GatewayModel, rooms: Rooms) -> None:
    """Who looked a moment too early, while another thread has found the order, looks again and finds it, too."""
    model.faults = {"Order/place": ["dropped"], "Order/search": ["500"] * 6}
    with pytest.raises(errors.OrderStateUnknown) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    model.faults = {}
    request = next(request for path, request in model.calls if path == "/api/Order/place")
    plain, found = model.do_order_search, []

    def meanwhile(search: Any) -> Any:
        before = plain(search)
        if not model.orders:
            model.do_order_place(request)
            found.append(rooms.orders.verify(caught.value.tag))
        return before

    model.do_order_search = meanwhile  # type: ignore[method-assign]
    assert [rooms.orders.verify(caught.value.tag, wait=False)] == found


def test_verify_that_cannot_look_is_unknown(model: GatewayModel, rooms: Rooms) -> None:
    """`verify` says "absent" only when every look-up answered."""
    model.faults["Order/search"] = ["500"] * 9
    with pytest.raises(errors.OrderStateUnknown, match="TransientError"):
        rooms.orders.verify("never-heard-of", account_id=ACCOUNT)
    model.faults = {"Account/search": ["500"]}
    with pytest.raises(errors.OrderStateUnknown, match="TransientError"):
        rooms.orders.verify("never-heard-of")


def test_verify_of_a_settled_order_reads_it_back(model: GatewayModel, rooms: Rooms) -> None:
    """Of an order that is known, `verify` tells how it stands now."""
    placed = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    assert OrderStatus.OPEN is rooms.orders.verify(placed.custom_tag).status
    model.complete(placed.id)
    assert OrderStatus.FILLED is rooms.orders.verify(placed.custom_tag).status


@pytest.mark.parametrize("answered", [False, True], ids=["in flight", "accepted"])
def test_verify_does_not_call_absent_what_is_under_way(model: GatewayModel, rooms: Rooms, answered: bool) -> None:
    """An order that this process knows of, and that no look-up shows yet, is no absence."""
    told: list[Any] = []

    def ask() -> None:
        with pytest.raises(errors.OrderStateUnknown) as caught:
            rooms.orders.verify("entry-1", wait=False)
        told.append(caught.value.tag)

    def blind(_: Any) -> Any:
        return 0, None, {"orders": [], "total_count": 0}

    plain = model.do_order_place
    model.do_order_search = model.do_order_searchopen = model.do_order_v2_query = blind  # type: ignore[method-assign]
    if not answered:
        model.do_order_place = lambda request: (ask(), plain(request))[1]  # type: ignore[method-assign]
    rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    if answered:
        ask()
    assert ["entry-1"] == told


def test_verify_waits_for_an_order_that_may_still_come(model: GatewayModel, rooms: Rooms) -> None:
    """Just after an order was lost, `verify` looks until the horizon before it says that there is none."""
    model.faults["Order/place"] = ["late"]
    model.faults["Order/search"] = ["ctrl-c"]
    with pytest.raises(KeyboardInterrupt):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert None is rooms.orders.verify("entry-1", wait=False)
    assert OrderStatus.FILLED is rooms.orders.verify("entry-1").status


@pytest.mark.parametrize("trouble", [errors.StreamFailed("the hub gave up"), errors.SessionClosed("closed")])
def test_a_hub_that_cannot_be_heard_does_not_end_the_look_up(model: GatewayModel, trouble: errors.TopstepError) -> None:
    """Its error, which may even say that nothing was sent, is not the order's: that is looked up without the hub."""

    def listen(account_id: int) -> Any:
        raise trouble

    rooms = Rooms(model.call, get=lambda path: "pong", clock=model.clock, listen=listen)
    model.faults = {"Order/place": ["lost"]}
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert OrderStatus.FILLED is rooms.orders.verify(placed.custom_tag).status
    assert OrderStatus.FILLED is rooms.orders.wait(ACCOUNT, placed.id).status
    assert 1 == len(model.executed)


def test_closing_in_the_middle_of_a_look_up_is_not_absence(model: GatewayModel, tmp_path: Path) -> None:
    """A session that closes between two looks has not reached the horizon: unknown, here and in the journal."""
    closed = threading.Event()

    def call(path: str, *rest: Any, **options: Any) -> Any:
        reply = model.call(path, *rest, **options)
        if path.endswith("v2/query"):
            closed.set()
        return reply

    config = Config(orders={"journal_path": tmp_path / "orders"})
    rooms = Rooms(call, get=lambda path: "pong", config=config, clock=model.clock, closed=closed)
    model.faults = {"Order/place": ["late"], "Order/search": ["ctrl-c"]}
    with pytest.raises(KeyboardInterrupt):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    with pytest.raises(errors.OrderStateUnknown, match="SessionClosed"):
        rooms.orders.verify("entry-1")
    later = open_rooms(model, journal_path=tmp_path / "orders")
    model.clock.advance(20.0)
    assert [OrderStatus.FILLED] == [found.order.status for found in later.orders.recover()]


def test_one_look_before_the_horizon_settles_nothing(model: GatewayModel, tmp_path: Path) -> None:
    """`verify` without waiting may say that there is no order yet; the journal keeps the intent open."""
    rooms = open_rooms(model, journal_path=tmp_path / "orders")
    model.faults = {"Order/place": ["late"], "Order/search": ["ctrl-c"]}
    with pytest.raises(KeyboardInterrupt):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert None is rooms.orders.verify("entry-1", wait=False)
    later = open_rooms(model, journal_path=tmp_path / "orders")
    model.clock.advance(20.0)
    assert [OrderStatus.FILLED] == [found.order.status for found in later.orders.recover()]


def test_the_horizon_counts_from_the_attempt_and_not_from_the_wait_for_its_permit(model: GatewayModel) -> None:
    """An order that left long after it was wanted is looked for as long as any other."""

    def call(path: str, *rest: Any, **options: Any) -> Any:
        if path.endswith("Order/place"):
            model.clock.advance(60.0)
        return model.call(path, *rest, **options)

    rooms = Rooms(call, get=lambda path: "pong", clock=model.clock)
    model.faults = {"Order/place": ["late"], "Order/search": ["ctrl-c"]}
    with pytest.raises(KeyboardInterrupt):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert OrderStatus.FILLED is rooms.orders.verify("entry-1").status


@pytest.mark.parametrize("there", [True, False])
def test_an_order_may_be_verified_by_many_threads_at_once(model: GatewayModel, there: bool) -> None:
    """All of them get the order, whoever settles its intent first; whoever looked too early looks again."""
    threads = 32
    together = threading.Barrier(threads)
    first = threading.local()

    def call(path: str, *rest: Any, **options: Any) -> Any:
        reply = model.call(path, *rest, **options)
        if path.endswith("Order/search" if there else "v2/query") and not hasattr(first, "seen"):
            first.seen = True
            if first.wait_here:
                together.wait(10.0)
        return reply

    rooms = Rooms(call, get=lambda path: "pong", clock=model.clock)
    first.wait_here = False
    model.faults = {"Order/place": ["late"], "Order/search": ["ctrl-c"]}
    with pytest.raises(KeyboardInterrupt):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    if there:
        model.clock.advance(20.0)
    found: list[Any] = []

    def verify() -> None:
        first.wait_here = True
        try:
            order = rooms.orders.verify("entry-1", wait=not there)
            found.append(order and order.status)
        except Exception as error:
            found.append(error)

    crowd = [threading.Thread(target=verify) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(20.0)
    assert [OrderStatus.FILLED] * threads == found


################################################ the journal ################################################


def test_a_crash_between_an_order_and_its_reply_is_recovered(model: GatewayModel, tmp_path: Path) -> None:
    """What an earlier process left open is settled by the next: found, absent, or unknown while nothing answers."""
    file = str(tmp_path / "orders.jsonl")
    first = open_rooms(model, journal_path=file)
    for tag, fault in (("there", "lost"), ("gone", "dropped"), ("known", ""), ("refused", "refused")):
        model.faults = {"Order/place": [fault], "Order/search": ["ctrl-c"]}
        try:
            first.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag=tag)
        except (KeyboardInterrupt, errors.ConnectFailed):
            continue
    model.faults = {"Order/search": ["", *["500"] * 99]}
    second = open_rooms(model, journal_path=file)
    recovered = second.orders.recover()
    assert [("there", "accepted"), ("gone", "unknown")] == [(r.custom_tag, r.state.value) for r in recovered]
    model.faults = {}
    third = open_rooms(model, journal_path=file)
    assert ["absent"] == [r.state.value for r in third.orders.recover()]
    assert [] == open_rooms(model, journal_path=file).orders.recover()
    assert None is third.orders.verify("gone")
    assert OrderStatus.FILLED is open_rooms(model, journal_path=file).orders.verify("there").status


def test_a_tag_that_an_earlier_process_left_open_is_looked_up_first(model: GatewayModel, tmp_path: Path) -> None:
    """A program that starts again and repeats its order gets the one there is, and not a refusal of its tag."""
    model.faults = {"Order/place": ["lost"], "Order/search": ["500"] * 9}
    with pytest.raises(errors.OrderStateUnknown):
        open_rooms(model, journal_path=tmp_path / "orders").orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    model.faults = {}
    rooms = open_rooms(model, journal_path=tmp_path / "orders")
    with pytest.raises(errors.InvalidRequest, match="stands for another order"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 2, custom_tag="entry-1")
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert ([placed.id], "entry-1") == (list(model.orders), placed.custom_tag)
    assert [] == rooms.orders.recover()


@pytest.mark.parametrize("same", [True, False], ids=["thread", "process"])
def test_an_absence_does_not_end_what_is_sent_again_meanwhile(model: GatewayModel, tmp_path: Path, same: bool) -> None:
    """Whoever looked before somebody else sent the same tag again leaves that attempt open in the journal."""
    file = tmp_path / "orders"
    rooms = open_rooms(model, journal_path=file)
    model.faults = {"Order/place": ["dropped", "late"], "Order/search": ["500"] * 9}
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    model.clock.advance(60.0)
    model.faults["Order/search"] = []
    beside = rooms if same else open_rooms(model, journal_path=file)
    plain, looked = model.do_order_search, []

    def meanwhile(search: Any) -> Any:
        before = plain(search)
        if not looked:
            looked.append(before)
            model.faults["Order/search"] = ["", "ctrl-c"]
            with pytest.raises(KeyboardInterrupt):
                rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
        return before

    model.do_order_search = meanwhile  # type: ignore[method-assign]
    if same:
        with pytest.raises(errors.OrderStateUnknown):
            beside.orders.verify("entry-1", wait=False)
    else:
        assert None is beside.orders.verify("entry-1", wait=False)
    recovered = open_rooms(model, journal_path=file).orders.recover()
    assert [("entry-1", "accepted")] == [(one.custom_tag, one.state.value) for one in recovered]


def test_the_absence_that_another_process_saw_is_not_that_of_an_order_under_way(
    model: GatewayModel, tmp_path: Path
) -> None:
    """A process that starts while an order of another one is on its way may ask for it, and does not end it."""
    file = tmp_path / "orders"
    told: list[Any] = []

    def beside(request: Any) -> Any:
        told.append(open_rooms(model, journal_path=file).orders.verify("entry-1"))
        model.late.append((model.clock.monotonic() + 8.0, lambda: plain(request)))
        raise KeyboardInterrupt

    plain, model.do_order_place = model.do_order_place, beside  # type: ignore[method-assign]
    rooms = open_rooms(model, journal_path=file)
    rooms.orders._placer._abandon = lambda *_: None  # type: ignore[method-assign]  # killed, and wrote nothing any more
    with pytest.raises(KeyboardInterrupt):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    recovered = open_rooms(model, journal_path=file).orders.recover()
    assert ([None], ["accepted"]) == (told, [one.state.value for one in recovered])


@pytest.mark.parametrize("asked", [False, True])
def test_recovery_ends_what_it_does_not_find(model: GatewayModel, tmp_path: Path, asked: bool) -> None:
    """Of an order whose process was killed on the way to the gateway the absence is told once."""
    file = tmp_path / "orders"
    rooms = open_rooms(model, journal_path=file)
    rooms.orders._placer._abandon = lambda *_: None  # type: ignore[method-assign]
    model.faults = {"Order/place": ["ctrl-c"]}
    with pytest.raises(KeyboardInterrupt):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    second = open_rooms(model, journal_path=file)
    if asked:
        assert None is second.orders.verify("entry-1")
    assert ["absent"] == [one.state.value for one in second.orders.recover()]
    assert [] == open_rooms(model, journal_path=file).orders.recover()


def test_an_order_that_cannot_be_written_down_is_not_sent(model: GatewayModel, tmp_path: Path) -> None:
    """A journal on a full disk stops orders; an outcome that cannot be written does not lose the order."""
    rooms = open_rooms(model, journal_path=str(tmp_path / "orders.jsonl"))
    journal = rooms.orders._placer._journal
    written: list[Any] = []

    def full(entry: Any, now: float, **_: Any) -> None:
        written.append(entry.state)
        if len(written) != 2:
            raise OSError("no space left")

    journal.write = full
    with pytest.raises(errors.NotSent, match="the order journal cannot be written"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert [] == model.calls
    assert 9056 == rooms.orders.buy(ACCOUNT, MNQ.id, 1).id
    assert 3 == len(written)


@pytest.mark.parametrize("later", [0.5, 80.0, 97.0])
def test_recovery_waits_for_an_order_that_was_sent_at_the_last_moment(
    model: GatewayModel, tmp_path: Path, later: float
) -> None:
    """A process that died while its order waited for a permit may have sent it long after it wrote the journal.

    Whether that is so nobody can know, so the next one looks until the horizon has passed since the last moment.
    """
    file = str(tmp_path / "journal")
    first = open_rooms(model, journal_path=file)
    model.faults = {"Order/place": ["dropped"], "Order/search": ["ctrl-c"]}
    before = Path(file).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        first.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    sent = Path(file).read_bytes()[len(before) :].lstrip().splitlines(keepends=True)[0]
    Path(file).write_bytes(before + sent)  # killed: nobody wrote what became of it
    request = next(request for path, request in model.calls if path == "/api/Order/place")
    model.clock.advance(later)
    model.late.append((model.clock.monotonic() + 8.0, lambda: model.do_order_place(request)))
    found = open_rooms(model, journal_path=file).orders.recover()
    assert [("entry-1", "accepted")] == [(one.custom_tag, one.state.value) for one in found]


def test_there_is_nothing_to_recover_without_a_journal(rooms: Rooms) -> None:
    """`recover` without a journal says which setting it needs."""
    with pytest.raises(errors.InvalidRequest, match="journal_path"):
        rooms.orders.recover()


def test_the_ledger_forgets_settled_orders_only(
    model: GatewayModel, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of very many orders the oldest settled ones are forgotten, open ones never."""
    monkeypatch.setattr(ledger, "KEPT", 3)
    model.faults["Order/place"] = ["dropped"]
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="open")
    for number in range(6):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag=f"t{number}")
    known = [tag for tag in ("open", *(f"t{n}" for n in range(6))) if rooms.orders._ledger.find(tag)]
    assert ["open", "t4", "t5"] == known
    assert ["open"] == [entry.tag for entry in rooms.orders._ledger.open()]


def test_an_intent_that_was_called_absent_is_written_down_before_it_is_sent_again(
    model: GatewayModel, tmp_path: Path
) -> None:
    """A crash during the second life of an intent is recovered like one during its first."""
    file = str(tmp_path / "orders.jsonl")
    rooms = open_rooms(model, journal_path=file)
    model.faults["Order/place"] = ["dropped", "lost"]
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert None is rooms.orders.verify("entry-1")
    model.faults["Order/search"] = ["", "ctrl-c"]
    with pytest.raises(KeyboardInterrupt):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert ["accepted"] == [found.state.value for found in open_rooms(model, journal_path=file).orders.recover()]


def test_an_intent_in_doubt_is_looked_for_before_it_is_sent_again(model: GatewayModel, rooms: Rooms) -> None:
    """Even a gateway that takes a tag twice gets one order: while look-ups fail, nothing is sent."""
    model.forgetful = True
    model.faults = {"Order/place": ["lost"], "Order/search": ["500"] * 12}
    for _ in range(2):
        with pytest.raises(errors.OrderStateUnknown):
            rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    model.faults = {}
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert (["entry-1"], 9056, 1) == (model.executed, placed.id, paths(model).count("Order/place"))


def test_ctrl_c_right_after_the_reply(model: GatewayModel, rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the reply and the caller leaves an order that is there, and that `verify` finds."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("topstep_sync.api.placing.PlacedOrder.of", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert ["The order may exist: session.orders.verify('entry-1')"] == caught.value.__notes__
    monkeypatch.undo()
    assert 9056 == rooms.orders.verify("entry-1").id
    assert 9056 == rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1").id


def test_ctrl_c_after_the_acceptance_says_that_the_order_exists(model: GatewayModel, tmp_path: Path) -> None:
    """Whoever interrupts the last write of an order gets its tag all the same, which may have been minted."""
    rooms = open_rooms(model, journal_path=tmp_path / "orders")
    journal = rooms.orders._placer._journal
    assert journal is not None
    plain = journal.write

    def interrupted(entry: Intent, *rest: Any, **words: Any) -> None:
        if entry.placed is not None:
            raise KeyboardInterrupt
        plain(entry, *rest, **words)

    journal.write = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert [f"The order exists: session.orders.verify('{model.executed[0]}')"] == caught.value.__notes__
    assert 9056 == rooms.orders.verify(model.executed[0]).id


def test_an_outcome_that_was_not_written_is_not_doubted_here(model: GatewayModel, tmp_path: Path) -> None:
    """`recover` of the process that placed an order knows its outcome, and writes it down after all."""
    rooms = open_rooms(model, journal_path=str(tmp_path / "orders.jsonl"))
    journal = rooms.orders._placer._journal
    plain = journal.write

    def outcome_fails(entry: Any, now: float, *, until: float | None = None) -> None:
        if until is None:
            raise OSError("no space left")
        plain(entry, now, until=until)

    journal.write = outcome_fails
    rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    journal.write = plain
    before = len(model.calls)
    assert [("entry-1", "accepted")] == [(r.custom_tag, r.state.value) for r in rooms.orders.recover()]
    assert ([], before) == (rooms.orders.recover(), len(model.calls))


def test_an_intent_that_was_not_written_was_not_sent(model: GatewayModel, tmp_path: Path) -> None:
    """A tag whose order was never sent is absent, and may be used."""
    rooms = open_rooms(model, journal_path=str(tmp_path / "orders.jsonl"))
    journal = rooms.orders._placer._journal
    plain, journal.write = journal.write, lambda *_, **__: (_ for _ in ()).throw(OSError("no space left"))
    with pytest.raises(errors.NotSent):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert None is rooms.orders.verify("entry-1")
    journal.write = plain
    assert 9056 == rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1").id


def test_a_label_and_a_tag_are_one_too_many(rooms: Rooms) -> None:
    """A label is for a minted tag; with a tag of one's own it is refused."""
    with pytest.raises(errors.InvalidRequest, match="not both"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, label="a", custom_tag="b")


def test_other_events_of_the_hub_are_not_the_order(model: GatewayModel, rooms: Rooms) -> None:
    """While a lost order is listened for, events of other orders and accounts pass by."""
    model.hub_open = True
    model.faults["Order/place"] = ["late"]
    other = open_rooms(model)
    at = model.clock.monotonic()
    model.late.append((at + 3.0, lambda: other.orders.buy(ACCOUNT, MNQ.id, 1)))
    model.late.append((at + 4.0, lambda: other.orders.buy(704, MNQ.id, 1, custom_tag="entry-1")))
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag="entry-1")
    assert (ACCOUNT, "entry-1") == (placed.record.account_id, placed.record.custom_tag)
    assert 8.0 <= model.clock.monotonic() - at < 8.1


TYPED = """
from typing import assert_type

from topstep_sync.api.orders import OrdersApi
from topstep_sync.api.results import PlacedOrder
from topstep_sync.messages import PlaceOrder


def check(orders: OrdersApi) -> None:
    assert_type(orders.place(1, "MNQ", side="buy", size=1), PlacedOrder)
    assert_type(orders.place(1, "MNQ", side="buy", size=1, dry_run=True), PlaceOrder)
    assert_type(orders.buy(1, "MNQ", 1, label="scalper", limit_price=1.0), PlacedOrder)
    assert_type(orders.buy(1, "MNQ", 1, dry_run=False), PlacedOrder)
    assert_type(orders.buy(1, "MNQ", 1, dry_run=True, limit_price=1.0), PlaceOrder)
    assert_type(orders.sell(1, "MNQ", 1, custom_tag="entry-1"), PlacedOrder)
    assert_type(orders.sell(1, "MNQ", 1, dry_run=True), PlaceOrder)
    orders.sell(1, "MNQ", 1, limit=1.0)  # type: ignore[call-overload]
"""


@pytest.mark.slow
def test_a_type_checker_knows_what_an_order_gives_back(tmp_path: Path) -> None:
    """A placed order, or with `dry_run` the request, of `place`, `buy` and `sell`; a misspelt word is an error."""
    mypy = pytest.importorskip("mypy.api")
    (tmp_path / "typed.py").write_text(TYPED)
    said, complaints, status = mypy.run(["--strict", "--cache-dir", str(tmp_path), str(tmp_path / "typed.py")])
    assert ("Success: no issues found in 1 source file\n", "", 0) == (said, complaints, status)

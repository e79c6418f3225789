"""The rooms that only read, and the error of every code at every endpoint."""

from datetime import UTC, datetime
from typing import Any

import pytest
from gateway_model import ACCOUNT, MES, MNQ, MNQ_OLD, GatewayModel
from msgspec import UNSET
from msgspec.structs import replace

from topstep_sync import errors
from topstep_sync.api.rooms import Rooms
from topstep_sync.codes import CODES
from topstep_sync.models import OrderSide, Trade


@pytest.fixture
def model() -> GatewayModel:
    return GatewayModel()


@pytest.fixture
def rooms(model: GatewayModel) -> Rooms:
    return Rooms(model.call, get=lambda path: "pong", clock=model.clock)


def test_accounts(model: GatewayModel, rooms: Rooms) -> None:
    """Every account comes, in the gateway's order; none is picked."""
    assert [ACCOUNT, 704] == [account.id for account in rooms.accounts.search()]
    rooms.accounts.search(only_active=False)
    assert [True, False] == [request.only_active_accounts for _, request in model.calls]


def test_contracts(model: GatewayModel, rooms: Rooms) -> None:
    """Contracts are searched, listed, and looked up by id, expired ones, too."""
    assert [MNQ, MNQ_OLD] == rooms.contracts.search("mnq")
    assert [MNQ, MES] == rooms.contracts.available()
    assert MNQ_OLD == rooms.contracts.get(MNQ_OLD.id)
    with pytest.raises(errors.ContractNotFound):
        rooms.contracts.get("nope")
    for text in ("", "  ", None):
        with pytest.raises(errors.InvalidRequest, match="text is"):
            rooms.contracts.search(text)


def test_a_contract_is_remembered_for_a_while(model: GatewayModel, rooms: Rooms) -> None:
    """A contract is asked for once in some hours, or when it is wanted anew."""
    for _ in range(3):
        rooms.contracts.get(MNQ.id)
    assert 1 == len(model.calls)
    rooms.contracts.get(MNQ, refresh=True)
    model.clock.advance(7 * 3600)
    rooms.contracts.get(MNQ.id)
    assert 3 == len(model.calls)


def test_trades_come_oldest_first(model: GatewayModel, rooms: Rooms) -> None:
    """Fills are sorted by time, whatever the gateway's order."""
    when = datetime(2026, 11, 24, tzinfo=UTC)
    model.trades = [
        Trade(id=n, account_id=ACCOUNT, contract_id=MNQ.id, creation_timestamp=when, price=1.0, fees=0.0,
              side=OrderSide.BUY, size=1, voided=False, order_id=n)
        for n in (1, 2, 3)
    ]  # fmt: skip
    assert [1, 2, 3] == [trade.id for trade in rooms.trades.search(ACCOUNT, "2026-11-24")]
    rooms.trades.search(ACCOUNT, "2026-11-24", "2026-11-25")
    assert [UNSET, datetime(2026, 11, 25, tzinfo=UTC)] == [request.end_timestamp for _, request in model.calls]


def test_ping() -> None:
    """A ping is the time it took."""
    model = GatewayModel()
    rooms = Rooms(model.call, get=lambda path: str(model.clock.advance(0.25)), clock=model.clock)
    assert 0.25 == pytest.approx(rooms.status.ping())


READS: dict[str, tuple[str, Any]] = {
    "Account/search": ("accounts", lambda rooms: rooms.accounts.search()),
    "Contract/search": ("contracts", lambda rooms: rooms.contracts.search("MNQ")),
    "Contract/available": ("contracts", lambda rooms: rooms.contracts.available()),
    "Contract/searchById": ("contract", lambda rooms: rooms.contracts.get(MNQ.id)),
    "History/retrieveBars": ("bars", lambda rooms: rooms.history.bars(MNQ, start="2026-01-01")),
    "Order/search": ("orders", lambda rooms: rooms.orders.search(ACCOUNT, "2026-01-01")),
    "Order/searchOpen": ("orders", lambda rooms: rooms.orders.search_open(ACCOUNT)),
    "Order/searchById": ("order", lambda rooms: rooms.orders.get(ACCOUNT, 1)),
    "Order/v2/query": ("orders", lambda rooms: rooms.orders.query(ACCOUNT)),
    "Position/searchOpen": ("positions", lambda rooms: rooms.positions.search_open(ACCOUNT)),
    "Trade/search": ("trades", lambda rooms: rooms.trades.search(ACCOUNT, "2026-01-01")),
}


@pytest.mark.parametrize("value", [UNSET, None])
@pytest.mark.parametrize("name", READS)
def test_what_is_missing_is_not_empty(model: GatewayModel, rooms: Rooms, name: str, value: Any) -> None:
    """A reply that says success and lacks what was asked for is a broken reply."""
    field, ask = READS[name]
    setattr(model, "do_" + name.replace("/", "_").lower(), lambda request: (0, None, {field: value}))
    with pytest.raises(errors.BadReply, match=f"has no {field}"):
        ask(rooms)


# Endpoint → code → (name, class). Source: gateway documentation and swagger of 2026-09, section 2.2 of the contract
# reference; written down here a second time, so that a slip in one table cannot hide.
NAMED = {
    "AccountNotFound": errors.AccountNotFound, "ContractNotFound": errors.ContractNotFound,
    "OrderNotFound": errors.OrderNotFound, "PositionNotFound": errors.PositionNotFound,
    "UnitInvalid": errors.BadBarRequest, "UnitNumberInvalid": errors.BadBarRequest,
    "LimitInvalid": errors.BadBarRequest, "OrderRejected": errors.OrderRejected, "Rejected": errors.OrderRejected,
    "InsufficientFunds": errors.InsufficientFunds, "AccountViolation": errors.AccountViolation,
    "OutsideTradingHours": errors.OutsideTradingHours, "OrderPending": errors.OrderPending,
    "Pending": errors.OrderPending, "UnknownError": errors.OrderPending, "AccountRejected": errors.AccountRejected,
    "ContractNotActive": errors.ContractNotActive, "InvalidCloseSize": errors.InvalidCloseSize,
}  # fmt: skip
TABLE = {
    "Account/search": "", "Contract/search": "", "Contract/available": "",
    "Contract/searchById": "ContractNotFound",
    "History/retrieveBars": "ContractNotFound UnitInvalid UnitNumberInvalid LimitInvalid",
    "Order/search": "AccountNotFound", "Order/searchOpen": "AccountNotFound", "Order/v2/query": "AccountNotFound",
    "Order/searchById": "OrderNotFound",
    "Order/place": "AccountNotFound OrderRejected InsufficientFunds AccountViolation OutsideTradingHours OrderPending "
                   "UnknownError ContractNotFound ContractNotActive AccountRejected",
    "Order/modify": "AccountNotFound OrderNotFound Rejected Pending UnknownError AccountRejected ContractNotFound",
    "Order/cancel": "AccountNotFound OrderNotFound Rejected Pending UnknownError AccountRejected",
    "Position/searchOpen": "AccountNotFound",
    "Position/closeContract": "AccountNotFound PositionNotFound ContractNotFound ContractNotActive OrderRejected "
                              "OrderPending UnknownError AccountRejected",
    "Position/partialCloseContract": "AccountNotFound PositionNotFound ContractNotFound ContractNotActive "
                                     "InvalidCloseSize OrderRejected OrderPending UnknownError AccountRejected",
    "Trade/search": "AccountNotFound",
}  # fmt: skip
CASES = [(name, code, word) for name, words in TABLE.items() for code, word in enumerate(words.split(), 1)]

# Codes after which the gateway itself does not know: they are looked up, and here nothing answers the look-up.
DOUBTFUL = {"OrderPending", "Pending", "UnknownError"}

MUTATIONS: dict[str, Any] = {
    "Order/place": lambda rooms: rooms.orders.buy(ACCOUNT, MNQ.id, 1),
    "Order/modify": lambda rooms: rooms.orders.modify(ACCOUNT, 1, size=2),
    "Order/cancel": lambda rooms: rooms.orders.cancel(ACCOUNT, 1),
    "Position/closeContract": lambda rooms: rooms.positions.close(ACCOUNT, MNQ),
    "Position/partialCloseContract": lambda rooms: rooms.positions.close_part(ACCOUNT, MNQ, 1),
}


def test_the_table_is_whole() -> None:
    """Every endpoint but login is in the table, with as many codes as the library knows."""
    known = {path: len(names) - 1 for path, names in CODES.items() if not path.startswith("/api/auth/")}
    assert known == {f"/api/{name.lower()}": len(words.split()) for name, words in TABLE.items()}


@pytest.mark.parametrize(("name", "code", "word"), CASES)
def test_each_code_of_each_endpoint(model: GatewayModel, rooms: Rooms, name: str, code: int, word: str) -> None:
    """A failure has the class and the documented name of its code at its endpoint; doubt is looked up."""
    Rooms(model.call, get=str, clock=model.clock).orders.buy(ACCOUNT, MNQ.id, 2)
    setattr(model, "do_" + name.replace("/", "_").lower(), lambda request: (code, None, {}))
    ask = MUTATIONS.get(name) or READS[name][1]
    if name == "Order/cancel" and word in DOUBTFUL:
        model.missing |= {"Order/searchById"}
    if name == "Position/closeContract" and word == "PositionNotFound":
        assert "ALREADY" == ask(rooms).change.name
        return
    expected = errors.OrderStateUnknown if word in DOUBTFUL else NAMED[word]
    with pytest.raises(expected) as caught:
        ask(rooms)
    error = caught.value.__cause__ if word in DOUBTFUL else caught.value
    assert (type(error), code, word) == (NAMED[word], error.error_code, error.error_name) or name == "Order/searchById"


@pytest.mark.parametrize("name", TABLE)
def test_an_undocumented_code(model: GatewayModel, rooms: Rooms, name: str) -> None:
    """A code that nobody knows keeps its number; of a call that changes something it proves nothing."""
    Rooms(model.call, get=str, clock=model.clock).orders.buy(ACCOUNT, MNQ.id, 2)
    setattr(model, "do_" + name.replace("/", "_").lower(), lambda request: (77, None, {}))
    ask = MUTATIONS.get(name) or READS[name][1]
    with pytest.raises(errors.OrderStateUnknown if name in MUTATIONS else errors.PermanentError) as caught:
        ask(rooms)
    error = caught.value.__cause__ if name in MUTATIONS else caught.value
    assert (77, "Code77") == (error.error_code, error.error_name)


def test_ids_are_64_bits(model: GatewayModel, rooms: Rooms) -> None:
    """Ids of orders and trades beyond 2³¹ come through whole."""
    model.ids = iter([2**53 + 1])
    assert 2**53 + 1 == rooms.orders.buy(ACCOUNT, replace(MNQ), 1).id

"""The gateway's words, held against what it says."""

import inspect
import json
import math
import pickle
import types
import typing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType

from topstep_sync import messages, models
from topstep_sync.codes import failure
from topstep_sync.messages import PlaceOrder, PlaceReply, Reply
from topstep_sync.models import (
    Account,
    Action,
    Bar,
    Contract,
    Depth,
    MarketTrade,
    OpenEnum,
    Order,
    OrderSide,
    OrderStatus,
    OrderType,
    Position,
    Quote,
    Record,
    Time,
    Token,
    Trade,
)
from topstep_sync.redact import Secret

GOLDEN = Path(__file__).parent / "golden"
REST = json.loads((GOLDEN / "rest.json").read_text())
HUBS = json.loads((GOLDEN / "hubs.json").read_text())
SCHEMA = json.loads((GOLDEN / "schema.json").read_text())

# Path → what goes there, what comes back.
OPERATIONS: dict[str, tuple[type[Record] | None, type[Reply]]] = {
    "/api/Auth/loginKey": (messages.LoginKey, messages.LoginReply),
    "/api/Auth/loginApp": (messages.LoginApp, messages.LoginReply),
    "/api/Auth/validate": (None, messages.ValidateReply),
    "/api/Auth/logout": (None, messages.Reply),
    "/api/Account/search": (messages.SearchAccounts, messages.AccountsReply),
    "/api/Contract/search": (messages.SearchContracts, messages.ContractsReply),
    "/api/Contract/searchById": (messages.ContractById, messages.ContractReply),
    "/api/Contract/available": (messages.AvailableContracts, messages.ContractsReply),
    "/api/History/retrieveBars": (messages.RetrieveBars, messages.BarsReply),
    "/api/Order/search": (messages.SearchOrders, messages.OrdersReply),
    "/api/Order/searchOpen": (messages.ByAccount, messages.OrdersReply),
    "/api/Order/searchById": (messages.ByOrder, messages.OrderReply),
    "/api/Order/v2/query": (messages.QueryOrders, messages.OrdersReply),
    "/api/Order/place": (messages.PlaceOrder, messages.PlaceReply),
    "/api/Order/modify": (messages.ModifyOrder, messages.Reply),
    "/api/Order/cancel": (messages.ByOrder, messages.Reply),
    "/api/Position/searchOpen": (messages.ByAccount, messages.PositionsReply),
    "/api/Position/closeContract": (messages.ClosePosition, messages.Reply),
    "/api/Position/partialCloseContract": (messages.PartialClosePosition, messages.Reply),
    "/api/Trade/search": (messages.SearchTrades, messages.TradesReply),
}

HUB_RECORDS: dict[str, type[Record]] = {
    "GatewayUserAccount": Account,
    "GatewayUserOrder": Order,
    "GatewayUserPosition": Position,
    "GatewayUserTrade": Trade,
    "GatewayQuote": Quote,
    "GatewayTrade": MarketTrade,
    "GatewayDepth": Depth,
}

RECORDS: dict[str, type[msgspec.Struct]] = {name: getattr(models, name) for name in SCHEMA["records"]}
STRUCTS: list[type[msgspec.Struct]] = [
    value
    for room in (models, messages)
    for value in vars(room).values()
    if inspect.isclass(value) and issubclass(value, msgspec.Struct) and value.__module__ == room.__name__
    if value not in (Token, Record)
]
ENUMS = [cls for cls in OpenEnum.__subclasses__() if cls.__module__ == models.__name__]

# Fields that the gateway sends and this library leaves out: unused, or said by the message's first argument already.
LEFT_OUT = {"GatewayQuote": {"symbolName"}, "GatewayDepth": {"contractId"}}


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Any value that the type *hint* describes."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return st.one_of(*map(strategy, arguments))
    if typing.get_origin(hint) is list:
        return st.lists(strategy(arguments[0]), max_size=3)
    if inspect.isclass(hint) and issubclass(hint, OpenEnum):
        return st.integers(0, 50).map(hint)
    if inspect.isclass(hint) and issubclass(hint, msgspec.Struct):
        return structs(hint)
    return {
        str: st.text(),
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        datetime: st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),
        Time: st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),
        type(None): st.none(),
        UnsetType: st.just(UNSET),
    }[hint]


def structs(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any value of the struct *cls*."""
    return st.builds(cls, **{field.name: strategy(field.type) for field in msgspec.structs.fields(cls)})


def record(name: str, **changes: Any) -> dict[str, Any]:
    """A golden record of REST as JSON, changed."""
    payload = next(entry["reply"] for entry in REST if entry["name"] == name)
    rows = next(value for key, value in payload.items() if isinstance(value, list))
    return {**rows[0], **changes}


def decoded(cls: type[Any], value: Any) -> Any:
    """*value* as JSON, decoded as *cls*."""
    return msgspec.json.decode(json.dumps(value), type=cls)


def same(sent: Any, read: Any) -> bool:
    """Whether *read* says what *sent* said: numbers by value, instants to the microsecond."""
    if isinstance(sent, dict):
        return sent.keys() == read.keys() and all(same(value, read[key]) for key, value in sent.items())
    if isinstance(sent, list):
        return len(sent) == len(read) and all(map(same, sent, read))
    if isinstance(sent, str) and sent[:2] == "20" and "T" in sent:
        return abs(datetime.fromisoformat(sent) - datetime.fromisoformat(read)) <= timedelta(microseconds=1)
    return bool(sent == read)


def demanded(cls: type[msgspec.Struct]) -> dict[str, str]:
    """Field on the wire → whether it must be there."""
    return {f.encode_name: "required" if f.required else "optional" for f in msgspec.structs.fields(cls)}


def named(entry: dict[str, Any]) -> str:
    return str(entry["name"])


class TestGolden:
    @pytest.mark.parametrize("entry", REST, ids=named)
    def test_replies(self, entry: dict[str, Any]) -> None:
        """A reply of the gateway is read, and written again says the same."""
        reply = decoded(OPERATIONS[entry["path"]][1], entry["reply"])
        assert same(entry["reply"], json.loads(msgspec.json.encode(reply)))

    @pytest.mark.parametrize("entry", [e for e in REST if OPERATIONS[e["path"]][0]], ids=named)
    def test_requests(self, entry: dict[str, Any]) -> None:
        """A documented request is what our record of it writes."""
        request = decoded(OPERATIONS[entry["path"]][0] or Record, entry["request"])
        assert same(entry["request"], json.loads(msgspec.json.encode(request)))

    @pytest.mark.parametrize("entry", [e for e in REST if not e["reply"]["success"]], ids=named)
    def test_refusals_become_errors(self, entry: dict[str, Any]) -> None:
        """Each documented refusal has an error with a documented name."""
        error = failure(entry["path"], entry["reply"]["errorCode"], entry["reply"]["errorMessage"])
        assert not str(error.error_name).startswith("Code")

    @pytest.mark.parametrize("entry", HUBS, ids=named)
    def test_hub_records(self, entry: dict[str, Any]) -> None:
        """The record within a hub message, in whatever envelope, is read and written again."""
        cls = HUB_RECORDS[entry["target"]]
        last = entry["arguments"][-1]
        rows = last if isinstance(last, list) else [last]
        for row in [row.get("data", row) for row in rows if row is not None]:
            kept = {key: value for key, value in row.items() if key not in LEFT_OUT.get(entry["target"], ())}
            assert same(kept, json.loads(msgspec.json.encode(decoded(cls, row))))

    def test_every_operation_is_quoted(self) -> None:
        """The golden file has each operation at least once."""
        assert set(SCHEMA["requests"]) == set(OPERATIONS) == {entry["path"] for entry in REST}

    def test_every_target_is_quoted(self) -> None:
        """The golden file has each hub message at least once."""
        assert set(HUB_RECORDS) == {entry["target"] for entry in HUBS}

    @pytest.mark.parametrize("name", RECORDS)
    def test_records_have_the_documented_fields(self, name: str) -> None:
        """Each record has the fields of the contract, required and optional as there."""
        assert SCHEMA["records"][name] == demanded(RECORDS[name])

    @pytest.mark.parametrize("path", [path for path, (request, _) in OPERATIONS.items() if request])
    def test_requests_have_the_documented_fields(self, path: str) -> None:
        """Each request has the fields of the contract, required and optional as there."""
        assert SCHEMA["requests"][path] == demanded(OPERATIONS[path][0] or Record)

    @pytest.mark.parametrize("cls", ENUMS)
    def test_enums_have_the_documented_members(self, cls: type[OpenEnum]) -> None:
        """Each enum has the documented members, numbered from zero."""
        members = [member.name.title().replace("_", "") for member in cls]
        assert SCHEMA["enums"][cls.__name__] == members
        assert list(range(len(members))) == [int(member) for member in cls]


class TestRoundTrip:
    @pytest.mark.parametrize("cls", STRUCTS)
    @settings(max_examples=settings().max_examples // 4)  # of each of some forty structs
    @given(data=st.data())
    def test_what_is_written_is_read(self, cls: type[msgspec.Struct], data: st.DataObject) -> None:
        """Any record, request or reply survives the wire."""
        value = data.draw(structs(cls))
        assert value == msgspec.json.decode(msgspec.json.encode(value), type=cls)

    @pytest.mark.parametrize("cls", [cls for cls in STRUCTS if issubclass(cls, Record)])
    def test_names_on_the_wire(self, cls: type[msgspec.Struct]) -> None:
        """No name on the wire has an underscore, and none here a capital."""
        fields = msgspec.structs.fields(cls)
        assert [] == [f.name for f in fields if "_" in f.encode_name or f.name != f.name.lower()]

    def test_records_pickle(self) -> None:
        """A record travels to another process, unset fields and unknown values included."""
        order = decoded(Order, record("open orders, as the documentation shortens them", status=77))
        assert order == pickle.loads(pickle.dumps(order))


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "microseconds"),
        [
            ("2026-08-03T13:31:31Z", 0),
            ("2026-08-03T13:31:31+00:00", 0),
            ("2026-08-03T13:31:31.3+00:00", 300_000),
            ("2026-08-03T13:31:31.348+00:00", 348_000),
            ("2026-08-03T13:31:31.15673+00:00", 156_730),
            ("2026-08-03T13:31:31.268009+00:00", 268_009),
            ("2026-08-03T13:31:31.4173693+00:00", 417_369),
            ("2026-08-03T13:31:31.417369312Z", 417_369),
        ],
    )
    def test_mixed_precision(self, text: str, microseconds: int) -> None:
        """Whatever number of digits the gateway sends, the instant is right and in UTC."""
        bar = decoded(Bar, {"t": text, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1})
        assert datetime(2026, 8, 3, 13, 31, 31, microseconds, tzinfo=UTC) == bar.t
        assert UTC is bar.t.tzinfo

    def test_the_last_tick_of_a_day(self) -> None:
        """A seventh digit that rounds up does not break at midnight."""
        bar = decoded(Bar, {"t": "2026-12-31T23:59:59.9999999+00:00", "o": 1, "h": 1, "l": 1, "c": 1, "v": 1})
        assert abs(datetime(2027, 1, 1, tzinfo=UTC) - bar.t) <= timedelta(microseconds=1)

    def test_requests_say_z(self) -> None:
        """An aware instant is written in UTC."""
        request = messages.SearchOrders(account_id=704, start_timestamp=datetime(2025, 7, 18, 21, tzinfo=UTC))
        assert b'{"accountId":704,"startTimestamp":"2025-07-18T21:00:00Z"}' == msgspec.json.encode(request)


class TestAbsentNullZero:
    def test_three_different_things(self) -> None:
        """A price that was left out, one that is null and one that is zero are told apart."""
        prices = [decoded(Quote, wire).last_price for wire in ({}, {"lastPrice": None}, {"lastPrice": 0})]
        assert [UNSET, None, 0.0] == prices
        assert [False, False, True] == [models.given(price) for price in prices]

    def test_a_sparse_quote_fakes_no_price(self) -> None:
        """The live quote without a last price has none, rather than zero."""
        quote = decoded(Quote, next(e for e in HUBS if e["name"] == "quote, sparse")["arguments"][1])
        assert (29547.0, 29547.5) == (quote.best_bid, quote.best_ask)
        assert [False] * 3 == [models.given(value) for value in (quote.last_price, quote.volume, quote.open)]

    def test_a_request_sends_what_was_given(self) -> None:
        """An unset price is not sent, a null one is sent as null."""
        order = PlaceOrder(account_id=1, contract_id="c", type=OrderType.MARKET, side=OrderSide.BUY, size=1)
        assert b'{"accountId":1,"contractId":"c","type":2,"side":0,"size":1}' == msgspec.json.encode(order)
        null = msgspec.structs.replace(order, limit_price=None)
        assert msgspec.json.encode(null).endswith(b'"size":1,"limitPrice":null}')

    def test_a_refused_order_may_have_an_id(self) -> None:
        """The id of a refused order's record is kept, and says nothing about success."""
        entry = next(e for e in REST if e["name"] == "place refused, with the id of its record")
        reply = decoded(PlaceReply, entry["reply"])
        assert (False, 2, 9057) == (reply.success, reply.error_code, reply.order_id)

    @pytest.mark.parametrize("missing", ["success", "errorCode"])
    def test_no_envelope_is_no_reply(self, missing: str) -> None:
        """JSON without the envelope is not taken for an answer of the gateway."""
        wire = {"success": True, "errorCode": 0, "errorMessage": None}
        del wire[missing]
        with pytest.raises(msgspec.ValidationError, match=missing):
            decoded(Reply, wire)

    @pytest.mark.parametrize("name", RECORDS)
    def test_a_missing_required_field_is_told(self, name: str) -> None:
        """A record without a required field is refused with the field's name; an optional one may be missing."""
        fields = SCHEMA["records"][name]
        whole = {f.encode_name: f for f in msgspec.structs.fields(RECORDS[name])}
        values = {str: "x", int: 1, float: 1.5, bool: True, Time: "2026-01-01T00:00:00Z"}
        wire = {n: values.get(whole[n].type, 1) for n, kind in fields.items() if kind == "required"}
        decoded(RECORDS[name], wire)
        for field in wire:
            with pytest.raises(msgspec.ValidationError, match=f"missing required field `{field}`"):
                decoded(RECORDS[name], {key: value for key, value in wire.items() if key != field})


class TestEnums:
    @pytest.mark.parametrize("cls", ENUMS)
    @pytest.mark.parametrize("value", [99, -1, 2**40])
    def test_unknown_values_are_kept(self, cls: type[OpenEnum], value: int) -> None:
        """A number nobody documented passes through, with a name that says so."""
        member = decoded(cls, value)
        assert (value, f"UNKNOWN_{value}", cls) == (member, member.name, type(member))
        assert str(value) == msgspec.json.encode(member).decode()
        assert member == pickle.loads(pickle.dumps(member))
        assert {member: 1} == {cls(value): 1}

    @pytest.mark.parametrize("cls", ENUMS)
    def test_unknown_values_add_no_member(self, cls: type[OpenEnum]) -> None:
        """An unknown value does not become one of the documented members."""
        before = list(cls)
        cls(98)
        assert before == list(cls)

    @pytest.mark.parametrize("value", ["buy", None, 1.5])
    def test_what_is_no_number_is_refused(self, value: Any) -> None:
        """Only numbers are values."""
        with pytest.raises(ValueError, match="is not a valid OrderSide"):
            OrderSide(value)

    def test_an_unknown_status_is_not_working(self) -> None:
        """Exactly the documented statuses of a working order are."""
        working = {status for status in [*OrderStatus, OrderStatus(99)] if status.working}
        assert {1, 6, 7, 8} == working

    def test_action_of_the_envelope(self) -> None:
        """The hub's envelope numbers creation, update and removal."""
        assert [0, 1, 2] == [Action.CREATE, Action.UPDATE, Action.DELETE]


class TestNumbers:
    def test_ids_exceed_32_bits(self) -> None:
        """Ids of orders and trades are 64-bit."""
        assert 2**62 == decoded(Order, record("orders", id=2**62)).id

    @pytest.mark.parametrize("text", ["6335.250000000", "6335.25", "6.33525e3"])
    def test_spellings_of_a_price(self, text: str) -> None:
        """Nine decimals, plain numbers and exponents are the same price."""
        wire = json.dumps(record("orders")).replace('"filledPrice": 6335.25', f'"filledPrice": {text}')
        assert 6335.25 == msgspec.json.decode(wire, type=Order).filled_price

    def test_whole_numbers_are_prices(self) -> None:
        """A price without decimals is a float all the same."""
        contract = decoded(Contract, record("contracts"))
        assert (float, 5.0) == (type(contract.tick_value), contract.tick_value)

    def test_the_smallest_tick(self) -> None:
        """A tick of half a millionth is read exactly."""
        assert 5e-7 == decoded(Contract, record("contracts available")).tick_size

    def test_ticks_of_a_contract(self) -> None:
        """A contract knows its prices in ticks, and what a tick is worth."""
        contract = decoded(Contract, record("contracts"))
        assert (84001, 21000.25, 20.0) == (contract.ticks(21000.25), contract.price(84001), contract.money(4))
        assert (True, False) == (contract.aligned(21000.25), contract.aligned(21000.3))

    def test_string_ids_where_tolerated(self) -> None:
        """A decoder that is told to tolerates ids sent as strings, as once seen on the stream."""
        wire = json.dumps(record("orders", id="36598", accountId="704"))
        order = msgspec.json.decode(wire, type=Order, strict=False)
        assert (36598, 704) == (order.id, order.account_id)
        with pytest.raises(msgspec.ValidationError, match="Expected `int`, got `str`"):
            msgspec.json.decode(wire, type=Order)

    def test_new_fields_are_ignored(self) -> None:
        """A field that appears one day does not break anything."""
        assert 1575.75 == decoded(Position, record("positions", novelty={"a": [1]})).average_price


class TestZones:
    TEXTS: typing.ClassVar = [
        "0001-01-01T00:00:00", "2026-08-03T13:31:31.4173693", "9999-12-31T23:59:59.999999", "2026-08-03 13:31:31",
    ]  # fmt: skip

    @pytest.mark.parametrize("text", TEXTS)
    def test_without_a_zone_it_is_utc(self, text: str) -> None:
        """.NET leaves the zone out where it does not know it; it never is that of this machine."""
        order = models.read(record("orders", updateTimestamp=text), Order)
        assert decoded(Order, record("orders", updateTimestamp=f"{text}Z")) == order
        assert isinstance(order.update_timestamp, datetime)
        assert math.isfinite(order.update_timestamp.timestamp())

    def test_a_decoder_gives_none_without_a_zone(self) -> None:
        """Whoever forgets to read in the tolerant way is told, and has no local time."""
        with pytest.raises(msgspec.ValidationError, match="timezone"):
            decoded(Order, record("orders", updateTimestamp=self.TEXTS[0]))

    def test_every_field_of_a_time_is_known(self) -> None:
        """The fields that get a zone are those that are times."""
        fields = [
            field for cls in STRUCTS if cls.__module__ == models.__name__ for field in msgspec.structs.fields(cls)
        ]
        kinds = {field.encode_name: (field.type, *typing.get_args(field.type)) for field in fields}
        times = {name for name, kind in kinds.items() if datetime in kind or Time in kind}
        assert models._TIMES == times == {name for name, kind in kinds.items() if Time in kind}

    def test_a_tag_that_looks_like_a_time_stays_as_it_is(self) -> None:
        """The caller's own words are nobody's to change."""
        tagged = record("orders", updateTimestamp=self.TEXTS[0], customTag=self.TEXTS[0])
        assert self.TEXTS[0] == models.read(tagged, Order).custom_tag

    @pytest.mark.parametrize(
        "value", ["", "x", "0000-01-01T00:00:00", "2026-13-01T00:00:00", "2026-08-03", [], {}, True]
    )
    def test_what_is_no_time_is_refused(self, value: Any) -> None:
        """Anything else is not the contract."""
        with pytest.raises(msgspec.ValidationError):
            models.read(record("orders", updateTimestamp=value), Order)


class TestToken:
    def test_repr_is_masked(self) -> None:
        """A printed token shows its end only."""
        token = Token(Secret("eyJhbGciOiJIUzI1NiJ9.e30.c2ln"), 1, 0.0, math.inf)
        assert "Token(value='****c2ln', generation=1, issued_at=0.0, expires_at=inf)" == repr(token)

    def test_is_frozen(self) -> None:
        """A published token does not change."""
        with pytest.raises(AttributeError):
            Token(Secret("x"), 1, 0.0, 1.0).generation = 2  # type: ignore[misc]

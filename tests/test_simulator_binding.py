"""Which bodies bind, and what the others are told."""

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topstep_sync import messages
from topstep_sync.models import BarUnit, OrderType
from topstep_sync.simulator.binding import Binder, BindingError, acceptable, problem
from topstep_sync.simulator.operations import OPERATIONS

PLACE = Binder(messages.PlaceOrder)
GOOD: dict[str, Any] = {"accountId": 536, "contractId": "x", "type": 2, "side": 0, "size": 1}
REQUIRED = ["The request field is required."]


def errors(binder: Binder, body: str | bytes) -> dict[str, list[str]]:
    """What the body is told; empty when it binds."""
    try:
        binder(body.encode() if isinstance(body, str) else body)
    except BindingError as error:
        return error.errors
    return {}


def test_a_good_body_becomes_the_record() -> None:
    """Fields get their types, enums their members, and what is left out stays unset."""
    bound = PLACE(json.dumps({**GOOD, "limitPrice": 5, "stopLossBracket": {"ticks": -40, "type": 4}}).encode())
    assert messages.PlaceOrder(
        account_id=536, contract_id="x", type=OrderType.MARKET, side=0, size=1, limit_price=5.0,
        stop_loss_bracket=messages.Bracket(ticks=-40, type=OrderType.STOP),
    ) == bound  # fmt: skip
    assert isinstance(bound.type, OrderType)


def test_unknown_enum_values_bind() -> None:
    """An enum is a 32-bit integer to the model; whether it makes sense is the operation's business."""
    assert 99 == PLACE(json.dumps({**GOOD, "type": 99}).encode()).type


@pytest.mark.parametrize(
    ("body", "path", "text"),
    [
        ("", "", "A non-empty request body is required."),
        ("null", "", "A non-empty request body is required."),
        ("[]", "$", "could not be converted to Gateway.PlaceOrder"),
        ("{", "$", "truncated"),
        ('{"accountId":tru}', "$.accountId", "malformed"),
        ('{"accountId":5}x', "$", "malformed"),
        ("{}", "$", "missing required properties including: 'accountId', 'contractId', 'type', 'side', 'size'."),
        (json.dumps({**GOOD, "size": 1.0}), "$.size", "could not be converted to System.Int32. Path: $.size."),
        (json.dumps({**GOOD, "size": True}), "$.size", "System.Int32"),
        (json.dumps({**GOOD, "size": 2**31}), "$.size", "System.Int32"),
        (json.dumps({**GOOD, "contractId": 5}), "$.contractId", "System.String"),
        (json.dumps({**GOOD, "limitPrice": "5"}), "$.limitPrice", "System.Decimal"),
        (json.dumps({**GOOD, "limitPrice": 1e29}), "$.limitPrice", "System.Decimal"),
        (json.dumps({**GOOD, "stopLossBracket": {"ticks": "1"}}), "$.stopLossBracket.ticks", "System.Int32"),
        (json.dumps({**GOOD, "stopLossBracket": {"ticks": 1}}), "$.stopLossBracket", "'type'"),
    ],
)
def test_each_mistake_is_told_under_its_path(body: str, path: str, text: str) -> None:
    """The map of errors names the path and the reason, and the request beside it."""
    told = errors(PLACE, body)
    assert {path, "request"} == set(told)
    assert text in told[path][0]
    assert REQUIRED == told["request"]


def test_a_null_for_a_required_text_or_object_is_a_validation_error() -> None:
    """It is told under the property's own name, without a path."""
    assert {"ContractId": ["The ContractId field is required."]} == errors(
        PLACE, json.dumps({**GOOD, "contractId": None})
    )
    query = Binder(messages.QueryOrders)
    assert {"Filter": ["The Filter field is required."]} == errors(query, '{"filter":null}')


def test_nulls_are_fine_where_optional() -> None:
    """A null for an optional field is null, for a required number a wrong type."""
    assert PLACE(json.dumps({**GOOD, "limitPrice": None}).encode()).limit_price is None
    assert "$.size" in errors(PLACE, json.dumps({**GOOD, "size": None}))


def test_lists_are_told_by_index() -> None:
    """A wrong entry of a list is told under its index."""
    body = {"filter": {"accountId": 1, "statuses": [1, "2"]}}
    assert "$.filter.statuses[1]" in errors(Binder(messages.QueryOrders), json.dumps(body))
    body = {"filter": {"accountId": 1, "statuses": 1}}
    assert "$.filter.statuses" in errors(Binder(messages.QueryOrders), json.dumps(body))


def test_order_ids_have_64_bits_and_others_32() -> None:
    """Ids of orders exceed 2**31, ids of accounts do not."""
    cancel = Binder(messages.ByOrder)
    assert 2**62 == cancel(json.dumps({"accountId": 1, "orderId": 2**62}).encode()).order_id
    assert "$.orderId" in errors(cancel, json.dumps({"accountId": 1, "orderId": 2**63}))
    assert "$.accountId" in errors(cancel, json.dumps({"accountId": 2**31, "orderId": 1}))


@given(st.permutations(list(GOOD)), st.data())
def test_names_match_in_any_case_and_order(names: list[str], data: st.DataObject) -> None:
    """ASP.NET Core's names are case-insensitive, and unknown fields are ignored."""
    body = {data.draw(st.sampled_from([name, name.upper(), name.lower(), name.title()])): GOOD[name] for name in names}
    assert PLACE(json.dumps(GOOD).encode()) == PLACE(json.dumps({"x": 1, **body, "y": {"z": []}}).encode())


def test_the_last_of_two_wins() -> None:
    """A field given twice has its last value."""
    body = json.dumps(GOOD)[:-1] + ',"size":7}'
    assert 7 == PLACE(body.encode()).size


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("application/json", True), ("text/json", True), ("application/x+json", True), ("APPLICATION/JSON", True),
        ("application/json; charset=utf-8", True), ("application/problem+json;x=y", True), (None, False), ("", False),
        ("text/plain", False), ("json", False), ("application/jsonx", False), ("multipart/form-data", False),
    ],
)  # fmt: skip
def test_content_types(kind: str | None, expected: bool) -> None:
    """application/json, text/json and application/*+json are read, nothing else."""
    assert expected == acceptable(kind)


def test_problem_details() -> None:
    """A problem names its section of RFC 9110, and errors only where there are some."""
    whole = json.loads(problem(400, "Bad", "15.5.1", "trace", {"$": ["x"]}))
    assert {
        "type": "https://tools.ietf.org/html/rfc9110#section-15.5.1", "title": "Bad", "status": 400,
        "errors": {"$": ["x"]}, "traceId": "trace",
    } == whole  # fmt: skip
    assert "errors" not in json.loads(problem(415, "Unsupported Media Type", "15.5.16", "trace"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
BINDERS = [operation.binder for operation in OPERATIONS.values() if operation.binder]
EXAMPLES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 300


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(BINDERS), st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()))
def test_no_body_breaks_the_binding(binder: Binder, body: bytes) -> None:
    """Whatever comes either binds or is told why not, in a map of texts."""
    told = errors(binder, body)
    assert all(isinstance(text, str) for texts in told.values() for text in texts)
    assert told == json.loads(problem(400, "Bad", "15.5.1", "trace", told))["errors"]
    if not told:
        assert isinstance(binder(body), binder.record)


def test_bar_units_are_members() -> None:
    """Enums of a request can be compared with the words of `models`."""
    binder = OPERATIONS["/api/history/retrievebars"].binder
    assert binder is not None
    body = {
        "contractId": "x", "live": False, "startTime": "2026-01-01", "endTime": "2026-01-02T00:00:00Z", "unit": 2,
        "unitNumber": 1, "limit": 1, "includePartialBar": False,
    }  # fmt: skip
    assert BarUnit.MINUTE is binder(json.dumps(body).encode()).unit

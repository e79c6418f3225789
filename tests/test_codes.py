"""What an errorCode means, endpoint by endpoint."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync import errors
from topstep_sync.codes import CODES, code_name, failure, normalise
from topstep_sync.errors import Category, Fate, PermanentError

HERE = Path(__file__).parent
GOLDEN = {k: v for k, v in json.loads((HERE / "golden" / "codes.json").read_text()).items() if k != "source"}
REFERENCE = HERE.parent.parent / "shared" / "gateway-api.md"

ENUM_OF = {
    "/api/Auth/loginKey": "LoginErrorCode",
    "/api/Auth/loginApp": "LoginErrorCode",
    "/api/Auth/validate": "ValidateErrorCode",
    "/api/Auth/logout": "LogoutErrorCode",
    "/api/Account/search": "SearchAccountErrorCode",
    "/api/Contract/search": "SearchContractErrorCode",
    "/api/Contract/searchById": "SearchContractByIdErrorCode",
    "/api/Contract/available": "ListAvailableContractErrorCode",
    "/api/History/retrieveBars": "RetrieveBarErrorCode",
    "/api/Order/search": "SearchOrderErrorCode",
    "/api/Order/searchOpen": "SearchOrderErrorCode",
    "/api/Order/v2/query": "SearchOrderErrorCode",
    "/api/Order/searchById": "SearchOrderByIdErrorCode",
    "/api/Order/place": "PlaceOrderErrorCode",
    "/api/Order/modify": "ModifyOrderErrorCode",
    "/api/Order/cancel": "CancelOrderErrorCode",
    "/api/Position/searchOpen": "SearchPositionErrorCode",
    "/api/Position/closeContract": "ClosePositionErrorCode",
    "/api/Position/partialCloseContract": "PartialClosePositionErrorCode",
    "/api/Trade/search": "SearchTradeErrorCode",
}

ALL = [(path, code, name) for path, enum in ENUM_OF.items() for code, name in enumerate(GOLDEN[enum])]

# Source: gateway-api.md 2.2: answers after which nobody knows what happened.
AMBIGUOUS = {
    ("/api/Order/place", 6), ("/api/Order/place", 7),
    ("/api/Order/modify", 4), ("/api/Order/modify", 5),
    ("/api/Order/cancel", 4), ("/api/Order/cancel", 5),
    ("/api/Position/closeContract", 6), ("/api/Position/closeContract", 7),
    ("/api/Position/partialCloseContract", 7), ("/api/Position/partialCloseContract", 8),
}  # fmt: skip

MUTATIONS = sorted({path for path, _ in AMBIGUOUS})


def quoted() -> dict[str, list[str]]:
    """The table of the reference document: enum → names in order of their numbers."""
    found = {}
    for enums, values in re.findall(
        r"^\| ((?:\w+ErrorCode)[^|]*)\| (0 Success[^|]*)\|", REFERENCE.read_text(), re.MULTILINE
    ):
        names = re.findall(r"\d+ (\w+)", values)
        for enum in re.findall(r"\w+ErrorCode", enums):
            found[enum] = names
    return found


def test_every_endpoint_has_its_codes() -> None:
    """The table has the endpoints of the documentation, and no other."""
    assert {normalise(path) for path in ENUM_OF} == set(CODES)


@pytest.mark.parametrize(("path", "enum"), ENUM_OF.items())
def test_codes_are_the_documented_ones(path: str, enum: str) -> None:
    """Each endpoint's codes are those of its documented enum, in order."""
    assert GOLDEN[enum] == list(CODES[normalise(path)])


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference document is not beside this checkout")
def test_golden_codes_are_the_reference() -> None:
    """The golden copy says what the reference document says."""
    assert quoted() == GOLDEN


@pytest.mark.parametrize(("path", "code", "name"), ALL)
def test_names(path: str, code: int, name: str) -> None:
    """A number has its documented name at its endpoint, in whatever case the path is written."""
    assert {name} == {code_name(path, code), code_name(path.lower(), code), code_name(f"{path.upper()}/?x=1", code)}


@given(path=st.sampled_from(sorted(ENUM_OF)) | st.text(), code=st.integers())
def test_any_code_has_a_name_and_an_error(path: str, code: int) -> None:
    """A code that is not documented still gives an error that says where and which."""
    error = failure(path, code)
    assert (code, path, 200) == (error.error_code, error.endpoint, error.status_code)
    assert code_name(path, code) in str(error)


@pytest.mark.parametrize(("path", "code", "name"), [a for a in ALL if a[1] > 0])
def test_fate(path: str, code: int, name: str) -> None:
    """The documented ambiguous answers are of unknown fate, all others refused."""
    error = failure(path, code)
    assert ((path, code) in AMBIGUOUS) == (error.fate is Fate.UNKNOWN)
    assert not error.retryable


@pytest.mark.parametrize("path", MUTATIONS)
def test_an_undocumented_code_of_a_mutation_proves_nothing(path: str) -> None:
    """A new code after an order is no proof that nothing happened."""
    assert (errors.OrderPending, "Code99") == (type(failure(path, 99)), failure(path, 99).error_name)


def test_an_undocumented_code_of_a_search_is_a_refusal() -> None:
    """A new code where nothing can have happened is a refusal."""
    assert (PermanentError, Fate.REFUSED) == (
        type(failure("/api/Trade/search", 99)),
        failure("/api/Trade/search", 99).fate,
    )


@pytest.mark.parametrize(
    ("path", "code", "cls"),
    [
        ("/api/Auth/loginKey", 3, errors.AuthenticationError),
        ("/api/Auth/validate", 4, errors.AuthenticationError),
        ("/api/Auth/logout", 2, errors.AuthenticationError),
        ("/api/Order/search", 1, errors.AccountNotFound),
        ("/api/Contract/searchById", 1, errors.ContractNotFound),
        ("/api/Order/searchById", 1, errors.OrderNotFound),
        ("/api/Position/closeContract", 2, errors.PositionNotFound),
        ("/api/History/retrieveBars", 2, errors.BadBarRequest),
        ("/api/History/retrieveBars", 3, errors.BadBarRequest),
        ("/api/History/retrieveBars", 4, errors.BadBarRequest),
        ("/api/Order/place", 2, errors.OrderRejected),
        ("/api/Order/modify", 3, errors.OrderRejected),
        ("/api/Order/place", 3, errors.InsufficientFunds),
        ("/api/Order/place", 4, errors.AccountViolation),
        ("/api/Order/place", 5, errors.OutsideTradingHours),
        ("/api/Order/place", 9, errors.ContractNotActive),
        ("/api/Order/cancel", 6, errors.AccountRejected),
        ("/api/Position/partialCloseContract", 5, errors.InvalidCloseSize),
        ("/api/Order/place", 6, errors.OrderPending),
    ],
)
def test_classes(path: str, code: int, cls: type[Exception]) -> None:
    """What a handler would want to tell apart has its own class."""
    assert cls is type(failure(path, code))


# Source: gateway-api.md 2.2: the name of a code → what a handler gets. After an unknown error it may have happened.
CLASS_OF = {
    "AccountNotFound": errors.AccountNotFound, "ContractNotFound": errors.ContractNotFound,
    "OrderNotFound": errors.OrderNotFound, "PositionNotFound": errors.PositionNotFound,
    "UnitInvalid": errors.BadBarRequest, "UnitNumberInvalid": errors.BadBarRequest,
    "LimitInvalid": errors.BadBarRequest, "OrderRejected": errors.OrderRejected, "Rejected": errors.OrderRejected,
    "InsufficientFunds": errors.InsufficientFunds, "AccountViolation": errors.AccountViolation,
    "OutsideTradingHours": errors.OutsideTradingHours, "OrderPending": errors.OrderPending,
    "Pending": errors.OrderPending, "UnknownError": errors.OrderPending, "ContractNotActive": errors.ContractNotActive,
    "AccountRejected": errors.AccountRejected, "InvalidCloseSize": errors.InvalidCloseSize,
}  # fmt: skip


@pytest.mark.parametrize(("path", "code", "name"), [entry for entry in ALL if entry[1] > 0])
def test_every_code_has_its_class(path: str, code: int, name: str) -> None:
    """At every endpoint every code raises the class of its meaning; those of a login are all about authentication."""
    expected = errors.AuthenticationError if path.startswith("/api/Auth/") else CLASS_OF[name]
    assert expected is type(failure(path, code))


# Source: gateway-api.md 2.3, the texts of code 2 (place) and 3 (modify).
@pytest.mark.parametrize(
    ("text", "cls"),
    [
        ("Specified custom tag is already in use", errors.DuplicateCustomTag),
        ("SPECIFIED CUSTOM TAG IS ALREADY IN USE.", errors.DuplicateCustomTag),
        (
            "Trading is currently unavailable. The instrument is not in an active trading status.",
            errors.OutsideTradingHours,
        ),
        ("Outside of trading hours.", errors.OutsideTradingHours),
        ("Not enough margin.", errors.InsufficientFunds),
        (
            "Brackets cannot be used with Position Brackets. You must enable Auto OCO Brackets.",
            errors.BracketRejected,
        ),
        ("Invalid stop loss ticks (40). Ticks should be less than zero when longing.", errors.BracketRejected),
        ("Invalid take profit ticks (30). Ticks should be less than zero when going short.", errors.BracketRejected),
        ("Stop loss tick value should be at least 4 ticks.", errors.BracketRejected),
        ("Invalid stop loss type (Limit)", errors.BracketRejected),
        ("Invalid trail price. Price is not aligned to tick size.", errors.OrderRejected),
        ("Invalid symbol", errors.OrderRejected),
    ],
)
def test_the_text_tells_where_the_code_does_not(text: str, cls: type[Exception]) -> None:
    """A plain rejection is told apart by the gateway's text, and the text is kept."""
    error = failure("/api/Order/place", 2, text, order_id=9057)
    assert (cls, text, 9057) == (type(error), error.error_message, error.order_id)  # type: ignore[attr-defined]
    assert text in str(error)


@pytest.mark.parametrize("code", [1, 3, 7, 9, 10])
def test_a_refused_login_says_what_to_do(code: int) -> None:
    """The user learns what to check, because the gateway mostly says nothing."""
    error = failure("/api/Auth/loginKey", code)
    assert (Category.AUTH, True) == (error.category, "; " in str(error))


@pytest.mark.parametrize(
    ("path", "code", "advice"),
    [
        ("/api/Order/place", 8, r"front_month\('MNQ'\) finds it"), ("/api/Order/place", 9, "the month has expired"),
        ("/api/Order/place", 4, "daily loss limit"), ("/api/Order/place", 10, "may not trade"),
        ("/api/Trade/search", 1, "only_active=False"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do(path: str, code: int, advice: str) -> None:
    """What the gateway leaves unsaid is in the message."""
    assert re.search(advice, str(failure(path, code)))

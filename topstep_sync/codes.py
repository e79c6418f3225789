"""What an `errorCode` means, endpoint by endpoint. The same number means different things at different endpoints.

Source: swagger of 2025-09 and 2026-09, which agree.
"""

from collections.abc import Mapping
from typing import Final

from topstep_sync import errors

_LOGIN: Final = (
    "Success", "UserNotFound", "PasswordVerificationFailed", "InvalidCredentials", "AppNotFound",
    "AppVerificationFailed", "InvalidDevice", "AgreementsNotSigned", "UnknownError", "ApiSubscriptionNotFound",
    "ApiKeyAuthenticationDisabled",
)  # fmt: skip
_ACCOUNT: Final = ("Success", "AccountNotFound")
_ORDER: Final = (
    "Success",
    "AccountNotFound",
    "OrderNotFound",
    "Rejected",
    "Pending",
    "UnknownError",
    "AccountRejected",
)

CODES: Final[Mapping[str, tuple[str, ...]]] = {
    "/api/auth/loginkey": _LOGIN,
    "/api/auth/loginapp": _LOGIN,
    "/api/auth/validate": ("Success", "InvalidSession", "SessionNotFound", "ExpiredToken", "UnknownError"),
    "/api/auth/logout": ("Success", "InvalidSession", "UnknownError"),
    "/api/account/search": ("Success",),
    "/api/contract/search": ("Success",),
    "/api/contract/available": ("Success",),
    "/api/contract/searchbyid": ("Success", "ContractNotFound"),
    "/api/history/retrievebars": ("Success", "ContractNotFound", "UnitInvalid", "UnitNumberInvalid", "LimitInvalid"),
    "/api/order/search": _ACCOUNT,
    "/api/order/searchopen": _ACCOUNT,
    "/api/order/v2/query": _ACCOUNT,
    "/api/order/searchbyid": ("Success", "OrderNotFound"),
    "/api/order/place": (
        "Success", "AccountNotFound", "OrderRejected", "InsufficientFunds", "AccountViolation", "OutsideTradingHours",
        "OrderPending", "UnknownError", "ContractNotFound", "ContractNotActive", "AccountRejected",
    ),
    "/api/order/modify": (*_ORDER, "ContractNotFound"),
    "/api/order/cancel": _ORDER,
    "/api/position/searchopen": _ACCOUNT,
    "/api/position/closecontract": (
        "Success", "AccountNotFound", "PositionNotFound", "ContractNotFound", "ContractNotActive", "OrderRejected",
        "OrderPending", "UnknownError", "AccountRejected",
    ),
    "/api/position/partialclosecontract": (
        "Success", "AccountNotFound", "PositionNotFound", "ContractNotFound", "ContractNotActive", "InvalidCloseSize",
        "OrderRejected", "OrderPending", "UnknownError", "AccountRejected",
    ),
    "/api/trade/search": _ACCOUNT,
}  # fmt: skip
"""Lower-case path → the documented name of each code, by its number."""

_AUTH: Final = "/api/auth/"
_MUTATIONS: Final = (
    "/api/order/place", "/api/order/modify", "/api/order/cancel",
    "/api/position/closecontract", "/api/position/partialclosecontract",
)  # fmt: skip

_CLASSES: Final[Mapping[str, type[errors.PermanentError]]] = {
    "AccountNotFound": errors.AccountNotFound,
    "ContractNotFound": errors.ContractNotFound,
    "OrderNotFound": errors.OrderNotFound,
    "PositionNotFound": errors.PositionNotFound,
    "UnitInvalid": errors.BadBarRequest,
    "UnitNumberInvalid": errors.BadBarRequest,
    "LimitInvalid": errors.BadBarRequest,
    "OrderRejected": errors.OrderRejected,
    "Rejected": errors.OrderRejected,
    "InsufficientFunds": errors.InsufficientFunds,
    "AccountViolation": errors.AccountViolation,
    "OutsideTradingHours": errors.OutsideTradingHours,
    "OrderPending": errors.OrderPending,
    "Pending": errors.OrderPending,
    "ContractNotActive": errors.ContractNotActive,
    "AccountRejected": errors.AccountRejected,
    "InvalidCloseSize": errors.InvalidCloseSize,
}

# The gateway reports these as a plain OrderRejected (code 2); only its text tells. Seen in the field, 2025 and 2026.
_BY_TEXT: Final = (
    ("custom tag is already in use", errors.DuplicateCustomTag),
    ("not in an active trading status", errors.OutsideTradingHours),
    ("outside of trading hours", errors.OutsideTradingHours),
    ("not enough margin", errors.InsufficientFunds),
    ("bracket", errors.BracketRejected),
    ("invalid stop loss", errors.BracketRejected),
    ("stop loss tick", errors.BracketRejected),
    ("invalid take profit", errors.BracketRejected),
)

# What the user can do about a refusal; the gateway itself mostly says nothing.
_ADVICE: Final[Mapping[str, str]] = {
    "UserNotFound": "check TOPSTEP_USERNAME: it is the platform login, not the e-mail address",
    "InvalidCredentials": "check TOPSTEP_USERNAME (the platform login, not the e-mail address) and TOPSTEP_API_KEY",
    "AgreementsNotSigned": "log in to the ProjectX platform once and complete the required agreements",
    "ApiSubscriptionNotFound": "the user has no API subscription; buy it in the platform's settings",
    "AccountNotFound": "session.accounts.search(only_active=False) lists the user's accounts",
    "AccountRejected": "the account may not trade just now (can_trade), or not through the API: live, follower",
    "AccountViolation": "the account has broken a rule, such as its daily loss limit, and takes no new orders",
    "ContractNotFound": "an id is like CON.F.US.MNQ.Z26; session.contracts.front_month('MNQ') finds it",
    "ContractNotActive": "the month has expired; session.contracts.front_month finds the one that trades now",
    "ApiKeyAuthenticationDisabled": "logging in by API key is disabled for this user; ask the gateway's support",
}


def normalise(path: str) -> str:
    """*path* as the tables have it: the gateway's routes match in any case, and its own documentation mixes them."""
    return path.partition("?")[0].rstrip("/").lower()


def code_name(path: str, code: int) -> str:
    """The documented name of *code* at *path*; `Code<n>` for one that is not documented."""
    names = CODES.get(normalise(path), ())
    return names[code] if 0 <= code < len(names) else f"Code{code}"


def failure(path: str, code: int, message: str | None = None, **facts: object) -> errors.PermanentError:
    """The error for a reply of HTTP 200 with `success: false`.

    Args:
        path: the endpoint, in any case.
        code: the envelope's `errorCode`.
        message: the envelope's `errorMessage`; usually null.
        facts: further attributes of the error.
    """
    key = normalise(path)
    name = code_name(key, code)
    cls = _class_for(key, name, message)
    text = f"{path}: {name}"
    if message:
        text += f" ({message})"
    if name in _ADVICE:
        text += f"; {_ADVICE[name]}"
    error = cls(text, endpoint=path, status_code=200, error_code=code, error_name=name, error_message=message)
    for fact, value in facts.items():
        setattr(error, fact, value)
    return error


def _class_for(key: str, name: str, message: str | None) -> type[errors.PermanentError]:
    if key.startswith(_AUTH):
        return errors.AuthenticationError
    cls = _CLASSES.get(name)
    if cls is errors.OrderRejected and message:
        return next((better for text, better in _BY_TEXT if text in message.lower()), cls)
    if cls is not None:
        return cls
    # An undocumented code of a mutation is no proof that nothing happened.
    return errors.OrderPending if key in _MUTATIONS else errors.PermanentError

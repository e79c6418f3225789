"""What a setting may be: each check says what it expected, or `None` where the value fits."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from topstep_sync.errors import ConfigError

EXAMPLE: Final = "https://api.topstepx.com"

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def positive(value: Any) -> str | None:
    return None if value > 0 else "a number above 0"


def not_negative(value: Any) -> str | None:
    return None if value >= 0 else "a number of 0 or more"


def share(value: Any) -> str | None:
    return None if 0 <= value <= 1 else "a share from 0.0 to 1.0"


def delays(value: Any) -> str | None:
    return None if value and all(v >= 0 for v in value) else "a list of delays of 0 or more seconds"


def time_of_day(value: Any) -> str | None:
    return None if re.fullmatch(r"([01]?\d|2[0-3])(:[0-5]\d)?", value) else "a time of day such as 15:10"


def checked_url(url: str, name: str) -> str:
    """*url* without a trailing slash, if it is https (or http to this machine) and carries nothing else.

    Raises:
        ConfigError: what is wrong with it, and what was expected.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{name} is not a URL ({error}); expected something like {EXAMPLE}") from None
    if parts.scheme not in ("http", "https") or not host or not host.isascii() or " " in url or "\\" in url:
        raise ConfigError(f"{name} is not an http(s) URL; expected something like {EXAMPLE}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{name} must not carry credentials, a query or a fragment")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ConfigError(f"{name} is plain http to {host}; tokens travel over https only, except to 127.0.0.1")
    return url.rstrip("/")

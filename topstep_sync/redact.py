"""Secrets that do not show: a string type with a masked repr, and a filter for text that leaves the library."""

import logging
import re
from typing import Any, Final, NoReturn, Self

# What gives a secret away, and the secret. A JWT shows wherever it stands; the others by what a URL, a header, a JSON
# body or a repr calls them.
_PATTERNS: Final = (
    re.compile(r"()(eyJ[\w-]{4,}\.[\w-]+\.[\w-]*)"),
    re.compile(r"(?i)(access_token(?:=|%3D))([^&\s'\"]+)"),
    re.compile(r"(?i)(\bbearer\s+)([^\s'\",]+)"),
    re.compile(
        r"(?i)(\b(?:api_?key|password|passphrase|verify_?key|(?:new_?)?token)\\?[\"']?\s*[:=]\s*\\?[\"'])([^\"'\\]+)"
    ),
)


class Secret(str):
    """A string whose repr shows its last four characters at most.

    It *is* the text wherever text is asked for (`str()`, f-strings, concatenation, headers), so code that uses it
    needs no unwrapping; what it does not do is show up in a repr, in a traceback's locals or in a pickle.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{mask(self)}'"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret is not pickled; send it by a channel of its own")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def reveal(self) -> str:
        """The plain `str`, for libraries that accept no subclass."""
        return str.__str__(self)


class SecretBytes(bytes):
    """Bytes with a token or a key in them: a `Secret` on its way over the wire, or as a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} secret bytes>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret is not pickled; send it by a channel of its own")


def mask(text: str) -> str:
    """*text* hidden but for its last four characters; wholly hidden when it is short. A masked text stays as it is."""
    if text.startswith("****"):
        return text[:8]
    return f"****{text[-4:]}" if len(text) >= 12 else "****"


def redact(text: str) -> str:
    """*text* with everything that looks like a token or a key masked."""
    for pattern in _PATTERNS:
        text = pattern.sub(lambda found: found[1] + mask(found[2]), text)
    return text


_FORMATTER: Final = logging.Formatter()


class RedactingFilter(logging.Filter):
    """Masks tokens in every record that passes; attached to the loggers of this library and of its libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        message: str | None = None
        try:
            message = record.getMessage()
            clean = redact(message)
        except (TypeError, ValueError, KeyError):
            # Arguments that do not fit the format; logging itself would print them to stderr as they are.
            clean = redact(f"{record.msg} {record.args!r}")
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            # Formatters print this text if it is there, instead of making their own.
            record.exc_text = redact(_FORMATTER.formatException(record.exc_info))
        return True


# A logger's filter sees what is logged by it, and not what its children pass up; so each room's logger has one.
ROOMS: Final = (
    "api", "auth", "compat", "history", "http", "notebook", "orders", "realtime", "recordings", "session", "simulator",
)  # fmt: skip

logging.getLogger("topstep_sync").addHandler(logging.NullHandler())
for _room in ROOMS:
    logging.getLogger(f"topstep_sync.{_room}").addFilter(RedactingFilter())

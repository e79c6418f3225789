"""Secrets that do not show: a string type with a masked repr, and a filter for text that leaves the library."""

import logging
import re
from typing import Any, Final, NoReturn

# A JWT anywhere in a text, whatever surrounds it; and whatever a URL or a header calls a token.
_PATTERNS: Final = (
    re.compile(r"eyJ[\w-]{4,}\.[\w-]+\.[\w-]*"),
    re.compile(r"(?i)(?<=access_token=)[^&\s'\"]+"),
    re.compile(r"(?i)(?<=bearer )[^\s'\",]+"),
    re.compile(r"(?i)(?<=\"apikey\":\")[^\"]+"),
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

    def reveal(self) -> str:
        """The plain `str`, for libraries that accept no subclass."""
        return str.__str__(self)


def mask(text: str) -> str:
    """*text* hidden but for its last four characters; wholly hidden when it is short."""
    return f"****{text[-4:]}" if len(text) >= 12 else "****"


def redact(text: str) -> str:
    """*text* with everything that looks like a token or a key masked."""
    for pattern in _PATTERNS:
        text = pattern.sub(lambda found: mask(found[0]), text)
    return text


class RedactingFilter(logging.Filter):
    """Masks tokens in every record that passes; attached to the loggers of this library and of its libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        return True

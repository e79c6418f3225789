"""What every error of this library says about itself; the errors are in `errors`."""

import enum
from typing import Any


class Category(enum.StrEnum):
    """What kind of trouble an error is; the six of ERR-001."""

    AUTH = "auth"
    CLIENT = "client"
    SERVER = "server"
    NETWORK = "network"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"


class Fate(enum.Enum):
    """What became of the request."""

    NOT_SENT = "not_sent"  # refused here: safe to repeat
    REFUSED = "refused"  # the gateway said no and did nothing
    UNKNOWN = "unknown"  # it may have run: look it up before repeating


class TopstepError(Exception):
    """Root of everything this library raises."""

    category: Category = Category.CLIENT
    """What kind of trouble it is."""
    retryable: bool = False
    """Whether the same call may simply be made again."""
    fate: Fate = Fate.NOT_SENT
    """What became of the request."""
    attempts: int = 0
    """How many times the request left this process."""
    retry_after: float | None = None
    """Seconds until a repetition makes sense, where known."""
    endpoint: str | None = None
    """The gateway's path, such as ``/api/Order/place``."""
    custom_tag: str | None = None
    """The tag of the order it is about, where there is one: what ``orders.verify`` takes."""

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        for name, value in facts.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no fact named {name!r}")
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # Requests and responses carry the bearer; an error that travels to another process leaves them behind.
        facts = {k: v for k, v in self.__dict__.items() if k not in ("request", "response")}
        return _rebuild, (type(self), self.args, facts)


def _rebuild(cls: type[TopstepError], args: tuple[Any, ...], facts: dict[str, Any]) -> TopstepError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error

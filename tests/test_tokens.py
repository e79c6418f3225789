"""Where a connection gets its tokens."""

from typing import Any

import pytest

from topstep_sync.errors import AuthenticationError
from topstep_sync.models import Token
from topstep_sync.realtime.tokens import NoTokens, token_source
from topstep_sync.redact import Secret


class Specified:
    """A token manager as the specification has it: only `get_token`."""

    def __init__(self, *values: str) -> None:
        self.values = list(values)

    def get_token(self) -> str:
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]


def test_a_token_manager_is_taken_as_it_is() -> None:
    """What has `token` and `rejected` is asked directly."""

    class Manager:
        def token(self) -> None: ...
        def rejected(self, token: Token) -> None: ...

    manager = Manager()
    assert manager is token_source(manager)


@pytest.mark.parametrize("source", [Specified("a", "b"), iter("ab").__next__])
def test_functions_and_specified_managers_are_adapted(source: Any) -> None:
    """Each call asks again, so a refused token is followed by the next one."""
    tokens = token_source(source)
    first = tokens.token()
    assert first is not None
    assert ("a", "b") == (first.value, tokens.rejected(first).value)


def test_a_source_with_one_token_only() -> None:
    """When the refused token is the only one there is, that is told."""
    for source in ("constant", Specified("constant")):
        tokens = token_source(source)
        first = tokens.token()
        assert first is not None
        with pytest.raises(AuthenticationError, match="log in again"):
            tokens.rejected(first)


def test_no_tokens_at_all() -> None:
    """A hub that wants none gets none; one that does is told so."""
    tokens = token_source(None)
    assert (True, None) == (isinstance(tokens, NoTokens), tokens.token())
    with pytest.raises(AuthenticationError, match="without any"):
        tokens.rejected(Token(Secret("x"), 1, 0.0, 0.0))
    with pytest.raises(TypeError, match="gives no tokens"):
        token_source(7)

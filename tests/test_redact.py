"""Secrets do not show."""

import copy
import io
import json
import logging
import pickle
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import topstep_sync
from topstep_sync.redact import ROOMS, RedactingFilter, Secret, SecretBytes, mask, redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3OTAwMDAwMDB9.c2lnbmF0dXJlLWhlcmU"
KEY = "a1B2c3D4e5F6g7H8"


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger with the filter, and what it prints."""
    text = io.StringIO()
    logger = logging.Logger("topstep_sync.test")
    logger.addFilter(RedactingFilter())
    logger.addHandler(logging.StreamHandler(text))
    yield logger, text
    logger.handlers.clear()


class TestSecret:
    def test_is_the_text(self) -> None:
        """Where text is asked for, it is the plain text."""
        secret = Secret(KEY)
        assert (KEY, KEY, f"Bearer {KEY}") == (secret, f"{secret}", "Bearer " + secret)
        assert (str, KEY) == (type(secret.reveal()), secret.reveal())

    def test_repr_shows_the_end_only(self) -> None:
        """A repr, also within a container, shows four characters."""
        assert ("'****g7H8'", "['****g7H8']") == (repr(Secret(KEY)), f"{[Secret(KEY)]}")

    def test_a_short_one_shows_nothing(self) -> None:
        """Four characters of a short secret would be too much."""
        assert "'****'" == repr(Secret("swordfish"))

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_is_not_pickled(self, protocol: int) -> None:
        """A pickle that would hold a secret is refused."""
        with pytest.raises(TypeError, match="a secret is not pickled"):
            pickle.dumps({"key": Secret(KEY)}, protocol)

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
    def test_copies_are_itself(self, again: object) -> None:
        """Copying what holds a secret works, and the copy is masked like the original."""
        secret = Secret(KEY)
        assert secret is again(secret)  # type: ignore[operator]
        held = {"key": secret}
        assert (held, Secret) == (again(held), type(again(held)["key"]))  # type: ignore[operator]

    def test_does_not_show_in_a_traceback(self) -> None:
        """Frames that show their variables show the mask."""
        secret = Secret(KEY)
        try:
            raise ValueError(f"wrong: {secret!r}")
        except ValueError as error:
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        text = "".join(shown.format())
        # The source line itself names the variable, not its value.
        assert ("****g7H8" in text, KEY in text) == (True, False)


class TestSecretBytes:
    def test_is_the_bytes(self) -> None:
        """On the wire they are plain bytes."""
        assert b"Bearer x" == b"Bearer " + SecretBytes(b"x")

    def test_repr_shows_the_length_only(self) -> None:
        """A repr, also within a container, says how many and nothing else."""
        assert "[<16 secret bytes>]" == repr([SecretBytes(KEY.encode())])

    def test_is_not_pickled(self) -> None:
        """A pickle that would hold them is refused."""
        with pytest.raises(TypeError, match="a secret is not pickled"):
            pickle.dumps([SecretBytes(b"x")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing to hide: 5 orders at 21000.25", "nothing to hide: 5 orders at 21000.25"),
        (f"token {JWT} refused", "token ****lcmU refused"),
        ("GET /hubs/user?access_token=abcdefghijkl&id=5", "GET /hubs/user?access_token=****ijkl&id=5"),
        ("GET /hubs/user?access_token=abc HTTP/1.1", "GET /hubs/user?access_token=**** HTTP/1.1"),
        ("url%3Faccess_token%3Dabcdefghijkl", "url%3Faccess_token%3D****ijkl"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ****ijkl"),
        ("{'authorization': 'bearer abcdefghijkl'}", "{'authorization': 'bearer ****ijkl'}"),
        (json.dumps({"userName": "joe", "apiKey": KEY}), '{"userName": "joe", "apiKey": "****g7H8"}'),
        (f'{{"userName":"joe","apiKey":"{KEY}"}}', '{"userName":"joe","apiKey":"****g7H8"}'),
        (f"LoginKey(user_name='joe', api_key='{KEY}')", "LoginKey(user_name='joe', api_key='****g7H8')"),
        (json.dumps(json.dumps({"apiKey": KEY})), '"{\\"apiKey\\": \\"****g7H8\\"}"'),
        ('{"newToken": "opaque-opaque-1234"}', '{"newToken": "****1234"}'),
        ('{"password": "hunter2"}', '{"password": "****"}'),
    ],
)
def test_redact(text: str, expected: str) -> None:
    """Whatever names a secret keeps its name, and loses all but the secret's end."""
    assert expected == redact(text)


@given(before=st.text(), after=st.text())
def test_a_jwt_never_survives(before: str, after: str) -> None:
    """A JWT is masked whatever stands around it."""
    assert JWT not in redact(f"{before} {JWT} {after}")


@given(st.text())
def test_redact_twice_is_redact_once(text: str) -> None:
    """A text that is clean stays as it is."""
    once = redact(f"apiKey: '{KEY}' {text} {JWT}")
    assert once == redact(once)


@given(st.text(min_size=12))
def test_mask_shows_four_characters(text: str) -> None:
    """A mask has eight characters, of which the last four are the secret's."""
    assert 8 == len(mask(text))


class TestFilter:
    def test_masks_message_and_arguments(self, log: tuple[logging.Logger, io.StringIO]) -> None:
        """A token is masked in the message as well as in its arguments."""
        logger, text = log
        logger.warning("Bearer abcdefghijkl and %s", JWT)
        assert "Bearer ****ijkl and ****lcmU\n" == text.getvalue()

    def test_leaves_clean_records_alone(self, log: tuple[logging.Logger, io.StringIO]) -> None:
        """A record without a secret keeps its template, by which tools group."""
        record = logging.LogRecord("x", logging.INFO, "f", 1, "%d orders", (5,), None)
        assert RedactingFilter().filter(record)
        assert ("%d orders", (5,)) == (record.msg, record.args)

    def test_masks_exceptions(self, log: tuple[logging.Logger, io.StringIO]) -> None:
        """A token in the text of a logged exception is masked, the traceback stays."""
        logger, text = log
        try:
            raise ValueError(f"refused: {JWT}")
        except ValueError:
            logger.exception("it failed")
        assert (True, False) == ("Traceback (most recent call last)" in text.getvalue(), JWT in text.getvalue())

    def test_wrong_arguments_are_masked_too(self, log: tuple[logging.Logger, io.StringIO]) -> None:
        """A record whose arguments do not fit its format is printed, masked."""
        logger, text = log
        logger.warning("%d orders", JWT)
        assert "%d orders ('****lcmU',)\n" == text.getvalue()

    def test_every_room_has_it(self) -> None:
        """Each logger that the library uses masks, whatever else its room does about secrets."""
        sources = Path(topstep_sync.__file__).parent.rglob("*.py")
        used = {name for path in sources for name in re.findall(r'getLogger\("topstep_sync\.(\w+)"', path.read_text())}
        assert set() == used - set(ROOMS)
        for room in ROOMS:
            assert [RedactingFilter] == [type(f) for f in logging.getLogger(f"topstep_sync.{room}").filters]

    def test_is_silent_unless_asked(self) -> None:
        """A program that does not configure logging sees nothing on its stderr."""
        assert any(isinstance(h, logging.NullHandler) for h in logging.getLogger("topstep_sync").handlers)

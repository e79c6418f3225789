"""The seal of a stored token: what opens, and everything that must not."""

import functools
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.auth import token_cipher
from topstep_sync.auth.token_cipher import HEADER, ITERATIONS, MAX_BLOB, Kdf, KeySource, Stored, TokenCipher, Unreadable
from topstep_sync.redact import SecretBytes

URL = "https://api.topstepx.com"
STORED = Stored("eyJtoken.of.joe-1234", 7, 1_790_000_000.25, 1_790_086_400.125, "2026-11-25T00:00:00")


def source(secret: str = "correct horse battery staple", kdf: Kdf = Kdf.HKDF) -> KeySource:
    return KeySource(SecretBytes(secret.encode()), kdf, "test")


def cipher(secret: str = "correct horse battery staple", user: str = "joe", url: str = URL) -> TokenCipher:
    """A cipher whose key derivation costs nothing, for tests that do not look at it."""
    return TokenCipher(source(secret), user, url)


@functools.cache
def slow() -> TokenCipher:
    """One with the real derivation, shared because it takes 70 ms."""
    return TokenCipher(source(kdf=Kdf.PBKDF2), "joe", URL)


TEXTS = st.text(st.characters(codec="utf-8"))


@given(TEXTS, st.integers(0, 2**62), st.floats(allow_nan=False, allow_infinity=False), st.none() | TEXTS)
def test_what_was_sealed_opens(token: str, generation: int, instant: float, given_text: str | None) -> None:
    """Any token comes back exactly, in another cipher of the same secret, user and gateway."""
    stored = Stored(token, generation, instant, instant, given_text)
    assert stored == cipher().open(cipher().seal(stored))


def test_the_user_name_is_the_same_in_any_case() -> None:
    """The gateway takes it in any case, so the file does too."""
    assert STORED == cipher(user="Joe").open(cipher(user="jOE").seal(STORED))


@pytest.mark.parametrize(
    "other", [cipher("correct horse battery stapl3"), cipher(user="ann"), cipher(url="https://demo.example")]
)
def test_another_secret_user_or_gateway_does_not_open(other: TokenCipher) -> None:
    """Each is bound into the seal."""
    with pytest.raises(Unreadable):
        other.open(cipher().seal(STORED))


def test_every_byte_is_guarded() -> None:
    """Each bit of each byte, flipped: header, nonce, ciphertext and tag alike."""
    blob = cipher().seal(STORED)
    for position in range(len(blob)):
        for bit in range(8):
            torn = bytearray(blob)
            torn[position] ^= 1 << bit
            with pytest.raises(Unreadable):
                cipher().open(bytes(torn))


def test_every_byte_is_guarded_with_a_passphrase() -> None:
    """The same with the derivation of a passphrase; iterations out of bounds cost no time."""
    blob = slow().seal(STORED)
    assert STORED == slow().open(blob)
    header = struct.calcsize(">8sBBI")
    for position in [*range(header), *range(header + 16, len(blob))]:  # each other salt would cost a derivation
        torn = bytearray(blob)
        torn[position] ^= 0x08
        with pytest.raises(Unreadable):
            slow().open(bytes(torn))
    torn = bytearray(blob)
    torn[header] ^= 0x01
    with pytest.raises(Unreadable):
        slow().open(bytes(torn))


def test_every_length_is_guarded() -> None:
    """Truncated anywhere, or with something behind it."""
    blob = cipher().seal(STORED)
    for length in range(len(blob)):
        with pytest.raises(Unreadable):
            cipher().open(blob[:length])
    for more in (b"\0", blob, b"x" * MAX_BLOB):
        with pytest.raises(Unreadable):
            cipher().open(blob + more)


@given(st.binary(max_size=300))
def test_garbage_does_not_open(garbage: bytes) -> None:
    """Whatever the bytes, the only exception is `Unreadable`."""
    with pytest.raises(Unreadable):
        cipher().open(garbage)


@pytest.mark.parametrize("iterations", [0, 1, ITERATIONS - 1, 10_000_001, 2**32 - 1])
def test_iterations_out_of_bounds(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer are a downgrade, more are an attack on our time: refused before any derivation."""
    monkeypatch.setattr(TokenCipher, "_derive", lambda *_: pytest.fail("a key was derived"))
    header = HEADER.pack(token_cipher.MAGIC, 1, Kdf.PBKDF2, iterations, b"s" * 16, b"b" * 32, b"n" * 12)
    with pytest.raises(Unreadable, match="derived in another way"):
        TokenCipher(source(kdf=Kdf.PBKDF2), "joe", URL).open(header + b"x" * 40)


def test_a_passphrase_file_does_not_open_as_a_keyring_file() -> None:
    """The kind of derivation is part of the contract, not of the file's choice."""
    with pytest.raises(Unreadable, match="derived in another way"):
        cipher().open(slow().seal(STORED))


def test_a_payload_of_another_shape_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Authentic, but not what this version stores."""
    monkeypatch.setattr(token_cipher.msgspec.json, "encode", lambda stored: b'{"token": 1}')
    blob = cipher().seal(STORED)
    with pytest.raises(Unreadable):
        cipher().open(blob)


def test_no_two_writes_are_alike() -> None:
    """A thousand seals of one token: a thousand nonces, one salt, and no token in the open."""
    one = cipher()
    blobs = [one.seal(STORED) for _ in range(1000)]
    headers = [HEADER.unpack(blob[: HEADER.size]) for blob in blobs]
    assert (1000, 1) == (len({header[-1] for header in headers}), len({header[4] for header in headers}))
    assert not any(STORED.token.encode() in blob or b"joe" in blob for blob in blobs)


def test_the_salt_differs_between_files() -> None:
    """Two users of one passphrase have two keys."""
    assert cipher().seal(STORED)[14:30] != cipher().seal(STORED)[14:30]


def test_the_key_is_derived_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing, opening and sealing again, in two ciphers: one derivation of 600 000 rounds."""
    derived: list[int] = []

    def count(hash_: Any, length: int, salt: bytes, iterations: int) -> PBKDF2HMAC:
        derived.append(iterations)
        return PBKDF2HMAC(hash_, length, salt, iterations)

    monkeypatch.setattr(token_cipher, "PBKDF2HMAC", count)
    first, second = (TokenCipher(source("another secret", Kdf.PBKDF2), "joe", URL) for _ in range(2))
    blob = first.seal(STORED)
    assert STORED == second.open(blob) == first.open(second.seal(STORED))
    assert [600_000] == derived


def test_few_keys_are_kept() -> None:
    """A process that opens files of many salts does not keep a key of each."""
    for _ in range(50):
        cipher().seal(STORED)
    assert len(token_cipher._KEYS) <= token_cipher._MAX_KEYS


def test_reprs_hold_no_secret() -> None:
    """Neither the secret nor the token shows."""
    shown = repr((source(), vars(cipher()), STORED, STORED.alive()))
    assert "horse" not in shown
    assert STORED.token not in shown

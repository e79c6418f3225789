"""A token as bytes that only the holder of a secret can read or change.

::

    magic 8 | version 1 | kdf 1 | iterations 4 | salt 16 | binding 32 | nonce 12 || AES-256-GCM(payload) | tag 16

Everything before the ``||`` is authenticated along with the payload, so a header from another user, another gateway or
with weaker settings does not open. The nonce is fresh in every write and never counted: a restored backup would repeat
a counter. Sources: OWASP Password Storage (2023: 600 000 iterations), NIST SP 800-38D.
"""

import enum
import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from topstep_sync.models import Token
from topstep_sync.redact import Secret, SecretBytes

MAGIC: Final = b"TOPSTEP\0"
VERSION: Final = 1
ITERATIONS: Final = 600_000
MAX_ITERATIONS: Final = 10_000_000  # a second or two; beyond it a planted file is an attack on our time
HEADER: Final = struct.Struct(">8sBBI16s32s12s")
MAX_BLOB: Final = 64 * 1024


class Kdf(enum.IntEnum):
    """How the key comes from the secret."""

    PBKDF2 = 1  # for what a person can remember
    HKDF = 2  # for 32 random bytes, which need no slowing down


class Unreadable(ValueError):
    """The bytes are no token of ours: damaged, tampered with, of another version, or under another secret."""


@dataclass(frozen=True, repr=False)
class KeySource:
    """A secret to derive the key from, and where it came from."""

    secret: SecretBytes
    kdf: Kdf
    origin: str

    def __repr__(self) -> str:
        return f"KeySource({self.origin})"


class Stored(msgspec.Struct, frozen=True):
    """A token as it is stored."""

    token: str
    generation: int
    issued_at: float
    expires_at: float
    given: str | None = None
    """The expiry as text, where it was given as a date and time."""

    def __repr__(self) -> str:
        return f"Stored(generation={self.generation})"

    def alive(self) -> Token:
        """As a `Token`."""
        return Token(Secret(self.token), self.generation, self.issued_at, self.expires_at)


_DECODER: Final = msgspec.json.Decoder(Stored)
_KEYS: Final[dict[bytes, AESGCM]] = {}  # derived keys of this process, by a digest of what they derive from
_MAX_KEYS: Final = 16


class TokenCipher:
    """Seals and opens tokens of one user at one gateway, under one secret."""

    def __init__(self, source: KeySource, user_name: str, base_url: str) -> None:
        self._source = source
        self._identity = f"{user_name.casefold()}\0{base_url}".encode()
        self._salt: bytes | None = None

    def seal(self, stored: Stored) -> bytes:
        """*stored* as bytes; different ones at every call."""
        self._salt = self._salt or os.urandom(16)
        iterations = ITERATIONS if self._source.kdf is Kdf.PBKDF2 else 0
        binding = self._binding(self._salt)
        header = HEADER.pack(MAGIC, VERSION, self._source.kdf, iterations, self._salt, binding, nonce := os.urandom(12))
        return header + self._key(self._salt, iterations).encrypt(nonce, msgspec.json.encode(stored), header)

    def open(self, blob: bytes) -> Stored:
        """What *blob* holds.

        Raises:
            Unreadable: why it cannot be trusted.
        """
        if not HEADER.size < len(blob) <= MAX_BLOB:
            raise Unreadable(f"it is {len(blob)} bytes long")
        header = blob[: HEADER.size]
        magic, version, kdf, iterations, salt, binding, nonce = HEADER.unpack(header)
        if (magic, version) != (MAGIC, VERSION):
            raise Unreadable("it is no token file of this version")
        if kdf != self._source.kdf or not self._acceptable(iterations):
            raise Unreadable("its key is derived in another way")
        if binding != self._binding(salt):
            raise Unreadable("it belongs to another user or gateway")
        try:
            stored = _DECODER.decode(self._key(salt, iterations).decrypt(nonce, blob[HEADER.size :], header))
        except (InvalidTag, msgspec.DecodeError):
            # The context would carry the payload.
            raise Unreadable("it is damaged, or was written with another passphrase") from None
        self._salt = salt  # the next write needs no second derivation
        return stored

    def _acceptable(self, iterations: int) -> bool:
        if self._source.kdf is Kdf.HKDF:
            return iterations == 0
        return ITERATIONS <= iterations <= MAX_ITERATIONS

    def _binding(self, salt: bytes) -> bytes:
        return hashlib.sha256(salt + self._identity).digest()

    def _key(self, salt: bytes, iterations: int) -> AESGCM:
        """The key; derived once per process, as that takes 70 ms on purpose."""
        name = hashlib.sha256(b"%d %d " % (self._source.kdf, iterations) + salt + self._source.secret).digest()
        found = _KEYS.get(name)
        if found is None:
            found = _KEYS[name] = AESGCM(self._derive(salt, iterations))
            while len(_KEYS) > _MAX_KEYS:
                _KEYS.pop(next(iter(_KEYS)), None)
        return found

    def _derive(self, salt: bytes, iterations: int) -> bytes:
        if self._source.kdf is Kdf.HKDF:
            return HKDF(SHA256(), 32, salt, b"topstep_sync token").derive(self._source.secret)
        return PBKDF2HMAC(SHA256(), 32, salt, iterations).derive(self._source.secret)

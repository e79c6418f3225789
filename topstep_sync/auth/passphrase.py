"""Where the secret that locks the token file comes from, and what that is worth.

* a passphrase (argument or ``TOPSTEP_TOKEN_PASSPHRASE``): as good as the passphrase, and as the place it is kept;
* the OS keyring: as good as the user's login; another program of the same user can usually ask it too;
* the API key: whoever has it needs no token, so the file gives away no more than the key's own place does.
"""

import base64
import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from topstep_sync.auth.token_cipher import Kdf, KeySource
from topstep_sync.errors import MissingExtra
from topstep_sync.redact import Secret, SecretBytes

log = logging.getLogger("topstep_sync.auth")

VARIABLE: Final = "TOPSTEP_TOKEN_PASSPHRASE"
SERVICE: Final = "topstep_sync token"
KEY_BYTES: Final = 32


def find_key(
    passphrase: str | None,
    api_key: str | None,
    account: str,
    *,
    keyring: bool | None = None,
    environ: Mapping[str, str] | None = None,
) -> KeySource | None:
    """The best secret there is; `None` when there is none at all.

    Args:
        passphrase: wins over everything.
        api_key: the last resort.
        account: the name of the entry in the OS keyring.
        keyring: whether to ask the OS keyring; `None`: if the extra is installed.
        environ: instead of the process's environment.

    Raises:
        MissingExtra: *keyring* is True and the extra is not installed.
    """
    passphrase = Secret(passphrase or (os.environ if environ is None else environ).get(VARIABLE, ""))
    if passphrase:
        return KeySource(_bytes(passphrase), Kdf.PBKDF2, "passphrase")
    if keyring is not False:
        key = _from_keyring(account, required=keyring is True)
        if key is not None:
            return KeySource(SecretBytes(key), Kdf.HKDF, "keyring")
    return KeySource(_bytes(api_key), Kdf.PBKDF2, "API key") if api_key else None


def _bytes(text: str) -> SecretBytes:
    """*text* as bytes; a variable that is not UTF-8 as the bytes it had, as an error would show it."""
    return SecretBytes(text.encode("utf-8", "surrogateescape"))


def _from_keyring(account: str, *, required: bool) -> bytes | None:
    """The key in the OS keyring, made there if need be; `None` when there is no keyring worth the name."""
    try:
        import keyring
    except ImportError:
        if required:
            raise MissingExtra("the OS keyring needs an extra: pip install 'topstep-sync[keyring]'") from None
        return None
    try:
        return _ask(keyring, account)
    except Exception as error:  # backends raise what they like, and D-Bus more
        log.info("= no OS keyring to use (%s)", type(error).__name__)
        return None


def _ask(keyring: Any, account: str) -> bytes | None:
    if keyring.get_keyring().priority < 1:  # its own mark for "not recommended": plain files, or nothing at all
        return None
    if keyring.get_password(SERVICE, account) is None:
        keyring.set_password(SERVICE, account, base64.b64encode(os.urandom(KEY_BYTES)).decode())
    # Read back: another process may have made one at the same time, and the keyring decides whose it is.
    key = SecretBytes(base64.b64decode(keyring.get_password(SERVICE, account), validate=True))
    return key if len(key) == KEY_BYTES else None

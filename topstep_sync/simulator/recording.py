"""Recorded hub traffic: JSON lines, one a record, packed when the file's name ends in ``.gz`` or ``.zst``.

    {"format":"topstep hub recording","version":1,"started":1795503365.1}
    {"at":0.0132,"hub":"market","record":"{\\"type\\":1,\\"target\\":\\"GatewayQuote\\",…}"}

`at` is seconds since the start; `record` the record's text without its end. One that is not UTF-8 stands as base64
under `bytes`. What was recorded comes back byte for byte.
"""

import base64
import binascii
import gzip
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple, Self

import msgspec

from topstep_sync.clock import SYSTEM_CLOCK, Clock

FORMAT: Final = "topstep hub recording"
VERSION: Final = 1

_BROKEN: Final = (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, EOFError, OSError, gzip.BadGzipFile)


class RecordingError(ValueError):
    """The file is no recording, or breaks off."""


class Entry(NamedTuple):
    """One record as it was heard."""

    at: float
    """Seconds since the start of the recording."""
    hub: str
    """`user` or `market`."""
    record: bytes
    """Without U+001E at its end."""


class _Head(msgspec.Struct):
    format: str
    version: int
    started: float


class _Line(msgspec.Struct, omit_defaults=True):
    at: float
    hub: str
    record: str | None = None
    bytes: str | None = None


class Recorder:
    """A recording being made. Thread-safe; to be closed, or used in a ``with`` block.

    Args:
        path: the file; replaced when it exists.
    """

    def __init__(self, path: str | Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._start = clock.monotonic()
        self._lock = threading.Lock()  # guards the file and the count
        self._encode = msgspec.json.Encoder().encode
        self._file: IO[bytes] | None = _open(Path(path), "wb")
        self.count = 0
        """Records written."""
        self._put(_Head(FORMAT, VERSION, clock.epoch()))

    def write(self, hub: str, record: bytes) -> None:
        """*record*, without its end, is in the recording, heard now. After `close` nothing happens."""
        at = round(self._clock.monotonic() - self._start, 6)
        try:
            line = _Line(at, hub, record.decode())
        except UnicodeDecodeError:
            line = _Line(at, hub, bytes=base64.b64encode(record).decode())
        with self._lock:
            if self._file is not None:
                self.count += 1
                self._file.write(self._encode(line) + b"\n")

    def _put(self, line: msgspec.Struct) -> None:
        assert self._file is not None
        self._file.write(self._encode(line) + b"\n")

    def close(self) -> None:
        """The recording is whole on disk."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | Path) -> Iterator[Entry]:
    """The records of a recording, oldest first, read as they are taken.

    Raises:
        RecordingError: the file is no recording, or breaks off; what was whole has been given out before.
    """
    number = 1
    try:
        with _open(Path(path), "rb") as file:
            head = msgspec.json.decode(file.readline(), type=_Head)
            if (head.format, head.version) != (FORMAT, VERSION):
                raise RecordingError(f"{path} is a {head.format!r} of version {head.version}; expected {FORMAT!r}, 1")
            decoder = msgspec.json.Decoder(_Line)
            for line in file:
                number += 1
                found = decoder.decode(line)
                yield Entry(found.at, found.hub, _content(found))
    except FileNotFoundError:
        raise
    except _BROKEN as error:
        raise RecordingError(f"line {number} of {path} is no part of a recording: {error}") from error


def _content(line: _Line) -> bytes:
    if line.record is not None:
        return line.record.encode()
    return base64.b64decode(line.bytes or "", validate=True)


def _open(path: Path, mode: str) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, mode)  # type: ignore[return-value]
    if path.suffix == ".zst":
        return _open_zstd(path, mode)
    return path.open(mode)


def _open_zstd(path: Path, mode: str) -> IO[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise RecordingError(
            f"{path} needs the package zstandard: pip install 'topstep-sync[simulator]', or name it .gz"
        ) from error
    file = zstandard.open(path, mode)
    return io.BufferedReader(file) if mode == "rb" else file

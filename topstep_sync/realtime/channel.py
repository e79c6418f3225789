"""A connection whose reads and writes never hang: each waits for the socket *and* for a `Waker`.

TLS is worked between two buffers instead of on the socket itself. One system call then takes in many records, where
OpenSSL would read each record's head and body by calls of their own; market data comes as a small record an event.
"""

import contextlib
import socket
import ssl
from typing import Final

from topstep_sync.realtime.forks import survive
from topstep_sync.realtime.waker import Waker

CHUNK: Final = 64 * 1024
_RECORD: Final = 16 * 1024  # no TLS record holds more
_HEADER_LIMIT: Final = 64 * 1024  # no reply to an upgrade or a CONNECT is longer


class Channel:
    """A connected socket, with TLS on it once `secure` was called. Looks enough like one for websocket-client."""

    def __init__(self, sock: socket.socket, waker: Waker, at: float) -> None:
        self.sock = sock
        self.waker = waker
        self.at = at
        """By when a blocking read or write must be done, on the monotonic clock."""
        self.ahead = b""
        """Bytes that were read together with the header of a reply."""
        self.more = True
        """Whether another `read` may find something without waiting."""
        self.patient = True
        """Whether `send` waits for room by the waker; else by the socket's own timeout."""
        self._tls: ssl.SSLObject | None = None
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()  # ciphertext
        self._broken: OSError | None = None
        self._taken = 0
        survive(self)

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """The peer has proved that it is *host*, and what follows is encrypted.

        Raises:
            ssl.SSLError: it has not; nobody is trusted.
            OSError: the connection ended; `TimeoutError` (one of them) when it took too long.
        """
        tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=host)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # the alert that tells the peer why
                raise
            else:
                self._flush()
                self._tls = tls
                return

    def _fill(self) -> None:
        """More ciphertext is here, or its end."""
        while True:
            try:
                data = self.sock.recv(CHUNK)
            except (BlockingIOError, InterruptedError):
                self.waker.wait_for(self.sock, self.at)
            else:
                break
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        if data:
            self._arrived.write(data)
        else:
            self._arrived.write_eof()

    def recv(self, size: int) -> bytes:
        """At least one and at most *size* bytes, or none at the end of the stream; waits for them."""
        while not self.ahead:
            data = self.read()
            if data is None:
                self.waker.wait_for(self.sock, self.at)
            elif not data:
                return b""
            else:
                self._taken += len(data)
                self.ahead = data
                if self._taken > _HEADER_LIMIT:
                    raise OSError(f"the reply's header is longer than {_HEADER_LIMIT} bytes")
        part, self.ahead = self.ahead[:size], self.ahead[size:]
        return part

    def read(self) -> bytes | None:
        """What has arrived: bytes, none at the end of the stream, or `None` when there is nothing yet."""
        try:
            data = self.sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            data = None
        # One that did not fill the chunk has most likely taken everything there was.
        self.more = data is not None and len(data) == CHUNK
        return data if self._tls is None else self._decrypted(self._tls, data)

    def _decrypted(self, tls: ssl.SSLObject, data: bytes | None) -> bytes | None:
        if data is not None:
            self._keep(data)
        if self._broken is not None:  # OpenSSL may say so only once
            raise self._broken
        parts: list[bytes] = []
        ended = False
        try:
            while part := tls.read(_RECORD):
                parts.append(part)
            ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            ended = True
        except ssl.SSLError as error:
            if not parts:
                raise
            self._broken = error
        if self._leaving.pending:
            try:
                self._flush()  # what TLS itself has to say, such as the answer to a change of keys
            except OSError as error:
                if not parts:
                    raise
                self._broken = self._broken or error
        # Another read is needed to meet the end, or what is wrong.
        self.more = self.more or ended or self._broken is not None
        return b"".join(parts) if parts or ended else None

    def send(self, data: bytes) -> int:
        """How many bytes of *data* were taken, at least one; waits for room."""
        if self._tls is None:
            return self._transmit(data)
        self._tls.write(data)
        self._flush()
        return len(data)

    def _flush(self) -> None:
        """All the ciphertext is with the operating system."""
        data = self._leaving.read()
        while data:
            data = data[self._transmit(data) :]

    def _transmit(self, data: bytes) -> int:
        while self.patient:
            try:
                return self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                self.waker.wait_for(self.sock, self.at, write=True)
        return self.sock.send(data)

    def finish(self, seconds: float) -> None:
        """The peer reads that nothing more will come; what it sends meanwhile, for *seconds*, is read away."""
        end = self.waker.clock.monotonic() + seconds
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        # Closing with unread input would send a reset, and the peer would never see the goodbye.
        self.sock.shutdown(socket.SHUT_WR)
        for _ in range(64):
            left = end - self.waker.clock.monotonic()
            if left <= 0:  # it goes on as if nothing were; a `recv` of it each time would never time out
                break
            self.sock.settimeout(left)
            if not self.sock.recv(CHUNK):
                break

    def fileno(self) -> int:
        return self.sock.fileno()

    def gettimeout(self) -> float:
        return 0.0  # websocket-client then calls recv and send once and does no waiting of its own

    def close(self) -> None:
        self.sock.close()

    def forked(self) -> None:
        """In a child process: our copy of the socket is closed, without a word; it belongs to the parent process."""
        self.sock.close()

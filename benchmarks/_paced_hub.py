"""A hub that sends stamped quotes at a steady pace, in a process of its own: ``python -m benchmarks._paced_hub``.

Prints its port; then serves one connection after another. Each quote carries the monotonic time of its sending in
`change`; the monotonic clock is the same for all processes of a machine.
"""

import base64
import hashlib
import socket
import struct
import time

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
QUOTE = (
    '{"type":1,"target":"GatewayQuote","arguments":["CON.F.US.MNQ.Z26",{"symbol":"F.US.MNQ","change":%.9f,'
    '"contract":"CON.F.US.MNQ.Z26","bestBid":21000.25,"bestAsk":21000.5,"lastUpdated":"2026-11-24T13:30:31.4347534+00:00",'
    '"timestamp":"2026-11-24T13:30:31.348+00:00"}]}\x1e'
)


def frame(text: str) -> bytes:
    data = text.encode()
    head = bytes([0x81, len(data)]) if len(data) < 126 else bytes([0x81, 126]) + struct.pack("!H", len(data))
    return head + data


def serve(sock: socket.socket, rate: float) -> None:
    """Shake hands, answer subscriptions, and send until the peer is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(65536)
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key.strip() + MAGIC).digest()).decode()
    sock.sendall(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    sock.recv(65536)
    sock.sendall(frame("{}\x1e"))
    time.sleep(0.2)
    # Whatever was asked for by now: ids of this library's first calls; others ignore the answers.
    sock.sendall(frame('{"type":3,"invocationId":"1","result":null}\x1e'))
    start = time.monotonic() + 0.1
    for number in range(10_000_000):
        due = start + number / rate
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
        sock.sendall(frame(QUOTE % time.monotonic()))


def main(rate: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        try:
            serve(sock, rate)
        except OSError:
            sock.close()


if __name__ == "__main__":
    main(1000.0)

"""WebSocket frames: what a server reads, however it is cut, and what it writes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.simulator import hub_frames as frames


def masked(payload: bytes, opcode: int = 1, *, fin: bool = True, key: bytes | None = None) -> bytes:
    """A client's frame."""
    key = os.urandom(4) if key is None else key
    head = frames.frame_head(len(payload), opcode, fin=fin)
    head = head[:1] + bytes([head[1] | 0x80]) + head[2:]
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


@given(
    sent=st.lists(st.tuples(st.binary(max_size=300), st.sampled_from([0, 1, 2]), st.booleans())),
    cuts=st.lists(st.integers(1, 40)),
)
def test_frames_come_out_however_they_are_cut(sent: list[tuple[bytes, int, bool]], cuts: list[int]) -> None:
    """Any cutting of the stream gives the same frames."""
    stream = b"".join(masked(payload, opcode, fin=fin) for payload, opcode, fin in sent)
    reader, found = frames.FrameReader(), []
    for cut in cuts:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    found += reader.feed(stream)
    assert sent == [(frame.payload, frame.opcode, frame.fin) for frame in found]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
def test_lengths_at_their_borders(length: int) -> None:
    """Each of the three ways to write a length is read back."""
    (frame,) = frames.FrameReader().feed(masked(b"x" * length))
    assert length == len(frame.payload)


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1\x80abcd",  # a reserved bit
        b"\x83\x80abcd",  # an unknown opcode
        b"\x81\x01a",  # no mask
        masked(b"x" * 126, frames.PING),
        masked(b"x", frames.PING, fin=False),
    ],
)
def test_broken_frames_are_refused(data: bytes) -> None:
    """What RFC 6455 forbids closes with 1002."""
    with pytest.raises(frames.FrameError) as refused:
        frames.FrameReader().feed(data)
    assert frames.PROTOCOL_ERROR == refused.value.code


def test_a_long_control_frame_is_refused_before_it_has_arrived() -> None:
    """Nothing is collected for a frame that will be refused."""
    with pytest.raises(frames.FrameError):
        frames.FrameReader().feed(masked(b"x" * 1000, frames.CLOSE)[:2])


@given(payload=st.binary(max_size=500), size=st.integers(1, 100))
def test_fragments_make_up_the_message(payload: bytes, size: int) -> None:
    """A message in fragments is the message, and ends in an empty final frame."""
    data, parts = frames.encode_fragments(payload, size), []
    while data:
        first, length, at = data[0], data[1], 2
        if length == 126:
            length, at = int.from_bytes(data[2:4], "big"), 4
        parts.append((first, data[at : at + length]))
        data = data[at + length :]
    assert payload == b"".join(part for _, part in parts)
    assert b"" == parts[-1][1]
    assert [1 if i == 0 else 0 for i in range(len(parts))] == [first & 15 for first, _ in parts]
    assert [False] * (len(parts) - 1) + [True] == [bool(first & 0x80) for first, _ in parts]


def test_an_endless_frame_is_refused_at_its_head() -> None:
    """A length beyond all measure closes with 1009 before anything is collected."""
    with pytest.raises(frames.FrameError) as refused:
        frames.FrameReader().feed(b"\x81\xff" + (1 << 62).to_bytes(8, "big"))
    assert frames.TOO_BIG == refused.value.code


@pytest.mark.parametrize("cut", [1, 3, 9, 13])
def test_nothing_comes_out_too_early(cut: int) -> None:
    """A frame is given out once it is whole, never before."""
    data = masked(b"x" * 70_000)
    reader = frames.FrameReader()
    assert [] == reader.feed(data[:cut])
    assert 1 == len(reader.feed(data[cut:]))


def test_accept_key_of_the_rfc() -> None:
    """The example of RFC 6455, section 1.3."""
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == frames.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==")


def test_close_reason_fits_a_control_frame() -> None:
    """A reason that is too long is cut."""
    assert 127 == len(frames.encode_close(1000, "x" * 500))

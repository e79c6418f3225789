"""The JSON hub protocol: any cutting of the bytes, every type of record, and garbage."""

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topstep_sync.events import QuoteEvent
from topstep_sync.realtime import signalr
from topstep_sync.realtime.signalr import (
    Batch,
    Close,
    Completion,
    Fault,
    Handshake,
    HubProtocol,
    Ignored,
    Invocation,
    StreamItem,
)
from topstep_sync.realtime.wire import market_decoder

QUOTE = b'{"type":1,"target":"GatewayQuote","arguments":["CON.A",{"symbol":"F.A","lastPrice":1.5}]}'
SPEECH = [
    QUOTE,
    b'{"type":6}',
    b'{"type":1,"target":"gatewayQUOTE","arguments":["CON.A",{"symbol":"F.A"}],"headers":{"a":"b"}}',
    b'{"type":3,"invocationId":"7","result":{"a":[1,2]}}',
    b'{"type":3,"invocationId":"8","error":"no"}',
    b'{"type":2,"invocationId":"9","item":"x"}',
    QUOTE,
    QUOTE,
    b'{"type":1,"target":"Ask","arguments":[],"invocationId":"5"}',
    b'{"type":8,"sequenceId":4}',
    b'{"type":99,"anything":[]}',
    '{"type":1,"target":"Übung","arguments":["é","\\u001e"]}'.encode(),
    b'{"type":7,"error":"bye","allowReconnect":true}',
]
WIRE = b"".join(record + b"\x1e" for record in [b"{}", *SPEECH])


def flat(messages: list[Any]) -> list[Any]:
    """Batches opened: how many records come at once depends on the cutting."""
    return [item for m in messages for item in (m if isinstance(m, Batch) else [m])]


def shaken(fast: Any = None, **options: Any) -> HubProtocol:
    protocol = HubProtocol(fast, **options)
    assert [Handshake()] == protocol.receive(b"{}\x1e")
    return protocol


@given(st.lists(st.integers(0, len(WIRE)), max_size=12))
def test_any_chunking_gives_the_same_messages(cuts: list[int]) -> None:
    """However the transport cuts the bytes, UTF-8 sequences included, the same messages come out."""
    whole = flat(HubProtocol(market_decoder()).receive(WIRE))
    protocol = HubProtocol(market_decoder())
    edges = [0, *sorted(cuts), len(WIRE)]
    pieces = [WIRE[a:b] for a, b in itertools.pairwise(edges)]
    assert whole == flat([m for piece in pieces for m in protocol.receive(piece)])


def test_byte_by_byte() -> None:
    """One byte at a time gives what all at once gives."""
    protocol = HubProtocol(market_decoder())
    got = flat([m for i in range(len(WIRE)) for m in protocol.receive(WIRE[i : i + 1])])
    assert flat(HubProtocol(market_decoder()).receive(WIRE)) == got


def test_every_type_of_record() -> None:
    """Types 1, 2, 3, 6, 7 are read, 8 and unknown ones are ignored by name, fields nobody knows do not matter."""
    quote = QuoteEvent("CON.A", flat(shaken(market_decoder()).receive(QUOTE + b"\x1e"))[0].data)
    expected = [
        Handshake(),
        quote,
        Invocation("gatewayQUOTE", ["CON.A", {"symbol": "F.A"}]),
        Completion("7", {"a": [1, 2]}),
        Completion("8", None, "no"),
        StreamItem("9", "x"),
        quote,
        quote,
        Invocation("Ask", [], "5"),
        Ignored(8),
        Ignored(99),
        Invocation("Übung", ["é", "\x1e"]),
        Close("bye", True),
    ]
    assert expected == flat(HubProtocol(market_decoder()).receive(WIRE))


def test_a_whole_batch_is_one_message() -> None:
    """Records the fast decoder knows come out together, in order."""
    (batch,) = shaken(market_decoder()).receive((QUOTE + b"\x1e") * 20)
    assert (Batch, 20, 1.5) == (type(batch), len(batch), batch[-1].data.last_price)


def test_a_known_target_that_wants_an_answer_is_not_swallowed() -> None:
    """An invocation with an id reaches the general decoder, or nobody could answer it."""
    record = b'{"type":1,"target":"GatewayQuote","arguments":["C",{"symbol":"F"}],"invocationId":"1"}\x1e'
    assert [Invocation("GatewayQuote", ["C", {"symbol": "F"}], "1")] == shaken(market_decoder()).receive(record)


@pytest.mark.parametrize("allow", [b"false", b"null"])
def test_only_true_allows_reconnecting(allow: bytes) -> None:
    """A Close without allowReconnect, or with false or null, does not allow it."""
    protocol = shaken()
    assert [Close(None, False)] == protocol.receive(b'{"type":7,"allowReconnect":' + allow + b"}\x1e")
    assert [Close(None, False)] == protocol.receive(b'{"type":7}\x1e')


def test_handshake_refused() -> None:
    """The server's words are kept, and nothing after them is read."""
    got = HubProtocol().receive(b'{"error":"no such protocol"}\x1e{"type":6}\x1e')
    assert [Handshake("no such protocol")] == got


@pytest.mark.parametrize("first", [b"nonsense", b'{"type":6}', b"[]", b"", b"\xff"])
def test_a_first_record_that_is_no_handshake(first: bytes) -> None:
    """Anything else in the place of the handshake's answer is the peer's fault."""
    (fault,) = HubProtocol().receive(first + b"\x1e")
    assert isinstance(fault, Fault)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"nonsense",
        b"[]",
        b"7",
        b"{}",
        b'{"type":"1"}',
        b'{"type":true}',
        b'{"type":1}',
        b'{"type":1,"target":"a"}',
        b'{"type":1,"target":3,"arguments":[]}',
        b'{"type":3}',
        b'{"type":3,"invocationId":4}',
        b'{"type":7,"allowReconnect":"yes"}',
        b'{"type":6}{"type":6}',
        b'{"type":1,"target":"\xff\xfe","arguments":[]}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_garbage_is_a_fault_after_what_came_before(record: bytes, fast: bool) -> None:
    """A record that breaks the protocol is told as a fault; the records before it count, those after do not."""
    protocol = shaken(market_decoder() if fast else None)
    messages = flat(protocol.receive(QUOTE + b"\x1e" + record + b"\x1e" + QUOTE + b"\x1e"))
    assert (2, Fault) == (len(messages), type(messages[-1]))


def test_two_values_in_one_record_are_not_two_records() -> None:
    """A comma between two values does not smuggle a second record into a batch."""
    messages = flat(shaken(market_decoder()).receive(QUOTE + b"," + QUOTE + b"\x1e"))
    assert [Fault] == [type(m) for m in messages]


def test_a_record_without_end_is_bounded() -> None:
    """A record that never ends is a fault once it is longer than the limit."""
    protocol = shaken(limit=1000)
    assert [] == protocol.receive(b"x" * 1000)
    assert [Fault("a record is longer than 1000 bytes")] == protocol.receive(b"x")


@given(st.binary(max_size=200))
def test_any_bytes_give_messages_or_a_fault(data: bytes) -> None:
    """No input raises; a fault is always the last message."""
    messages = flat(shaken(market_decoder()).receive(data))
    assert all(not isinstance(m, Fault) for m in messages[:-1])


PIECES = st.sampled_from(
    [*SPEECH, b"\x1e", b"{}", b"{", b"}", b",", b"[", b"]", b'"', b"\xff", b"null", b"1e999", b"\\u0000"]
)


@settings(max_examples=max(300, settings().max_examples))
@given(st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=20).map(b"".join), st.integers(0, 200))
def test_any_mixture_of_records_and_rubbish(data: bytes, cut: int) -> None:
    """Never an exception, and any cut gives the same messages."""
    same_however_it_is_cut(data, cut)


def spoiled(chance: random.Random) -> bytes:
    """A few records, some bytes of which are changed, taken away or doubled."""
    data = bytearray(b"\x1e".join(chance.choices(SPEECH, k=chance.randrange(1, 5))) + b"\x1e")
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(data))
        act = chance.randrange(4)
        if act == 0:
            data[at] = chance.randrange(256)
        elif act == 1:
            data[at] = chance.choice(b'\x1e{}[],:"\\0123456789eE.-ntf')
        elif act == 2:
            del data[at : at + chance.randrange(1, 9)]
            data += b"\x1e"
        else:
            data[at:at] = data[at : at + chance.randrange(1, 40)]
    return bytes(data)


@pytest.mark.parametrize(
    ("count", "seed"), [(2_000, 1), pytest.param(1_000_000, 2, marks=[pytest.mark.nightly, pytest.mark.timeout(0)])]
)
def test_spoiled_records(count: int, seed: int) -> None:
    """Records with a few wrong bytes: never an exception, and any cut gives the same messages."""
    chance = random.Random(seed)
    faults = 0
    for _ in range(count):
        data = spoiled(chance)
        faults += same_however_it_is_cut(data, chance.randrange(len(data) + 1))
    assert count > faults > count / 4


def same_however_it_is_cut(data: bytes, cut: int) -> bool:
    """Check that, and whether a fault is among the messages."""
    whole = flat(shaken(market_decoder()).receive(data))
    protocol = shaken(market_decoder())
    parts = flat(protocol.receive(data[:cut]))
    if not any(isinstance(message, Fault) for message in parts):
        parts += flat(protocol.receive(data[cut:]))
    assert [type(message) for message in whole] == [type(message) for message in parts]
    return any(isinstance(message, Fault) for message in whole)


@given(st.text(min_size=1), st.lists(st.one_of(st.integers(-(2**53), 2**53), st.text(), st.none())))
def test_what_the_client_sends_can_be_read(target: str, arguments: list[Any]) -> None:
    """A call written here reads back as the same call, one record long."""
    text = signalr.invocation(target, arguments, "1").encode()
    assert 1 == text.count(b"\x1e")
    assert [Invocation(target, arguments, "1")] == shaken().receive(text)


def test_the_client_s_records() -> None:
    """Each record the client may send has the documented form."""

    def read(text: str) -> Any:
        return json.loads(text.removesuffix("\x1e"))

    assert {"protocol": "json", "version": 1} == read(signalr.HANDSHAKE)
    assert ({"type": 6}, {"type": 7}) == (read(signalr.PING), read(signalr.CLOSE))
    assert {"type": 1, "target": "T", "arguments": [1]} == read(signalr.invocation("T", [1]))
    assert {"type": 4, "target": "T", "arguments": [], "invocationId": "2"} == read(
        signalr.stream_invocation("T", [], "2")
    )
    assert {"type": 5, "invocationId": "2"} == read(signalr.cancel_invocation("2"))
    assert {"type": 3, "invocationId": "2", "result": None} == read(signalr.completion("2"))
    assert {"type": 3, "invocationId": "2", "error": "Client didn't provide a result."} == read(signalr.no_result("2"))

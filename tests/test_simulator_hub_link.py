"""One hub connection without its socket: states, timeouts, chunks, and whatever bytes may come."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topstep_sync.simulator import hub_dialect as dialect
from topstep_sync.simulator.hub_link import TRANSITIONS, Link, LinkEvent, LinkState
from topstep_sync.simulator.hub_methods import Call, invoke
from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.world import World

HANDSHAKE = b'{"protocol":"json","version":1}\x1e'
CLOSED = {"type": 7, "error": "Connection closed with an error.", "allowReconnect": True}
WORLD = World(Settings(market_rate=0.0))


class Table:
    """Pipe, host and desk of one link: what it sent, and whether it finished."""

    def __init__(self, hub: str = "user", **settings: Any) -> None:
        self.world = WORLD
        self.sent: list[bytes] = []
        self.finished = 0
        self.refusal: str | None = None
        self.answers: list[Any] = []
        self.later_calls: list[tuple[float, Any]] = []
        self.link = Link(hub, self, self, Settings(**settings), now=0.0)

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def finish(self) -> None:
        self.finished += 1

    def opened(self, link: Link) -> str | None:
        return self.refusal

    def call(self, link: Link, record: dict[str, Any]) -> None:
        invoke(Call(self, link, record.get("invocationId") or None, record["target"]), record)

    def answered(self, link: Link, record: dict[str, Any]) -> None:
        self.answers.append(record)

    def dirty(self, link: Link) -> None:
        pass

    def first(self, link: Link, target: str, *arguments: Any) -> None:
        link.put(dialect.invocation(target, list(arguments)))

    def later(self, link: Link, seconds: float, action: Any) -> None:
        self.later_calls.append((seconds, action))

    def said(self) -> list[Any]:
        """Every record sent since the last time."""
        import json

        self.link.flush()
        data, self.sent = b"".join(self.sent), []
        assert not data or data.endswith(b"\x1e")
        return [json.loads(record) for record in data.split(b"\x1e")[:-1]]


def opened(hub: str = "user", **settings: Any) -> Table:
    table = Table(hub, **settings)
    table.link.receive(HANDSHAKE, 0.0)
    assert [{}] == table.said()
    return table


################################################ states ################################################


@pytest.mark.parametrize("state", LinkState)
@pytest.mark.parametrize("event", LinkEvent)
def test_only_the_table_steps(state: LinkState, event: LinkEvent) -> None:
    """A pair that the table does not know is an error, and leaves the state."""
    link = Table().link
    link.state = state
    if (state, event) in TRANSITIONS:
        link.step(event)
        assert TRANSITIONS[state, event] is link.state
    else:
        with pytest.raises(KeyError):
            link.step(event)
        assert state is link.state


def test_a_closed_link_says_and_hears_nothing() -> None:
    """Once TCP is gone nothing is sent, read or timed any more."""
    table = opened()
    table.link.gone()
    table.link.gone()
    table.link.put(dialect.PING_RECORD)
    table.link.receive(b"x" * 100_000, 1.0)
    table.link.tick(1e6, 1e6)
    table.link.close("late")
    table.link.flush()
    assert ([], 0) == (table.sent, table.finished)
    assert "closed" in repr(table.link)


def test_refused_connect_closes_with_its_words() -> None:
    """A hub may refuse right after the handshake."""
    table = Table()
    table.refusal = "no"
    table.link.receive(HANDSHAKE, 0.0)
    assert [{}, {"type": 7, "error": "no"}] == table.said()
    assert 1 == table.finished


def test_handshake_may_be_refused_by_order() -> None:
    """A fault may refuse a good handshake."""
    table = Table()
    table.link.handshake_refusal = "not today"
    table.link.receive(HANDSHAKE, 0.0)
    assert ([{"error": "not today"}], 1) == (table.said(), table.finished)


################################################ time ################################################


def test_pings_every_interval_however_busy() -> None:
    """A ping every interval, also when other records were sent in between: so the framework does it."""
    table = opened(keep_alive=15.0)
    for now, expected in ((14.9, 0), (15.0, 1), (29.9, 0), (30.0, 1)):
        table.link.put(dialect.invocation("X", []))
        table.link.tick(now, 0.0)
        assert expected == sum(record == {"type": 6} for record in table.said())


def test_client_timeout_needs_a_first_ping() -> None:
    """A client that never pings is never timed out; one ping arms the timeout; every record puts it off."""
    table = opened(client_timeout=30.0, keep_alive=1000.0)
    table.link.tick(500.0, 0.0)
    assert table.link.live
    table.link.receive(dialect.PING_RECORD, 500.0)
    table.link.receive(b'{"type":1,"target":"SubscribeAccounts","arguments":[]}\x1e', 520.0)
    table.link.tick(549.0, 0.0)
    assert table.link.live
    table.link.tick(550.0, 0.0)
    assert [CLOSED] == table.said()[-1:]


def test_poisoned_connection_times_out() -> None:
    """After a record of unknown type nothing puts the timeout off."""
    table = opened(client_timeout=30.0, keep_alive=1000.0)
    table.link.receive(dialect.PING_RECORD + b'{"type":99}\x1e', 0.0)
    table.link.receive(dialect.PING_RECORD, 20.0)
    assert LinkState.POISONED is table.link.state
    table.link.tick(30.0, 0.0)
    assert [CLOSED] == table.said()


def test_handshake_timeout() -> None:
    """A client without a handshake is told that it was canceled."""
    table = Table(handshake_timeout=15.0)
    table.link.tick(14.0, 0.0)
    assert [] == table.said()
    table.link.tick(15.0, 0.0)
    assert ([{"error": "Handshake was canceled."}], 1) == (table.said(), table.finished)


@pytest.mark.parametrize("shaken", [True, False])
def test_zero_switches_a_timer_off(shaken: bool) -> None:
    """A time of 0 means never: no pings, no timeouts."""
    table = Table(keep_alive=0.0, client_timeout=0.0, handshake_timeout=0.0)
    table.link.receive(HANDSHAKE + dialect.PING_RECORD if shaken else b"", 0.0)
    table.said()
    table.link.tick(1e9, 1e9)
    assert ([], 0) == (table.said(), table.finished)


@pytest.mark.parametrize(("close_on_expiry", "said"), [(True, [CLOSED]), (False, [])])
def test_token_expiry_closes_only_by_switch(close_on_expiry: bool, said: list[Any]) -> None:
    """The framework leaves connections open when their token dies, unless told otherwise."""
    table = opened(close_on_expiry=close_on_expiry)
    table.link.expires = 1000.0
    table.link.tick(1.0, 999.0)
    assert [] == table.said()
    table.link.tick(2.0, 1000.0)
    assert said == table.said()


################################################ records ################################################


def test_most_records_a_message() -> None:
    """No message holds more records than the switch says."""
    table = opened(records_per_message=2)
    for i in range(5):
        table.link.put(dialect.invocation("X", [i]))
    table.link.flush()
    assert [2, 2, 1] == [message.count(b"\x1e") for message in table.sent]


def test_answers_of_the_client_reach_the_host() -> None:
    """Completions and cancellations are passed on."""
    table = opened()
    table.link.receive(b'{"type":3,"invocationId":"s1","result":1}\x1e{"type":5,"invocationId":"2"}\x1e', 0.0)
    assert ["s1", "2"] == [record["invocationId"] for record in table.answers]


def test_late_answer_of_a_slow_method() -> None:
    """A method that answers later does so by itself."""
    table = opened("echo")
    table.link.receive(b'{"type":1,"target":"Slow","invocationId":"1","arguments":[250]}\x1e', 0.0)
    assert [] == table.said()
    ((seconds, action),) = table.later_calls
    action()
    assert (0.25, [{"type": 3, "invocationId": "1", "result": "done"}]) == (seconds, table.said())


def test_stream_of_items() -> None:
    """A stream sends its items and ends without a result; nobody is answered who gave no id."""
    table = opened("echo")
    table.link.receive(b'{"type":4,"target":"Counter","invocationId":"1","arguments":[2]}\x1e', 0.0)
    items = [{"type": 2, "invocationId": "1", "item": i} for i in range(2)]
    assert [*items, {"type": 3, "invocationId": "1"}] == table.said()
    table.link.receive(b'{"type":4,"target":"Counter","invocationId":"","arguments":[2]}\x1e', 0.0)
    assert [] == table.said()


@pytest.mark.parametrize("length", [-1, 10_000_001])
def test_absurd_length_is_an_error(length: int) -> None:
    """The echo hub does not make strings without bounds."""
    table = opened("echo")
    table.link.receive(b'{"type":1,"target":"Big","invocationId":"1","arguments":[%d]}\x1e' % length, 0.0)
    assert "An unexpected error occurred invoking 'Big' on the server." == table.said()[0]["error"]


CHUNKED = HANDSHAKE + b"".join(
    b'{"type":1,"target":"%s","invocationId":"%d","arguments":[%s]}\x1e' % call
    for call in ((b"Add", 1, b"1,2"), (b"Nope", 2, b""), (b"Echo", 3, '"é"'.encode()), (b"Throw", 4, b'"x"'))
)


@given(cuts=st.lists(st.integers(1, 60)))
def test_any_chunking_gives_the_same_answers(cuts: list[int]) -> None:
    """However the bytes arrive, the answers are the same."""
    whole, cut = Table("echo"), Table("echo")
    whole.link.receive(CHUNKED, 0.0)
    rest = CHUNKED
    for size in cuts:
        cut.link.receive(rest[:size], 0.0)
        rest = rest[size:]
    cut.link.receive(rest, 0.0)
    assert whole.said() == cut.said()


################################################ fuzz ################################################


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner), max_leaves=6
)
names = ["SubscribeOrders", "SubscribeContractQuotes", "Echo", "Add", "Big", "Flood", "Counter", "Slow", "AbortMe", "x"]
records = st.fixed_dictionaries(
    {},
    optional={
        "type": st.integers(-1, 10) | values,
        "target": st.sampled_from(names) | values,
        "invocationId": st.text(max_size=3) | values,
        "arguments": st.lists(st.integers(-3, 50) | values, max_size=3) | values,
        "streamIds": values,
        "item": values,
        "result": values,
        "error": values,
        "sequenceId": values,
    },
)


def encoded(record: Any) -> bytes:
    import json

    return json.dumps(record).encode() + b"\x1e"


pieces = st.one_of(
    records.map(encoded), records.map(encoded), st.binary(max_size=60), st.just(HANDSHAKE), st.just(b"\x1e"),
    st.just(b"x" * 33_000), st.just(b"[" * 20_000 + b"\x1e"), st.just(b'{"type":' + b"9" * 5000 + b"}\x1e"),
)  # fmt: skip


def hold(hub: str, shaken: bool, received: list[bytes]) -> None:
    """Whatever arrives: no exception, legal states, whole records out, and one end at most."""
    table = Table(hub)
    if shaken:
        table.link.receive(HANDSHAKE, 0.0)
    for i, data in enumerate(received):
        table.link.receive(data, float(i))
        table.link.tick(float(i), 0.0)
    for _, action in table.later_calls:
        if table.link.live:
            action()
    table.said()
    assert table.finished <= 1
    assert (table.finished == 1) is (table.link.state is LinkState.CLOSING)


HUBS = st.sampled_from(["user", "market", "echo"])


@pytest.mark.slow
@settings(max_examples=1000)
@given(hub=HUBS, shaken=st.booleans(), received=st.lists(pieces, max_size=6))
def test_any_bytes_end_in_an_answer(hub: str, shaken: bool, received: list[bytes]) -> None:
    """No bytes whatever raise, and the connection ends properly or goes on."""
    hold(hub, shaken, received)


@given(hub=HUBS, shaken=st.booleans(), received=st.lists(pieces, max_size=4))
def test_a_hundred_kinds_of_bytes_end_in_an_answer(hub: str, shaken: bool, received: list[bytes]) -> None:
    """The same in short, for every run."""
    hold(hub, shaken, received)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@settings(max_examples=100_000)
@given(hub=HUBS, shaken=st.booleans(), received=st.lists(pieces, max_size=8))
def test_any_bytes_end_in_an_answer_all_night(hub: str, shaken: bool, received: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    hold(hub, shaken, received)

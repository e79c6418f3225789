"""How records show themselves."""

import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from gateway_model import ACCOUNT, MNQ, GatewayModel
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from topstep_sync import errors, tables
from topstep_sync.api.rooms import Rooms
from topstep_sync.models import Account, Order, OrderSide, OrderStatus, OrderType
from topstep_sync.tables import Rows

WHEN = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)
ORDER = Order(
    id=1, account_id=ACCOUNT, contract_id=MNQ.id, creation_timestamp=WHEN, status=OrderStatus.OPEN,
    type=OrderType.LIMIT, side=OrderSide.BUY, size=1, limit_price=21000.25, custom_tag=None,
)  # fmt: skip


def test_a_record_is_one_line() -> None:
    """The repr is constructor-like, names enum members, and leaves out what is absent."""
    assert (
        "Order(id=1, account_id=536, contract_id='CON.F.US.MNQ.Z26', creation_timestamp=2026-11-24T14:30:00Z, "
        "status=OPEN, type=LIMIT, side=BUY, size=1, limit_price=21000.25)"
    ) == repr(ORDER)
    assert ("id", 1) == next(iter(ORDER.__rich_repr__()))


def test_defaults_are_left_out() -> None:
    """A field that has its default says nothing."""
    report = Rooms(GatewayModel().call, get=str).orders.cancel_all(ACCOUNT)
    assert "Report(account_id=536, verified=True)" == repr(report)


def test_a_record_is_a_small_table() -> None:
    """In a notebook a record is a table of its facts."""
    shown = ORDER._repr_html_()
    assert 10 == shown.count("<tr>")  # the head, and nine facts
    assert "21000.25" in shown
    assert "UNSET" not in shown


@given(st.text())
def test_whatever_the_gateway_sends_is_escaped(text: str) -> None:
    """Text of the gateway cannot become markup of a notebook."""
    account = Account(id=1, name=text + "<script>", balance=0.0, can_trade=True, is_visible=True)
    for shown in (account._repr_html_(), Rows([account])._repr_html_(), tables.table(("<b>",), [(text,)], "<i>")):
        assert not {"<script", "<b>", "<i>"} & {shown[i : i + n] for n in (3, 7) for i in range(len(shown))}


def test_a_list_is_a_table() -> None:
    """A list of records has a column for each field that one of them has, and stays on one screen."""
    rows = Rows([replace(ORDER, id=n) for n in range(100)])
    shown = rows._repr_html_()
    assert 1 + tables.HEAD + 1 + tables.TAIL == shown.count("<tr>")
    assert ("100 × Order" in shown, "custom_tag" in shown, "limit_price" in shown) == (True, False, True)
    assert "<i>nothing</i>" == Rows()._repr_html_()
    assert '"></td>' in Rows([ORDER, replace(ORDER, limit_price=UNSET)])._repr_html_()


def test_a_list_is_a_list() -> None:
    """A list of records is a list in every way; its repr is short, its slices are of its kind."""
    rows = Rows([replace(ORDER, id=n) for n in range(10)])
    assert "… 8 more …" in repr(rows)
    assert repr([ORDER]) == repr(Rows([ORDER]))
    assert (Rows, list, Order) == (type(rows[2:4]), type(list(rows)), type(rows[-1]))
    assert [] == Rows().columns()


def test_a_list_becomes_a_frame() -> None:
    """A frame has one row each, enum members by name, and what is absent is missing."""
    frame = Rows([ORDER, replace(ORDER, id=2, limit_price=UNSET)]).to_frame()
    assert ([1, 2], ["BUY", "BUY"]) == (list(frame["id"]), list(frame["side"]))
    assert [False, True] == list(frame["limit_price"].isna())
    assert 0 == len(Rows().to_frame())


def test_an_empty_list_still_has_its_columns() -> None:
    """Where it is known what the rows would be, a frame of none has their columns, and so has a slice of it."""
    model = GatewayModel()
    rooms = Rooms(model.call, get=str, clock=model.clock)
    for empty in (rooms.orders.working(ACCOUNT), rooms.orders.search_open(ACCOUNT)[:0], Rows(of=Order)):
        assert list(Order.__struct_fields__) == list(empty.to_frame().columns)
        assert "<i>no Order</i>" == empty._repr_html_()
    assert ["id", "account_id"] == list(rooms.positions.search_open(ACCOUNT).to_frame().columns)[:2]


@pytest.mark.parametrize("module", ["pandas", "tqdm.auto", "IPython.display"])
def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Without the extra, frames, progress and watching say which one it is."""
    from topstep_sync import notebook

    uses: dict[str, Any] = {
        "pandas": lambda: Rows([ORDER]).to_frame(), "tqdm.auto": lambda: notebook.progress("x"),
        "IPython.display": lambda: notebook.watch(None),
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(errors.MissingExtra, match=r"topstep-sync\[notebook\]"):
        uses[module]()


def test_times_are_short() -> None:
    """UTC is a Z, and a fraction is shown where there is one."""
    assert "2026-11-24T14:30:00Z" == tables.moment(WHEN)
    assert "2026-11-24T14:30:00.000001Z" == tables.moment(WHEN.replace(microsecond=1))
    assert "2026-11-24T14:30:00" == tables.moment(WHEN.replace(tzinfo=None))

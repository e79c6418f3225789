"""Versions: which of two records of an order is the later one, and whether two records say the same."""

from msgspec import UNSET
from msgspec.structs import replace
from test_reconcile import at, order, position

from topstep_sync.models import OrderStatus
from topstep_sync.realtime.versions import is_newer, same


def test_versions_of_an_order() -> None:
    """By time first; at the same instant by its end and the filled volume; rounding is no difference."""
    base = order(updated=1.0)
    assert (True, False) == (is_newer(order(updated=2.0), base), is_newer(order(updated=0.5), base))
    assert not is_newer(order(updated=1.000001), base)
    assert is_newer(order(updated=1.0, fill_volume=1), base)
    filled = order(status=OrderStatus.FILLED, updated=1.0)
    assert (True, False) == (is_newer(filled, base), is_newer(base, filled))
    assert not is_newer(base, order(updated=1.0, fill_volume=1))
    assert is_newer(order(updated=1.0, limit_price=2.0), order(updated=1.0, limit_price=3.0))
    bare = replace(base, update_timestamp=UNSET, creation_timestamp=at(1.0))
    assert not is_newer(bare, base)


def test_what_one_side_leaves_out_is_no_difference() -> None:
    """The hub omits nulls and REST may know more fields; a price may be a rounding error apart."""
    assert same(order(limit_price=None), order(limit_price=5.0, custom_tag="x"))
    assert same(position(1, 0.1 + 0.2), position(1, 0.3))
    assert not same(position(1, 0.31), position(1, 0.3))

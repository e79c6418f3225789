"""The order book built from depth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.errors import InvalidRequest
from topstep_sync.models import Contract, Depth, DepthType
from topstep_sync.realtime.book import Book, Books
from topstep_sync.realtime.state import TradingState


def update(kind: DepthType, price: float = 0.0, volume: int = 1) -> Depth:
    return Depth(type=kind, price=price, volume=volume)


def test_levels_are_set_and_removed() -> None:
    """A volume sets the level, zero removes it; sides are sorted best first."""
    book = Book("A")
    book.apply([update(DepthType.BID, 10.0, 5), update(DepthType.BID, 9.0, 7), update(DepthType.ASK, 11.0, 3)])
    book.apply([update(DepthType.ASK, 12.0, 4), update(DepthType.BID, 10.0, 6)])
    assert ([(10.0, 6), (9.0, 7)], [(11.0, 3)]) == (book.bids(), book.asks(1))
    book.apply([update(DepthType.BID, 10.0, 0), update(DepthType.BID, 99.0, 0)])
    assert (9.0, 11.0, 7) == (book.best_bid, book.best_ask, book.updates)


def test_a_best_price_leaves_nothing_better() -> None:
    """BestBid and NewBestBid drop higher bids, BestAsk and NewBestAsk lower asks."""
    book = Book("A")
    book.apply([update(DepthType.BID, p) for p in (10.0, 11.0)] + [update(DepthType.ASK, p) for p in (12.0, 13.0)])
    book.apply([update(DepthType.NEW_BEST_BID, 10.5), update(DepthType.BEST_ASK, 12.5)])
    assert (10.5, 12.5) == (book.best_bid, book.best_ask)


def test_reset_and_the_rest() -> None:
    """Reset clears both sides; types that are no levels change nothing."""
    book = Book("A")
    book.apply([update(DepthType.BID, 10.0), update(DepthType.TRADE, 5.0), update(DepthType.LOW, 1.0)])
    assert "Book('A', bid=10.0, ask=None, updates=3)" == repr(book)
    book.apply([update(DepthType.RESET)])
    assert (None, None, 0) == (book.best_bid, book.best_ask, book.updates)


@given(
    st.lists(st.builds(update, st.sampled_from(list(DepthType)), st.sampled_from([1.0, 2.0, 3.0]), st.integers(0, 3)))
)
def test_no_level_is_empty(updates: list[Depth]) -> None:
    """Whatever comes, what the book shows has volume, and its best prices are its first levels."""
    book = Book("A")
    book.apply(updates)
    assert all(volume > 0 for _, volume in book.bids() + book.asks())
    assert [book.best_bid, book.best_ask] == [side[0][0] if side else None for side in (book.bids(), book.asks())]


def test_a_book_is_asked_for_by_contract_or_id() -> None:
    """The contract itself does, and what can be neither is refused instead of being an empty book for ever."""
    books = Books()
    contract = Contract(
        id="A", name="A", description="", tick_size=1.0, tick_value=1.0, active_contract=True, symbol_id="F.US.A"
    )
    assert books.of("A") is books.of(contract)
    for wrong in (None, 5):
        with pytest.raises(InvalidRequest, match="expected a contract"):
            books.of(wrong)  # type: ignore[arg-type]


def test_a_position_is_asked_for_by_objects_or_ids() -> None:
    """A position asked for in a way in which none can be found is not flat, but an error."""
    state = TradingState()
    assert None is state.position(5, "A")
    with pytest.raises(InvalidRequest, match="expected an account"):
        state.position("5", "A")  # type: ignore[arg-type]

"""The seeded market."""

import itertools

import pytest
from simulator_world import MNQ, Desk

MES, OLD = "CON.F.US.MES.Z26", "CON.F.US.ENQ.U26"


def market_events(desk: Desk, contract: str = MNQ):
    return [(p.target, p.arguments) for p in desk.published if p.contract_id == contract]


def test_the_same_seed_gives_the_same_market() -> None:
    """Everything published is a function of seed and time."""

    def run(seed: int):
        desk = Desk(seed=seed, market_rate=10.0)
        desk.world.markets.watch(MNQ)
        desk.world.clock.advance(20.0)
        return market_events(desk)

    first = run(1)
    assert first == run(1)
    assert first != run(2)
    assert len(first) > 100


def test_a_market_nobody_watches_stands_still() -> None:
    """Without a watcher nothing is published, however much time passes."""
    desk = Desk(market_rate=10.0)
    desk.published.clear()
    desk.world.clock.advance(60.0)
    assert [] == desk.published
    desk.world.markets.watch(MES)
    desk.world.clock.advance(5.0)
    assert {MES} == {p.contract_id for p in desk.published}


def test_an_order_makes_its_market_move_and_fill_it() -> None:
    """A resting order near the market fills by the walk alone."""
    desk = Desk(market_rate=50.0)
    order = desk.limit(20999.5)
    desk.world.clock.advance(120.0)
    assert order.filled == order.size


def test_prices_move_tick_by_tick_and_books_are_not_crossed() -> None:
    """Each step is one tick at most, bid below last below ask, and trades happen at the last price."""
    desk = Desk(market_rate=20.0)
    desk.world.markets.watch(MNQ)
    desk.published.clear()
    desk.world.clock.advance(30.0)
    quotes = [arguments[1] for target, arguments in market_events(desk) if target == "GatewayQuote"]
    assert all(abs(b["bestBid"] - a["bestBid"]) <= 0.25 for a, b in itertools.pairwise(quotes))
    assert all(q["bestBid"] < q.get("lastPrice", q["bestAsk"] - 0.25) < q["bestAsk"] for q in quotes)
    assert 0 < sum("lastPrice" in q for q in quotes) < len(quotes)
    trades = [arguments[1] for target, arguments in market_events(desk) if target == "GatewayTrade"]
    assert all(t["contractId"] == MNQ and t["volume"] > 0 for batch in trades for t in batch)


def test_the_mix_of_events_is_the_recorded_one() -> None:
    """About 42 quotes to 20 trades to 62 records of depth."""
    desk = Desk(market_rate=42.0)
    desk.world.markets.watch(MNQ)
    desk.published.clear()
    desk.world.clock.advance(60.0)
    seen = {"GatewayQuote": 0, "GatewayTrade": 0, "GatewayDepth": 0}
    for target, arguments in market_events(desk):
        seen[target] += len(arguments[1]) if isinstance(arguments[1], list) else 1
    assert pytest.approx(42 * 60, rel=0.1) == seen["GatewayQuote"]
    assert pytest.approx(20 * 60, rel=0.15) == seen["GatewayTrade"]
    assert pytest.approx(62 * 60, rel=0.15) == seen["GatewayDepth"]


def test_the_rate_can_be_changed_and_stopped() -> None:
    """Watched markets follow the rate; at 0 they stand still, and go on later."""
    desk = Desk(market_rate=10.0)
    markets = desk.world.markets
    markets.watch(MNQ)
    markets.set_rate(0.0)
    desk.published.clear()
    desk.world.clock.advance(10.0)
    assert [] == desk.published
    markets.set_rate(100.0)
    desk.world.clock.advance(10.0)
    assert len(market_events(desk)) > 1000


def test_a_set_price_holds_its_ground() -> None:
    """After a jump the walk goes on from there, and does not run back to where it was."""
    desk = Desk(market_rate=10.0)
    desk.world.markets.watch(MNQ)
    desk.move(25000.0)
    desk.world.clock.advance(60.0)
    market = desk.world.markets.get(MNQ)
    assert market is not None
    assert abs(market.instrument.price(market.last) - 25000.0) < 100.0


def test_images_are_whole() -> None:
    """The first quote has every field and the first book both sides, best first."""
    markets = Desk().world.markets
    quote = markets.quote(MNQ)
    assert quote is not None
    assert {
        "symbol", "symbolName", "contract", "lastPrice", "bestBid", "bestAsk", "change", "changePercent", "open",
        "high", "low", "volume", "lastUpdated", "timestamp",
    } == set(quote)  # fmt: skip
    book = markets.depth(MNQ)
    bids, asks = ([row["price"] for row in book if row["type"] == kind] for kind in (2, 1))
    assert (sorted(bids, reverse=True), sorted(asks)) == (bids, asks)
    assert bids[0] < quote["lastPrice"] < asks[0]


def test_contracts_without_a_market() -> None:
    """Expired and unknown contracts have no market, no quote, no book and no price to set."""
    markets = Desk().world.markets
    for contract in (OLD, "x"):
        assert (None, None, [], None) == (
            markets.get(contract), markets.quote(contract), markets.depth(contract), markets.watch(contract),
        )  # fmt: skip
        with pytest.raises(ValueError, match="no active contract"):
            markets.set_price(contract, 1.0)
    with pytest.raises(ValueError, match="whole number of ticks"):
        markets.set_price(MNQ, 21000.1)


def test_a_closed_market_does_not_move() -> None:
    """Outside trading hours the walk stands still, and goes on when the session opens."""
    desk = Desk(market_rate=0.05, hours="cme", start=1_795_878_000.0)  # a Saturday
    desk.world.markets.watch(MNQ)
    desk.published.clear()
    desk.world.clock.advance(3600.0)
    assert [] == desk.published
    desk.world.clock.advance(48 * 3600.0)
    assert market_events(desk)

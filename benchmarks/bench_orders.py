"""ORDER-001: what a safe order costs over the plain call, and how soon a lost reply is a definite answer.

The first race is `orders.place` (tag, checks, states) against the typed call it makes, and the raw drop-in post: by a
server that costs nothing, and by the simulator, each in a process of its own. In the second every reply of the
simulator's Order/place is lost after the order was accepted. Expected: at most 5 % over the plain call; an answer
within 300 ms with the user hub open, and within 1 s by REST alone.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks._measure import Samples, compare, options, report
from benchmarks._server import running
from topstep_sync.api.placing import PLACE
from topstep_sync.config import Config
from topstep_sync.messages import PlaceOrder, PlaceReply
from topstep_sync.models import OrderSide, OrderType
from topstep_sync.session import Session

ACCOUNT, MNQ = 704, "CON.F.US.MNQ.Z26"
UNLIMITED = {"general_limit": 10_000_000}
PATIENT = {"consecutive_failures": 10_000_000, "min_calls": 10_000_000}  # here every single reply is lost
WITH_HUB, BY_REST = 0.300, 1.000  # seconds


@contextlib.contextmanager
def simulator(*arguments: str) -> Iterator[dict[str, Any]]:
    """A simulator in a process of its own, and what it says about itself."""
    command = [sys.executable, "-m", "topstep_sync.simulator", "--json", "--market-rate", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def config_of(told: dict[str, Any], **changes: Any) -> Config:
    names = ("user_name", "api_key", "user_hub_url", "market_hub_url")
    return Config.of({**{name: told[name] for name in names}, "base_url": told["url"], **changes})


def overhead(name: str, session: Session, rounds: int, number: int) -> dict[str, Any]:
    """`place` against the call that it makes, and the raw post; every tag is a new one in all three."""
    tags = map(str, itertools.count(time.time_ns()))

    def request() -> PlaceOrder:
        return PlaceOrder(
            account_id=ACCOUNT,
            contract_id=MNQ,
            type=OrderType.MARKET,
            side=OrderSide.BUY,
            size=1,
            custom_tag=next(tags),
        )

    body = {"accountId": ACCOUNT, "contractId": MNQ, "type": 2, "side": 0, "size": 1}
    race = compare(
        {
            "orders.place": lambda: session.orders.place(ACCOUNT, MNQ, side="buy", size=1),
            "typed call": lambda: session.call(PLACE, request(), PlaceReply),
            "session.post": lambda: session.post(PLACE, json={**body, "customTag": next(tags)}).json(),
        },
        rounds=rounds,
        number=number,
        warmup=50,
    )
    return report(f"orders.place.{name}", race, ours="orders.place", unit="order", bound={"typed call": 0.95})


def overheads(rounds: int, number: int) -> None:
    """By a server that costs nothing, and by the simulator, which executes what it accepts."""
    with running() as url, Session("bench", "key-of-no-value", config={"base_url": url, "rate": UNLIMITED}) as session:
        overhead("free", session, rounds, number)
    with simulator("--general-limit", "10000000") as told, Session(config=config_of(told, rate=UNLIMITED)) as session:
        overhead("simulator", session, rounds, number)


def lost_replies(count: int) -> None:
    """Seconds from the call to the definite answer, with the hub open and without."""
    losing = ("--general-limit", "1000000", "--fault", "Order/place:lose:times=1000000")
    with simulator(*losing) as told, Session(config=config_of(told, rate=UNLIMITED, breaker=PATIENT)) as session:
        session.accounts.search()
        by_rest = [answered(session) for _ in range(count)]
        with session.subscribe(accounts=[ACCOUNT]):
            with_hub = [answered(session) for _ in range(count)]
    for name, found, allowed in (("hub", with_hub, WITH_HUB), ("rest", by_rest, BY_REST)):
        race = {f"with {name}": Samples(found, [0.0] * count), "allowed": Samples([allowed] * count, [0.0] * count)}
        report(
            f"orders.lost_reply.{name}", race, ours=f"with {name}", unit="lost reply", bound={"allowed": 1.0},
            worst=max(found),
        )  # fmt: skip


def answered(session: Session) -> float:
    begun = time.perf_counter()
    placed = session.orders.buy(ACCOUNT, MNQ, 1)
    assert placed.record, "the reply was not lost"
    return time.perf_counter() - begun


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    overheads(rounds=asked.pick(quick=5, full=31), number=asked.pick(quick=100, full=400))
    lost_replies(asked.pick(quick=5, full=30))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

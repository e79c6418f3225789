"""Every fault of the simulator × {read, change, order} × {raw, typed}: what the caller gets, and what the server saw.

`python -m tests.test_faults` prints the table.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import requests

from topstep_sync.errors import Fate, TopstepError
from topstep_sync.messages import AccountsReply, ModifyOrder, Reply, SearchAccounts
from topstep_sync.session import Session
from topstep_sync.simulator.faults import REST_KINDS
from topstep_sync.testing import Gateway

CONTRACT = "CON.F.US.MNQ.Z26"
TOTAL, READ_TIMEOUT, ATTEMPTS = 0.9, 0.25, 3
HTTP = {"total_timeout": TOTAL, "read_timeout": READ_TIMEOUT, "connect_timeout": 0.5}
SETTINGS: dict[str, Any] = {
    "http": HTTP,
    "retry": {"base_delay": 0.01, "throttle_delay": 0.01, "max_attempts": ATTEMPTS, "budget_min": 1000},
    "breaker": {"consecutive_failures": 1000, "failure_share": 1.0, "min_calls": 1000},
    "orders": {"verify_seconds": (0.05, 0.1, 0.2)},
}

# What each kind needs beyond its name. Seconds: longer than the read timeout, and for drips longer than the deadline.
OPTIONS: dict[str, dict[str, Any]] = {
    "late": {"seconds": 0.4},
    "slow": {"seconds": 0.4},
    "slow-headers": {"seconds": 4.0},
    "drip": {"seconds": 0.05},
    "status": {"status": 503},
    "after": {"status": 500},
}


# A read gets no result from these: they last beyond the deadline, or are answers that say no, or no JSON.
NEVER_READ = ("slow-headers", "drip", "html", "code", "code-after")


class Seen(NamedTuple):
    """What became of one call."""

    got: Any
    arrivals: int
    seconds: float

    @property
    def fate(self) -> Fate | None:
        return getattr(self.got, "fate", None)

    def __str__(self) -> str:
        got = self.got
        if isinstance(got, requests.Response):
            got = f"HTTP {got.status_code}"
        elif isinstance(got, Exception):
            got = f"{type(got).__name__} ({self.fate.value if self.fate else '-'})"
        else:
            got = type(got).__name__
        return f"{got}, seen {self.arrivals}×, {self.seconds:.1f} s"


ORDER = {"accountId": 536, "contractId": CONTRACT, "type": 1, "side": 0, "size": 1, "limitPrice": 1000.0}

Deed = Callable[[Session, int], Any]

DEEDS: dict[tuple[str, str], tuple[str, Deed]] = {
    ("read", "raw"): ("Account/search", lambda s, _: s.post("/api/Account/search", json={"onlyActiveAccounts": True})),
    ("read", "typed"): (
        "Account/search",
        lambda s, _: s.call("/api/Account/search", SearchAccounts(only_active_accounts=True), AccountsReply),
    ),
    ("change", "raw"): (
        "Order/modify",
        lambda s, order: s.post("/api/Order/modify", json={"accountId": 536, "orderId": order, "limitPrice": 999.0}),
    ),
    ("change", "typed"): (
        "Order/modify",
        lambda s, order: s.call(
            "/api/Order/modify", ModifyOrder(account_id=536, order_id=order, limit_price=998.0), Reply
        ),
    ),
    ("order", "raw"): ("Order/place", lambda s, _: s.post("/api/Order/place", json=ORDER)),
    ("order", "typed"): (
        "Order/place",
        lambda s, _: s.orders.place(536, CONTRACT, side="buy", size=1, limit_price=1000.0),
    ),
}


def observe(gateway: Gateway, session: Session, kind: str, safety: str, face: str) -> Seen:
    """One call that meets one fault, once."""
    operation, deed = DEEDS[safety, face]
    with Session(config=gateway.config) as patient:  # the other one gives up too soon on a busy machine
        order = patient.post("/api/Order/place", json=ORDER).json()["orderId"]
    session.contracts.get(CONTRACT)  # known already, so that the order below is one call
    before = len(gateway.requests)
    options = {"times": 1, **OPTIONS.get(kind, {})}
    with gateway.faults.add(operation, kind, **options):
        begun = time.monotonic()
        try:
            got = deed(session, order)
        except Exception as error:
            got = error
        seconds = time.monotonic() - begun
    arrived = [one for one in gateway.requests[before:] if one.path.lower().endswith(operation.lower())]
    return Seen(got, len(arrived), seconds)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(market_rate=0.0, limiter="none") as one:
        yield one


@pytest.fixture
def session(gateway: Gateway) -> Iterator[Session]:
    with Session(config=gateway.config_with(**SETTINGS)) as one:
        yield one


def worked(got: Any) -> bool:
    if isinstance(got, requests.Response):
        return got.status_code == 200 and b'"success":true' in got.content
    return not isinstance(got, Exception)


def connections(session: Session) -> int:
    """Open pooled connections; everything else is closed when no call is under way."""
    pool = session._adapter._pool
    assert pool is not None
    return sum(one is not None and not one.is_closed for one in pool[0].pool.queue)


CASES = list(itertools.product(REST_KINDS, ("read", "change", "order"), ("raw", "typed")))

LASTING = ("drip", "slow-headers")
QUICK = (("read", "raw"), ("order", "typed"))

# These last until the deadline, so a few of them stand for all in the quick run.
MARKED = [
    pytest.param(*case, marks=pytest.mark.slow if case[0] in LASTING and case[1:] not in QUICK else ())
    for case in CASES
]


def each_once(gateway: Gateway) -> bool:
    """Whether no two orders bear the same tag."""
    tags = [order.custom_tag for order in gateway.executed_orders if order.custom_tag]
    return len(set(tags)) == len(tags)


@pytest.mark.parametrize(("kind", "safety", "face"), MARKED)
def test_a_fault(kind: str, safety: str, face: str, gateway: Gateway, session: Session) -> None:
    """No hang past the deadline, no second order, no strange exception, no connection lost."""
    seen = observe(gateway, session, kind, safety, face)
    print(f"{kind:<14}{safety:<8}{face:<7}{seen}")
    assert seen.seconds < TOTAL + 1.0
    assert worked(seen.got) or isinstance(seen.got, (requests.Response, requests.RequestException, TopstepError))
    assert each_once(gateway)
    assert not session._adapter._watch._current
    assert connections(session) <= 2
    if safety == "read":
        assert 1 <= seen.arrivals <= ATTEMPTS
        assert worked(seen.got) or kind in NEVER_READ, seen.got
    elif face == "raw" or safety == "change":
        assert seen.arrivals <= 1
    if kind in ("lose", "truncate", "slow", "late", "slow-headers", "drip", "reset-read") and safety != "read":
        assert seen.fate is Fate.UNKNOWN or (safety == "order" and face == "typed")
    if safety == "order" and face == "typed":
        assert seen.arrivals <= 1


def test_a_page_is_returned_raw_and_fetched_again_typed(gateway: Gateway, session: Session) -> None:
    """A login page with status 200 reaches the raw caller as it is; a typed read asks once more."""
    raw = observe(gateway, session, "html", "read", "raw")
    assert (200, 1) == (raw.got.status_code, raw.arrivals)
    assert "<html>" in raw.got.text
    assert 2 == observe(gateway, session, "html", "read", "typed").arrivals


def test_reads_give_up_within_attempts_and_deadline(gateway: Gateway, session: Session) -> None:
    """A lasting fault costs three attempts at most; the raw caller gets the last answer, the typed one an error."""
    operation, deed = DEEDS["read", "raw"]
    session.accounts.search()
    before = len(gateway.requests)
    with gateway.faults.add(operation, "status", status=503, times=None):
        assert 503 == deed(session, 0).status_code
        with pytest.raises(TopstepError) as caught:
            DEEDS["read", "typed"][1](session, 0)
    assert ATTEMPTS == caught.value.attempts
    assert 2 * ATTEMPTS == len(gateway.requests) - before


@pytest.mark.slow
def test_32_threads_meet_random_faults() -> None:
    """32 threads under a third of all calls failing: every order at most once, every call ends, nothing leaks."""
    settings = {**SETTINGS, "rate": {"general_limit": 100_000, "burst": None}}
    with (
        Gateway(market_rate=0.0, limiter="none") as gateway,
        Session(config=gateway.config_with(**settings)) as session,
    ):
        session.accounts.search()
        for kind in ("status", "after", "lose", "reset", "reset-read", "truncate"):
            gateway.faults.add("*", kind, times=None, probability=0.05, **OPTIONS.get(kind, {}))

        def work(number: int) -> list[Any]:
            found = []
            for turn in range(6):
                tag = f"t{number}-{turn}"
                for deed in (
                    lambda: session.accounts.search(),
                    lambda tag=tag: session.post("/api/Order/place", json={**ORDER, "customTag": tag}),
                    lambda: session.post("/api/Account/search", json={"onlyActiveAccounts": True}),
                ):
                    try:
                        found.append(deed())
                    except (requests.RequestException, TopstepError) as error:
                        found.append(error)
            return found

        with ThreadPoolExecutor(32) as pool:
            results = [done.result(60) for done in [pool.submit(work, number) for number in range(32)]]
        assert 32 * 18 == sum(map(len, results))
        gateway.faults.clear()
        assert each_once(gateway)
        assert not session._adapter._watch._current
        assert connections(session) <= 32
        stats = session.stats()["limits"]["general"]
        assert (0, 0) == (stats["in_flight"], stats["waiting"])


if __name__ == "__main__":
    with Gateway(market_rate=0.0, limiter="none") as shown, Session(config=shown.config_with(**SETTINGS)) as client:
        for case in CASES:
            print(f"{case[0]:<14}{case[1]:<8}{case[2]:<7}{observe(shown, client, *case)}")

"""The limiter against ASP.NET Core's own limiters, which nobody here wrote."""

import pytest

from benchmarks._reference import Gateway, reference, spend
from topstep_sync.http.rate_limiter import RateLimiter

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(reference() is None, reason="needs the reference gateway (TOPSTEP_ASPNETCORE)"),
]

FIGURES = {"general_limit": 40, "general_window": 4.0, "history_limit": 15, "history_window": 3.0, "reserved": 0}
SWITCHES = ("--generalLimit", "40", "--generalWindow", "4", "--historyLimit", "15", "--historyWindow", "3")


# Looked at each 100 ms, 30 segments of 0.1 s would last 0.1 to 0.2 s: longer than any window we would believe in.
@pytest.mark.parametrize(("kind", "segments"), [("token", "30"), ("fixed", "1"), ("sliding", "3")])
def test_few_refusals_and_a_full_rate(kind: str, segments: str) -> None:
    """From a cold start, with documented figures, few calls are refused, and hardly any of the rate is lost."""
    with Gateway("--limiter", kind, "--segments", segments, *SWITCHES) as gateway:
        limiter = RateLimiter(FIGURES)
        spend(gateway, limiter, {"general": 14.0, "history": 14.0}, threads=8)
        limiter.close()
        refused = {name: len(gateway.refusals(name)) for name in ("general", "history")}
        accepted = {name: gateway.accepted(name, 0.0, 99.0) for name in ("general", "history")}
    assert max(refused.values()) <= 20, refused
    # Bursts at 0, 4, 8 and 12 s; at 0, 3, 6, 9 and 12 s; one less where the windows turn out longer.
    assert (accepted["general"] >= 120, accepted["history"] >= 60) == (True, True), accepted

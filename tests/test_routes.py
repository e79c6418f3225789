"""What kind of call each path is."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.codes import CODES
from topstep_sync.http.routes import ROUTES, UNKNOWN_ROUTE, Circuit, Priority, Safety, Window, route

PATHS = sorted(json.loads((Path(__file__).parent / "golden" / "schema.json").read_text())["requests"])

READING = ("search", "searchopen", "searchbyid", "query", "available", "retrievebars", "ping")


def test_every_documented_path_has_a_route() -> None:
    """Each operation of the gateway is known, and nothing else."""
    assert {path.lower() for path in PATHS} | {"/api/status/ping"} == set(ROUTES)
    assert set(CODES) == set(ROUTES) - {"/api/status/ping"}


@pytest.mark.parametrize("path", PATHS)
def test_case_slash_and_query_do_not_matter(path: str) -> None:
    """The gateway's routes match in any case, and so do ours."""
    assert {ROUTES[path.lower()]} == {route(path), route(path.upper()), route(f"{path}/"), route(f"{path}?x=Y")}


@pytest.mark.parametrize("path", ROUTES)
def test_only_reading_is_repeated(path: str) -> None:
    """Exactly the paths that only read may be sent again."""
    assert (path.rpartition("/")[2] in READING) == (route(path).safety is Safety.READ)


def test_only_placing_is_verified_by_tag() -> None:
    """ORDER-001 is about one path."""
    assert ["/api/order/place"] == [path for path in ROUTES if route(path).safety is Safety.ORDER]


def test_windows() -> None:
    """Bars have a window of their own, the ping has none, everything else shares one."""
    assert ["/api/history/retrievebars"] == [path for path in ROUTES if route(path).window is Window.HISTORY]
    assert ["/api/status/ping"] == [path for path in ROUTES if route(path).window is Window.FREE]


def test_who_goes_first() -> None:
    """Whatever lowers risk, and authentication, is urgent; bars wait for all others."""
    urgent = {path for path in ROUTES if route(path).priority is Priority.URGENT}
    assert urgent == {
        path for path in ROUTES if "/auth/" in path or path.endswith(("/modify", "/cancel", "closecontract"))
    }
    assert ["/api/history/retrievebars"] == [path for path in ROUTES if route(path).priority is Priority.BULK]


def test_what_passes_an_open_breaker() -> None:
    """Cancelling and closing are tried even while the gateway seems down."""
    assert {path for path in ROUTES if path.endswith(("/cancel", "closecontract"))} == {
        path for path in ROUTES if route(path).must_try
    }


def test_authentication_has_its_own_breaker() -> None:
    """Failing logins do not block orders, nor the other way round."""
    assert {path for path in ROUTES if "/auth/" in path} == {
        path for path in ROUTES if route(path).circuit is Circuit.AUTH
    }


@given(st.text())
def test_an_unknown_path_is_never_repeated(tail: str) -> None:
    """A path nobody told us about is counted, and treated as if it changed something."""
    assert UNKNOWN_ROUTE == route(f"/api/new/{tail}")
    assert (Safety.MUTATION, Window.GENERAL) == (UNKNOWN_ROUTE.safety, UNKNOWN_ROUTE.window)

"""The status page as a file: what it answers, and what it may load. A browser looks at it in `interop/`."""

import re
from typing import Any

import pytest
import requests

from topstep_sync.simulator.faults import KINDS, Fault
from topstep_sync.simulator.hub_methods import HUBS
from topstep_sync.simulator.hub_payloads import MARKET_TOPICS, USER_TOPICS
from topstep_sync.simulator.operations import OPERATIONS
from topstep_sync.simulator.status_page import PAGE


def test_page_is_served_under_a_strict_policy(gateway: Any) -> None:
    """The page comes as HTML that may run its own script and nothing else."""
    answer = requests.get(gateway.url, timeout=10)
    assert (200, "text/html; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", answer.headers["content-security-policy"])
    assert nonce
    assert 2 == answer.text.count(f'nonce="{nonce[1]}"')
    assert "NONCE" not in answer.text


def test_each_page_has_its_own_nonce(gateway: Any) -> None:
    """A nonce is used once."""
    one, two = (requests.get(gateway.url, timeout=10).headers["content-security-policy"] for _ in range(2))
    assert one != two


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 405), ("DELETE", 405)])
def test_other_methods(gateway: Any, method: str, status: int) -> None:
    """Only GET and HEAD are answered."""
    assert status == requests.request(method, gateway.url, timeout=10).status_code


def test_other_hosts_are_refused(gateway: Any) -> None:
    """A name that is not this machine's gets nothing."""
    assert 403 == requests.get(gateway.url, headers={"Host": "evil.example"}, timeout=10).status_code


def test_switches_are_faults_that_can_strike() -> None:
    """Each switch is of a kind there is, for an operation, hub or event there is."""
    switches = re.findall(r'^  \["([^"]+)", "([^"]+)", \{', PAGE, re.MULTILINE)
    assert 10 == len(switches)
    hubs = [f"/hubs/{hub}" for hub in HUBS]
    events = [f"/hubs/user/{name.lower()}" for name in USER_TOPICS] + [
        f"/hubs/market/{n.lower()}" for n in MARKET_TOPICS
    ]
    for operation, kind in switches:
        paths = next(ps for kinds, ps in zip(KINDS, ([*OPERATIONS], hubs, events), strict=True) if kind in kinds)
        assert [path for path in paths if Fault(operation=operation, kind=kind).matches(path)], operation


def test_page_names_nothing_outside() -> None:
    """No address stands in the page, and nothing is put into it as markup."""
    assert not re.findall(r"https?://", PAGE)
    assert "innerHTML" not in PAGE

"""What the doctor sees, and what it says about it."""

import os
import socket
import subprocess
import sys

import pytest

from topstep_sync import Session

NAMES = ["settings", "route", "REST", "clock", "login", "accounts", "user hub", "market hub"]


def test_all_is_well(gateway):
    """On a good gateway every look is fine, no order is placed and no connection left open."""
    with Session(config=gateway.config) as session:
        diagnosis = session.doctor()

    assert diagnosis, str(diagnosis)
    assert NAMES == [finding.name for finding in diagnosis]
    assert not gateway.executed_orders
    assert "Diagnosis(8 of 8 ok)" in repr(diagnosis)
    assert 8 == diagnosis._repr_html_().count("<tr>")


def test_missing_credentials_are_named(gateway):
    """Without credentials the first look says which variables to set, and nothing else is tried."""
    with Session(config=gateway.config_with(user_name=None, api_key=None)) as session:
        diagnosis = session.doctor()

    assert ["settings"] == [finding.name for finding in diagnosis]
    assert "TOPSTEP_USERNAME" in diagnosis[0].text
    assert not gateway.requests


def test_an_unknown_name_and_a_closed_port_are_told_apart():
    """A name nobody knows and a port nobody listens on lead to different advice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Session("joe", "key", base_url=f"http://127.0.0.1:{port}") as session:
        closed = session.doctor()
    with Session("joe", "key", base_url="https://gateway.invalid") as session:
        unknown = session.doctor()

    assert "firewall" in closed[-1].text
    assert "route" == closed[-1].name == unknown[-1].name
    assert "is not known" in unknown[-1].text


def test_a_refused_login_says_what_to_do(gateway):
    """A wrong key ends the looks at the login, with the advice of the error."""
    with Session(config=gateway.config_with(api_key="not-the-key")) as session:
        diagnosis = session.doctor()

    assert "login" == diagnosis[-1].name
    assert "TOPSTEP_API_KEY" in diagnosis[-1].text


def test_one_bad_hub_does_not_hide_the_other(gateway):
    """A hub that refuses is reported with its answer; the other one is looked at all the same."""
    gateway.faults.add("hubs/user", "handshake-error", times=None)
    with Session(config=gateway.config) as session:
        found = {finding.name: finding for finding in session.doctor()}

    assert not found["user hub"].ok
    assert found["market hub"].ok


def test_a_wrong_clock_is_told(gateway, monkeypatch):
    """A machine that is minutes off the gateway's clock is told to set it."""
    with Session(config=gateway.config) as session:
        monkeypatch.setattr(type(session), "skew", lambda self: 300.0)
        found = {finding.name: finding for finding in session.doctor()}

    assert "300 s behind" in found["clock"].text


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"TOPSTEP_API_KEY": "wrong"}, 1)])
def test_the_command_exits_with_what_it_found(gateway, changes, code):
    """`topstep-sync doctor` prints the looks and exits 0 when all is well, 1 otherwise."""
    environment = {**os.environ, **gateway.environ, **changes}
    done = subprocess.run(
        [sys.executable, "-m", "topstep_sync", "doctor"],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip

    assert code == done.returncode
    assert "ok REST" in done.stdout

"""`python -m topstep_sync.simulator`."""

import dataclasses
import json
import signal
import subprocess
import sys
import threading

import pytest
import requests

from topstep_sync.simulator.__main__ import add_fault, main, parser, read_account
from topstep_sync.simulator.faults import HUB_KINDS, REST_KINDS, STREAM_KINDS
from topstep_sync.simulator.gateway import Simulator
from topstep_sync.simulator.operations import OPERATIONS
from topstep_sync.simulator.settings import AccountSpec, Settings

COMMAND = [sys.executable, "-m", "topstep_sync.simulator"]


def run_until_ready(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command prints; it is stopped once it has printed it."""
    stop = threading.Event()
    stop.set()
    assert 0 == main(list(options), stop)
    return capsys.readouterr().out


def test_it_prints_what_other_clients_need(capsys: pytest.CaptureFixture[str]) -> None:
    """URLs, credentials, accounts, and lines to paste into a shell, Python and JavaScript."""
    said = run_until_ready(capsys, "--seed", "9", "--user-name", "me", "--api-key", "mine")
    assert "export TOPSTEP_USERNAME=me" in said
    assert "export TOPSTEP_API_KEY=mine" in said
    assert "/hubs/market" in said
    assert "536 (PRAC-V2-536)" in said
    assert "HubConnectionBuilder" in said


def test_it_prints_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the same facts."""
    said = json.loads(run_until_ready(capsys, "--json"))
    assert {"url", "user_hub_url", "market_hub_url", "user_name", "api_key", "accounts"} == set(said)
    assert [536, 704, 999] == said["accounts"]


def test_accounts_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its switches, instead of the usual ones."""
    said = run_until_ready(capsys, "--json", "--account", "7:PRAC-7:50000:auto_oco", "--account", "8:L:1:no_simulated")
    assert [7, 8] == json.loads(said)["accounts"]
    assert AccountSpec(7, "PRAC-7", 5e4, auto_oco=True) == read_account("7:PRAC-7:50000:auto_oco")
    assert AccountSpec(8, "L", 1.0, simulated=False, can_trade=False) == read_account("8:L:1:no_simulated,no_can_trade")


def test_every_switch_is_an_option() -> None:
    """Each switch but the accounts can be given, with its explanation and default in the help."""
    given = vars(parser().parse_args([]))
    switches = {entry.name for entry in dataclasses.fields(Settings)} - {"accounts"}
    assert switches == set(given) - {"json", "fault", "reference", "account"}
    assert Settings() == Settings.of(**{name: given[name] for name in switches})
    assert all(entry.metadata["help"] for entry in dataclasses.fields(Settings))


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--stop-limit", "true", True), ("--stop-limit", "off", False), ("--closed-code", "5", 5),
        ("--speed", "0.5", 0.5),
        ("--start", "1000", 1000.0), ("--limiter", "fixed", "fixed"), ("--port", "8700", 8700),
    ],
)  # fmt: skip
def test_options_have_their_types(option: str, value: str, expected: object) -> None:
    """Text becomes what the switch takes."""
    name = option.removeprefix("--").replace("-", "_")
    assert expected == getattr(parser().parse_args([option, value]), name)


@pytest.mark.parametrize(
    "options",
    [["--limiter", "x"], ["--stop-limit", "maybe"], ["--port", "-1"], ["--nope"], ["--fault", "x"],
     ["--account", "1"], ["--account", "x:A:1"], ["--account", "1:A:x"], ["--account", "1:A:1:nope"],
     ["--fault", "Order/place:nope"], ["--fault", "Order/place:lose:times"], ["--fault", "Order/place:lose:nope=1"]],
)  # fmt: skip
def test_nonsense_is_told_and_ends_with_2(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is told on stderr, with what was expected."""
    with pytest.raises(SystemExit) as ended:
        main(options, threading.Event())
    assert 2 == ended.value.code
    assert "error:" in capsys.readouterr().err


def test_the_tables_show_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """The tables name every operation, switch and fault; test_readme compares the README's copy with them."""
    assert 0 == main(["--reference"])
    said = capsys.readouterr().out
    switches = [entry.name for entry in dataclasses.fields(Settings)]
    names = [*OPERATIONS, *switches, *REST_KINDS, *HUB_KINDS, *STREAM_KINDS]
    assert not [name for name in names if f"{name}`" not in said]


def test_faults_can_be_given_from_the_start() -> None:
    """Operation, kind and options in one word."""
    with Simulator(market_rate=0) as simulator:
        add_fault(simulator, "Order/place:status:times=2,status=500,body=busy")
        (fault,) = simulator.faults.active()
        assert ("Order/place", "status", 2, 500, "busy") == (
            fault.operation, fault.kind, fault.times, fault.status, fault.body,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the process with status 0 and nothing on stderr."""
    with subprocess.Popen([*COMMAND, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert "pong" == requests.get(f"{url}/api/Status/ping", timeout=10).text
        process.send_signal(number)
        _, complaints = process.communicate(timeout=10)
        assert (0, "") == (process.returncode, complaints)

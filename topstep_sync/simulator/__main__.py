"""`python -m topstep_sync.simulator`: a gateway for any client in any language, until Ctrl-C or SIGTERM."""

import argparse
import dataclasses
import itertools
import json
import signal
import sys
import threading
import types
import typing
from collections.abc import Sequence
from typing import Any, Final

from topstep_sync.simulator.faults import KINDS
from topstep_sync.simulator.gateway import Simulator
from topstep_sync.simulator.reference import markdown
from topstep_sync.simulator.settings import CHOICES, AccountSpec, Settings

_NOT_ON_THE_COMMAND_LINE: Final = ("accounts",)
ACCOUNT_SWITCHES: Final = ("auto_oco", "no_can_trade", "follower", "no_simulated", "violation")
_WAIT: Final = 1.0  # seconds; an untimed wait ignores Ctrl-C on Windows

SETTINGS_TEXT: Final = """\
Simulated gateway at {url}   (Ctrl-C ends it)

  base URL      {url}          (in a browser: the status page)
  user hub      {user_hub_url}
  market hub    {market_hub_url}
  user name     {user_name}
  API key       {api_key}
  accounts      {accounts}

topstep_sync, or anything that reads the environment:
{exports}

Python, any HTTP client:
  BASE_URL, USER, KEY = "{url}", "{user_name}", "{api_key}"

JavaScript (@microsoft/signalr):
  const hub = new signalR.HubConnectionBuilder()
    .withUrl("{user_hub_url}", {{ skipNegotiation: true, transport: 1, accessTokenFactory: () => token }}).build();
"""


def parser() -> argparse.ArgumentParser:
    """The command line: one option for every switch of `Settings`."""
    made = argparse.ArgumentParser(prog="python -m topstep_sync.simulator", description=__doc__)
    made.add_argument("--json", action="store_true", help="print the settings as one JSON line instead of text")
    made.add_argument("--reference", action="store_true", help="print the README's tables and end")
    made.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="OPERATION:KIND[:NAME=VALUE,…]",
        help=f"a fault from the start, such as Order/place:lose:times=2; kinds: {', '.join(itertools.chain(*KINDS))}",
    )
    made.add_argument(
        "--account",
        action="append",
        type=read_account,
        metavar="ID:NAME:BALANCE[:SWITCH,…]",
        help=f"an account instead of the usual three, once for each; switches: {', '.join(ACCOUNT_SWITCHES)}",
    )
    hints = typing.get_type_hints(Settings)
    for entry in dataclasses.fields(Settings):
        if entry.name in _NOT_ON_THE_COMMAND_LINE:
            continue
        option = "--" + entry.name.replace("_", "-")
        text = f"{entry.metadata['help']} (default: {entry.default})".replace("%", "%%")
        made.add_argument(option, type=_reader(hints[entry.name], entry.name), default=entry.default, help=text)
    return made


def read_account(text: str) -> AccountSpec:
    """The account that *text* describes, such as `7:PRAC-7:50000:auto_oco`."""
    number, name, balance, switches = (*text.split(":", 3), "", "", "")[:4]
    chosen = [switch for switch in switches.split(",") if switch]
    unknown = [switch for switch in chosen if switch not in ACCOUNT_SWITCHES]
    if unknown or not name:
        raise argparse.ArgumentTypeError(f"{text!r}; expected ID:NAME:BALANCE, then {', '.join(ACCOUNT_SWITCHES)}")
    try:
        spec = AccountSpec(int(number), name, float(balance))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    changes: dict[str, Any] = {switch.removeprefix("no_"): not switch.startswith("no_") for switch in chosen}
    return dataclasses.replace(spec, **changes)


def _reader(hint: Any, name: str) -> Any:
    """What turns an option's text into a value of the type *hint*."""
    if name in CHOICES:
        kind = type(CHOICES[name][0])
        return lambda text: kind(text)
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return _truth if hint is bool else hint


def _truth(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def add_fault(simulator: Simulator, text: str) -> None:
    """The fault that *text* describes (`Order/place:lose:times=2,skip=1`) is in force.

    Raises:
        ValueError: what was expected instead.
    """
    operation, kind, options = (*text.split(":", 2), "", "")[:3]
    given: dict[str, Any] = {}
    for pair in filter(None, options.split(",")):
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"{pair!r} in --fault {text}; expected NAME=VALUE")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    if not kind:
        raise ValueError(f"--fault {text}; expected OPERATION:KIND, such as Order/place:lose")
    try:
        simulator.faults.add(operation, kind, **given)
    except TypeError as error:
        raise ValueError(f"--fault {text}: {error}") from None


def describe(simulator: Simulator, *, as_json: bool) -> str:
    """What a client needs to know, ready to be pasted."""
    facts = {
        "url": simulator.url,
        "user_hub_url": simulator.user_hub_url,
        "market_hub_url": simulator.market_hub_url,
        "user_name": simulator.user_name,
        "api_key": simulator.api_key,
        "accounts": [account.id for account in simulator.settings.accounts],
    }
    if as_json:
        return json.dumps(facts) + "\n"
    exports = "\n".join(f"  export {name}={value}" for name, value in simulator.environ.items())
    accounts = ", ".join(f"{a.id} ({a.name})" for a in simulator.settings.accounts)
    return SETTINGS_TEXT.format(**facts | {"accounts": accounts, "exports": exports})


def main(argv: Sequence[str] | None = None, stop: threading.Event | None = None) -> int:
    """0 after a clean end; 2 for a switch that does not fit."""
    options = parser()
    given = vars(options.parse_args(argv))
    faults, as_json = given.pop("fault"), given.pop("json")
    accounts = given.pop("account")
    if accounts:
        given["accounts"] = tuple(accounts)
    if given.pop("reference"):
        sys.stdout.write(markdown())
        return 0
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
    try:
        simulator = Simulator(**given).start()
    except (ValueError, OSError) as error:
        options.error(str(error))
    try:
        for text in faults:
            add_fault(simulator, text)
        sys.stdout.write(describe(simulator, as_json=as_json))
        sys.stdout.flush()
        while not stop.wait(_WAIT):
            pass
    except ValueError as error:
        options.error(str(error))
    finally:
        simulator.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

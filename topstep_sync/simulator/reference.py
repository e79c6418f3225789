"""The README's tables of operations, switches and faults, made from the code so that they cannot lie.

``python -m topstep_sync.simulator --reference`` prints them.
"""

import dataclasses
from collections.abc import Iterable

from topstep_sync.codes import CODES
from topstep_sync.simulator.control import PREFIX
from topstep_sync.simulator.control_routes import ROUTES
from topstep_sync.simulator.faults import HUB_KINDS, REST_KINDS, STREAM_KINDS
from topstep_sync.simulator.hub_server import DROPS
from topstep_sync.simulator.limits import FREE, window_of
from topstep_sync.simulator.operations import OPERATIONS, PING
from topstep_sync.simulator.settings import CHOICES, Settings


def markdown() -> str:
    """Five tables, each with its heading."""
    return "\n".join([*_operations(), "", *_switches(), "", *_faults(), "", *_drops(), "", *_control(), ""])


def _table(title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"**{title}**", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _operations() -> list[str]:
    rows = []
    for path, operation in OPERATIONS.items():
        names = CODES[path][1:]
        codes = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1)) or "none"
        rows.append((f"`POST {path}`", window_of(path), "yes" if operation.authorized else "no", codes))
    rows.append((f"`GET {PING}`", FREE, "no", "none"))
    return _table("Operations", ("operation", "window", "token", "error codes"), rows)


def _switches() -> list[str]:
    rows = []
    for entry in dataclasses.fields(Settings):
        ids = ", ".join(str(account.id) for account in Settings().accounts)
        shown = ids if entry.name == "accounts" else f"`{entry.default}`"
        if entry.name in CHOICES:
            shown += " of " + ", ".join(f"`{value}`" for value in CHOICES[entry.name])
        rows.append((f"`{entry.name}`", shown, entry.metadata["help"]))
    return _table("Switches", ("switch", "default", "what it does"), rows)


def _faults() -> list[str]:
    rows = []
    for where, kinds in (("REST call", REST_KINDS), ("hub upgrade", HUB_KINDS), ("hub event", STREAM_KINDS)):
        rows += [(f"`{kind}`", where, text) for kind, text in kinds.items()]
    return _table("Faults", ("kind", "meets a", "what it does"), rows)


def _drops() -> list[str]:
    return _table(
        "Ways to drop a hub connection",
        ("how", "what the client sees"),
        [(f"`{how}`", text) for how, text in DROPS.items()],
    )


def _control() -> list[str]:
    rows = [(f"`{method} {PREFIX}{path}`", route.text) for (method, path), route in ROUTES.items()]
    return _table("Control API, for this machine alone", ("route", "what it does"), rows)

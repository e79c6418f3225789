"""The house stands: imports go down the floors only, and no room grows beyond what one can read."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

import topstep_sync

PACKAGE = Path(topstep_sync.__file__).parent

# Every module of the package, or the package it lies in, has a floor. A new module is entered here.
FLOORS = {
    # 0 ground: knows nobody
    "errors": 0, "fault": 0, "checks": 0, "clock": 0, "redact": 0,
    # 1 words: what every room says
    "config": 1, "models": 1, "messages": 1, "codes": 1, "events": 1, "tables": 1, "ticks": 1,
    # 2 policy: decisions; no sockets, no files
    "http.routes": 2, "http.retry": 2, "http.circuit_breaker": 2, "http.rate_limiter": 2,
    "http.classify": 2,
    "auth.jwt": 2, "auth.service": 2, "auth.token_policy": 2, "auth.refresh": 2, "auth.token_manager": 2,
    "auth.token_cipher": 2, "auth.forks": 2,
    "http.window": 2, "http.learning": 2, "http.line": 2, "http.lane": 2, "http.permit": 2, "http.budgets": 2,
    "http.sharing": 2, "http.shared_window": 2, "http.shared_lane": 2, "http.courier": 2,
    "realtime.signalr": 2, "realtime.subscriptions": 2, "realtime.health": 2, "realtime.queue": 2,
    "realtime.reconcile": 2, "realtime.state": 2, "realtime.book": 2, "realtime.wire": 2, "realtime.lifecycle": 2,
    "realtime.backlog": 2, "realtime.baton": 0, "realtime.ownlock": 2, "realtime.versions": 2, "realtime.hours": 2,
    "realtime.forks": 2,
    "realtime.calls": 2,
    # 3 shells: the only input and output
    "http.budget_sqlite": 3, "http.budget_redis": 3,
    "http.adapter": 3, "http.shared_budget": 3, "http.bearer": 3, "http.prepare": 3, "http.transport": 3,
    "http.watch": 3, "http.pool": 3, "http.drop_in": 3, "http.typed": 3, "http.trip": 3, "http.otel": 3,
    "http.telemetry": 3, "http.forks": 2, "http.guarded": 3, "http.warmth": 3,
    "auth.token_storage": 3, "auth.gateway_auth": 3, "auth.transport": 3, "auth.private_file": 3,
    "auth.token_lock": 3, "auth.passphrase": 3, "auth.redis_storage": 3,
    "realtime.websocket": 3, "realtime.connection": 3, "realtime.stream": 3, "realtime.opening": 3,
    "realtime.link": 3, "realtime.dialing": 3, "realtime.feeds": 3, "realtime.router": 3, "realtime.dispatch": 3,
    "realtime.user_feed": 3, "realtime.tokens": 3, "realtime.monitor": 3, "realtime.waker": 3, "realtime.channel": 3,
    "realtime.owner": 3,
    "api": 3,
    # 4 assembly
    "session": 4, "snapshots": 4, "health": 4, "doctor": 4,
    # 5 doors
    "cli": 5, "__main__": 5, "demo": 5, "screens": 5, "notebook": 5, "testing": 5, "compat": 5, "simulator": 5,
    "recordings": 5,
    # the name itself: the version and the way to the public names
    "": 6, "http": 0, "auth": 0, "realtime": 0,
}  # fmt: skip

# Rooms that do not know each other: the session hands one what it needs of the other.
STRANGERS = {
    "http": {"auth", "realtime", "api"},
    "auth": {"http", "realtime", "api"},
    "realtime": {"http", "auth", "api"},
}
STRANGERS_MAY_SHARE = {"http.routes"}  # a table of words about the gateway's paths

# The simulator shares words with the client and the hub codec, never policies: it must not forgive their bugs.
SIMULATOR_MAY_USE = {
    "errors",
    "checks",
    "clock",
    "redact",
    "config",
    "models",
    "messages",
    "codes",
    "events",
    "realtime.signalr",
}

# Policy decides and does not act: nothing here may be able to.
ACTING = {"socket", "ssl", "select", "selectors", "requests", "urllib3", "websocket", "http", "sqlite3", "subprocess"}

# Third-party library → the modules and packages that may use it.
LIBRARIES = {
    "requests": {"errors", "session", "doctor", "http", "auth.transport", "simulator", "compat"},
    "urllib3": {"session", "http"},
    "websocket": {"realtime.websocket", "realtime.link"},
    "msgspec": {
        "models", "messages", "events", "tables", "session", "http", "auth", "api", "realtime", "simulator", "notebook",
    },
    "cryptography": {"auth"},
    "filelock": {"auth", "http", "api"},
    "platformdirs": {"auth", "http", "api", "config"},
    "uvicorn": {"simulator"}, "httptools": {"simulator"}, "zstandard": {"simulator"},
    "certifi": {"realtime.opening"},
    "click": {"cli", "screens"}, "rich": {"screens"},
    "pandas": {"notebook", "api", "tables"}, "tqdm": {"notebook", "api"}, "IPython": {"notebook"},
    "redis": {"http.budget_redis", "auth"},
    "keyring": {"auth"},
    "signalrcore": {"compat"},
    "opentelemetry": {"session", "http", "realtime"},
    "pytest": {"testing"},
}  # fmt: skip

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def lookup(table: dict[str, int], module: str) -> int | None:
    """The entry of *module* or of the nearest package around it that has one."""
    while module and module not in table:
        module = module.rpartition(".")[0]
    return table.get(module)


def floor(module: str) -> int:
    found = FLOORS.get(module)
    if found is None and "." in module:
        package = module.rpartition(".")[0]
        # The three rooms with two floors name each of their modules; a package with one floor is named as a whole.
        found = None if package in ("http", "auth", "realtime") else lookup(FLOORS, package)
    assert found is not None, f"{module} has no floor yet: enter it in FLOORS of {Path(__file__).name}"
    return found


def imports(path: Path) -> Iterator[str]:
    """The full names that the module at *path* imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def own(path: Path) -> set[str]:
    """The modules of this package that the module at *path* imports, without the package's name."""
    found = set()
    for name in imports(path):
        head, _, rest = name.partition(".")
        if head == "topstep_sync":
            found.add(rest if rest in MODULES else rest.rpartition(".")[0])
    return found


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function of the module at *path*; its docstring not counted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            text = ast.get_docstring(node, clean=False)
            quoted = first.end_lineno - first.lineno + 1 if text is not None and first.end_lineno else 0
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - quoted


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    """A module imports from its own floor or from lower ones, never from above."""
    upward = {name for name in own(MODULES[module]) if floor(name) > floor(module)}
    assert set() == upward


def test_no_circle() -> None:
    """No chain of imports leads back to where it began."""
    graph = {module: own(path) - {module} for module, path in MODULES.items() if module}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for target in sorted(graph.get(module, set())):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", [m for m in MODULES if m.partition(".")[0] in STRANGERS])
def test_strangers_do_not_meet(module: str) -> None:
    """http, auth and realtime do not import each other; the session hands them what they need."""
    strangers = STRANGERS[module.partition(".")[0]]
    met = {n for n in own(MODULES[module]) - STRANGERS_MAY_SHARE if n.partition(".")[0] in strangers}
    assert set() == met


@pytest.mark.parametrize("module", [m for m in MODULES if m.partition(".")[0] == "simulator"])
def test_the_simulator_forgives_nothing(module: str) -> None:
    """The simulator shares words and the codec with the client, and none of its policies."""
    shared = {name for name in own(MODULES[module]) if name.partition(".")[0] != "simulator"}
    assert set() == shared - SIMULATOR_MAY_USE


@pytest.mark.parametrize("module", [m for m in MODULES if m and FLOORS.get(m) == 2])
def test_policy_cannot_act(module: str) -> None:
    """A policy module imports nothing that could open a connection, a file or a process."""
    acting = {name for name in imports(MODULES[module]) if name.partition(".")[0] in ACTING}
    assert set() == acting


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_in_their_rooms(module: str) -> None:
    """A third-party library is imported only where the table says."""
    used = {name.partition(".")[0] for name in imports(MODULES[module])} & set(LIBRARIES)
    strayed = {name for name in used if not any(f"{module}.".startswith(f"{room}.") for room in LIBRARIES[name])}
    assert set() == strayed


@pytest.mark.parametrize("module", MODULES)
def test_rooms_stay_small(module: str) -> None:
    """No module is longer than 400 lines, and no function than 40."""
    path = MODULES[module]
    long = [f"{name}: {lines}" for name, lines in functions(path) if lines > 40]
    assert (len(path.read_text().splitlines()) <= 400, []) == (True, long)


def test_functions_are_short() -> None:
    """Half of all functions are shorter than 8 lines."""
    assert statistics.median(lines for path in MODULES.values() for _, lines in functions(path)) < 8

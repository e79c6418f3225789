"""Several real processes with many threads each, one gateway, one token."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_server import needs_redis, running

pytest.importorskip("uvicorn", reason="needs the simulator")

pytestmark = pytest.mark.timeout(600)  # each test starts up to eight interpreters, on a machine that may be busy

PROCESSES, THREADS = 4, 16

# One process: at each line of input all its threads ask for a token, with the 401 of the last one if told so.
WORKER = """
import json, sys, threading
from topstep_sync.auth import token_cipher
from topstep_sync.auth.gateway_auth import GatewayAuth
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_storage import TokenStorage
from topstep_sync.config import Config

facts = json.loads(sys.argv[1])
derived = []
derive = token_cipher.TokenCipher._derive
token_cipher.TokenCipher._derive = lambda self, salt, n: derived.append(n) or derive(self, salt, n)
config = Config(user_name=facts["user"], api_key=facts["key"], base_url=facts["url"])
storage = TokenStorage(facts["path"], passphrase="shh", user_name=facts["user"], base_url=facts["url"])
manager = TokenManager(config, GatewayAuth(config), storage=storage)
last = None
print("ready", flush=True)
for line in sys.stdin:
    barrier, found = threading.Barrier(facts["threads"]), []
    def ask(token=last if line.strip() == "rejected" else None):
        barrier.wait()
        found.append(manager.token() if token is None else manager.rejected(token))
    threads = [threading.Thread(target=ask) for _ in range(facts["threads"])]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    last = found[0]
    tokens = sorted({(t.generation, str(t.value)) for t in found})
    print(json.dumps({"calls": len(found), "tokens": tokens, "derived": len(derived)}), flush=True)
"""


class Worker:
    """A process of WORKER."""

    def __init__(self, gateway: Any, path: str) -> None:
        facts = {
            "user": gateway.user_name,
            "key": gateway.api_key,
            "url": gateway.url,
            "path": path,
            "threads": THREADS,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(facts)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        return line.strip() if line == "ready\n" else json.loads(line)


@contextlib.contextmanager
def workers(gateway: Any, path: str) -> Iterator[list[Worker]]:
    """All processes, imported and ready."""
    crew = [Worker(gateway, path) for _ in range(PROCESSES)]
    try:
        assert ["ready"] * PROCESSES == [worker.answer() for worker in crew]
        yield crew
    finally:
        for worker in crew:
            worker.process.kill()
            worker.process.communicate()


def ask(crew: list[Worker], line: str) -> list[Any]:
    """What all answered whom *line* was told at the same time."""
    for worker in crew:
        worker.tell(line)
    return [worker.answer() for worker in crew]


def logins(gateway: Any) -> int:
    return sum(arrival.path.lower().endswith("/loginkey") for arrival in gateway.requests)


def one_token(answers: list[Any]) -> tuple[int, str]:
    """The token that every thread of every process got."""
    tokens = {tuple(token) for answer in answers for token in answer["tokens"]}
    assert (1, [THREADS] * PROCESSES) == (len(tokens), [answer["calls"] for answer in answers])
    return tokens.pop()  # type: ignore[return-value]


def whole_life(gateway: Any, path: str) -> None:
    """Cold start, revocation, warm start: one login each where one is needed."""
    with workers(gateway, path) as crew:
        cold = one_token(ask(crew, "token"))
        assert (1, 1) == (cold[0], logins(gateway))
        gateway.revoke_tokens()
        healed = one_token(ask(crew, "rejected"))
        assert (2, 2) == (healed[0], logins(gateway))
    with workers(gateway, path) as crew:
        answers = ask(crew, "token")
        assert (healed, 2, [1] * PROCESSES) == (one_token(answers), logins(gateway), [a["derived"] for a in answers])


@pytest.mark.slow
def test_one_login(gateway: Any, tmp_path: Path) -> None:
    """4 processes × 16 threads with one file: one login cold, one after a revocation, none warm."""
    whole_life(gateway, str(tmp_path / "joe.token"))


@pytest.mark.slow
class TestOverRedis:
    """The same between machines."""

    pytestmark = needs_redis

    def test_one_login(self, gateway: Any, tmp_path: Path) -> None:
        """4 processes × 16 threads with one Redis: one login cold, one after a revocation, none warm."""
        with running(tmp_path) as url:
            whole_life(gateway, url)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_process_killed_in_its_login_stops_nobody(gateway: Any, tmp_path: Path) -> None:
    """The one that has the lease is killed while it logs in; the others log in once between them."""
    path = str(tmp_path / "joe.token")
    with workers(gateway, path) as crew:
        gateway.faults.slow("Auth/loginKey", 30.0)
        crew[0].tell("token")
        end = time.monotonic() + 20
        while not logins(gateway) and time.monotonic() < end:
            time.sleep(0.01)
        crew[0].process.send_signal(signal.SIGKILL)
        answers = ask(crew[1:], "token")
    tokens = {tuple(token) for answer in answers for token in answer["tokens"]}
    assert (1, 2) == (len(tokens), logins(gateway))

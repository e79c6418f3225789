"""Tokens and limits of the simulator against those of the real ASP.NET Core."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aspnetcore
import pytest
import requests

from topstep_sync.testing import Gateway

pytestmark = [pytest.mark.interop, aspnetcore.needed]


@contextmanager
def both(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[list[str]]:
    """The URLs of a simulator and a reference gateway."""
    with Gateway(market_rate=0, **ours) as gateway, aspnetcore.reference(**theirs) as ready:
        yield [gateway.url, ready["url"]]


def login(url: str) -> requests.Session:
    session = requests.Session()
    body = {"userName": "trader", "apiKey": "key-123"}
    token = session.post(f"{url}/api/Auth/loginKey", json=body, timeout=30).json()["token"]
    session.headers["Authorization"] = f"Bearer {token}"
    return session


def ask(session: requests.Session, url: str, path: str = "Order/searchOpen") -> requests.Response:
    return session.post(f"{url}/api/{path}", json={"accountId": 536}, timeout=30)


def masked(reply: requests.Response) -> tuple[int, Any, str | None]:
    """Status, body and challenge, with the instant in it hidden."""
    challenge = reply.headers.get("WWW-Authenticate")
    body = reply.json() if reply.content else None
    return reply.status_code, body, challenge and re.sub(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", "WHEN", challenge)


def test_expired_tokens_are_told_alike() -> None:
    """After its life a token gets the same 401 from both, with the time of expiry in it."""
    answers = []
    with both({"token_lifetime": 1}, {"tokenLifetime": 1}) as urls:
        sessions = [login(url) for url in urls]
        threading.Event().wait(2.1)
        for session, url in zip(sessions, urls, strict=True):
            answers.append([masked(ask(session, url)), masked(ask(session, url, "Auth/validate"))])
            session.close()
    assert answers[0] == answers[1]
    assert all("The token expired at 'WHEN'" in (challenge or "") for _, _, challenge in answers[0])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [({}, {}), ({"replaced": "revoke"}, {"revokeOldToken": "true"}), ({"validate": "null"}, {"rotateToken": "false"})],
)
def test_validate_and_logout_do_alike(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """What the old and the new token are worth after validate and logout."""
    answers = []
    with both(ours, theirs) as urls:
        for url in urls:
            old, seen = login(url), []
            new = ask(old, url, "Auth/validate").json()["newToken"]
            seen.append((new is None, masked(ask(old, url))))
            if new:
                old.headers["Authorization"] = f"Bearer {new}"
            seen.append(ask(old, url, "Auth/logout").json())
            seen.append(masked(ask(old, url)))
            answers.append(seen)
            old.close()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("form", ["seconds", "date", "none"])
def test_refusals_look_alike(form: str) -> None:
    """429 with an empty body and the same form of Retry-After; logins of nobody have a window of their own."""
    ours = {"limiter": "segmented", "general_limit": 2, "history_limit": 1, "retry_after": form}
    theirs = {"limiter": "sliding", "generalLimit": 2, "historyLimit": 1, "retryAfter": form}
    answers = []
    with both(ours, theirs) as urls:
        for url in urls:
            session, seen = login(url), []
            for path in ("Order/searchOpen", "Auth/validate", "Order/searchOpen", "Nope", "History/retrieveBars",
                         "History/retrieveBars", "Auth/loginKey"):  # fmt: skip
                reply = ask(session, url, path)
                wait = reply.headers.get("Retry-After")
                kind = None if wait is None else "seconds" if wait.isdecimal() else "date"
                seen.append((path, reply.status_code, reply.status_code == 429 and reply.content, kind))
            answers.append(seen)
            session.close()
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_segmented_windows_let_as_much_through() -> None:
    """Hammered for twelve seconds, the imitation of ASP.NET's sliding window accepts what the real one does."""
    ours = {"limiter": "segmented", "general_limit": 30, "general_window": 3.0, "segments": 6}
    theirs = {"limiter": "sliding", "generalLimit": 30, "generalWindow": 3, "segments": 6}
    accepted: dict[str, int] = {}

    def hammer(url: str) -> None:
        session, count, end = login(url), 0, time.monotonic() + 12.0
        while time.monotonic() < end:
            count += ask(session, url).status_code == 200
            threading.Event().wait(0.02)
        accepted[url] = count
        session.close()

    with both(ours, theirs) as urls:
        threads = [threading.Thread(target=hammer, args=(url,)) for url in urls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    mine, real = (accepted[url] for url in urls)
    assert 30 * 12 / 3 * 0.8 < real <= 150
    assert abs(mine - real) <= 30

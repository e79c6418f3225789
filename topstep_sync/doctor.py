"""What can be wrong between here and the gateway, looked at one after the other, each with what to do about it."""

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import requests

from topstep_sync.api.accounts import AccountsApi
from topstep_sync.api.status import StatusApi
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.clock import Clock
from topstep_sync.config import Config
from topstep_sync.errors import TopstepError
from topstep_sync.realtime.connection import SignalRConnectionManager

PATIENCE: Final = 10.0  # seconds for each look
SKEW: Final = 30.0  # seconds a clock may be wrong before tokens and look-ups of orders suffer


class Patient(Protocol):
    """What of a `Session` is looked at."""

    @property
    def config(self) -> Config: ...
    @property
    def tokens(self) -> TokenManager: ...
    @property
    def status(self) -> StatusApi: ...
    @property
    def accounts(self) -> AccountsApi: ...
    def skew(self) -> float: ...
    def tls_context(self) -> ssl.SSLContext | None: ...
    def merge_environment_settings(self, url: str, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any: ...


class _Failed(Exception):
    """A look found trouble; the text says what, and what to do."""


@dataclass(frozen=True)
class Finding:
    """One look."""

    name: str
    ok: bool
    text: str
    """What was seen; where it is trouble, what to do."""

    def __str__(self) -> str:
        return f"{'ok' if self.ok else '!!'} {self.name}: {self.text}"


class Diagnosis(tuple[Finding, ...]):
    """Every look, in order. True when all is well."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return all(finding.ok for finding in self)

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        return f"Diagnosis({sum(finding.ok for finding in self)} of {len(self)} ok)\n{self}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'✔' if finding.ok else '✘'}</td><td>{escape(finding.name)}</td>"
            f"<td style='text-align:left'>{escape(finding.text)}</td></tr>"
            for finding in self
        )
        return f"<table><tbody>{rows}</tbody></table>"


def examine(session: Patient, clock: Clock) -> Diagnosis:
    """Settings, name and route, REST, clock, login, accounts and both hubs of *session* have been looked at.

    Places no order and subscribes to nothing. What cannot work because something before it does not is not tried.
    """
    return Diagnosis(_looks(session, clock))


def _looks(session: Patient, clock: Clock) -> Iterator[Finding]:
    """Each finding, until one that makes the rest pointless."""
    for name, look, essential in (
        ("settings", lambda: _settings(session), True),
        ("route", lambda: _route(session), True),
        ("REST", lambda: _ping(session), True),
        ("clock", lambda: _clock(session), False),
        ("login", lambda: _login(session, clock), True),
        ("accounts", lambda: _accounts(session), False),
        ("user hub", lambda: _hub(session, session.config.user_hub_url), False),
        ("market hub", lambda: _hub(session, session.config.market_hub_url), False),
    ):
        finding = _finding(name, look)
        yield finding
        if essential and not finding.ok:
            return


def _finding(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except (_Failed, TopstepError, requests.RequestException, OSError) as error:
        return Finding(name, False, str(error) or type(error).__name__)


def _settings(session: Patient) -> str:
    if session.config.user_name is None or session.config.api_key is None:
        raise _Failed("no credentials: set TOPSTEP_USERNAME (the platform login) and TOPSTEP_API_KEY")
    return f"{session.config.user_name!r} at {session.config.base_url}"


def _route(session: Patient) -> str:
    base_url = session.config.base_url
    settings = session.merge_environment_settings(base_url, {}, None, None, None)
    proxy = requests.utils.select_proxy(base_url, settings["proxies"])
    parts = urlsplit(proxy or base_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as connection:
            through = "the proxy " if proxy else ""
            return f"{through}{host} is {connection.getpeername()[0]}, port {port} is open"
    except socket.gaierror as error:
        raise _Failed(f"the name {host} is not known ({error}); check the network and the name server") from None
    except OSError as error:
        raise _Failed(f"no connection to {host}:{port} ({error}); check firewall, VPN and proxy settings") from None


def _ping(session: Patient) -> str:
    try:
        return f"the gateway answers within {session.status.ping() * 1000:.0f} ms"
    except requests.exceptions.SSLError as error:
        raise _Failed(f"TLS failed ({error}); a private CA goes into session.verify or REQUESTS_CA_BUNDLE") from None


def _clock(session: Patient) -> str:
    skew = session.skew()
    if abs(skew) > SKEW:
        side = "behind" if skew > 0 else "ahead of"
        raise _Failed(f"this machine is {abs(skew):.0f} s {side} the gateway; let NTP set its clock")
    return (
        "agrees with the gateway's" if not skew else f"{abs(skew):.0f} s apart from the gateway's, which is allowed for"
    )


def _login(session: Patient, clock: Clock) -> str:
    token = session.tokens.token(PATIENCE)
    return f"token for another {(token.expires_at - clock.epoch()) / 3600:.1f} h"


def _accounts(session: Patient) -> str:
    accounts = session.accounts.search()
    able = sum(account.can_trade for account in accounts)
    if not able:
        raise _Failed(f"{len(accounts)} accounts, none of which may trade")
    return f"{len(accounts)}, of which {able} may trade: {', '.join(account.name for account in accounts)}"


def _hub(session: Patient, url: str) -> str:
    connection = SignalRConnectionManager(
        session.tokens, config=session.config, url=url, name="doctor", tls=session.tls_context()
    )
    try:
        if not connection.connect(timeout=PATIENCE):
            raise _Failed(f"no connection to {url} within {PATIENCE:.0f} s: {connection.reason or connection.state}")
        return "connected, the handshake agreed"
    finally:
        connection.disconnect()

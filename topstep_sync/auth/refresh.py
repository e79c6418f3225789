"""One refresh: the store of other processes first, then the gateway. Runs on the refresh thread, without a lock."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Final, NamedTuple, Protocol

import msgspec

from topstep_sync.auth.service import AuthService
from topstep_sync.auth.token_policy import Flight, Plan, Source
from topstep_sync.clock import Clock, Signal, Waitable
from topstep_sync.config import TokenConfig
from topstep_sync.errors import SessionClosed
from topstep_sync.models import Token

log = logging.getLogger("topstep_sync.auth")

LEASE_SECONDS: Final = 60.0  # longer than a validate and a login that both use up their timeouts (5 + 20 s each)


class TokenStore(Protocol):
    """Where the processes of one user leave their token for each other."""

    def load(self) -> Token | None:
        """The stored token, whatever its age; `None` when there is none that can be read."""
        ...

    def save(self, token: Token) -> bool:
        """Whether *token* is stored: not when a newer generation already is."""
        ...

    def clear(self) -> None:
        """Nothing is stored."""
        ...

    def lease(self, timeout: float, cancelled: Waitable | None = None) -> AbstractContextManager[bool]:
        """Whether this process alone may refresh now; False after *timeout* seconds, or once *cancelled* is set."""
        ...


class Outcome(NamedTuple):
    token: Token
    source: Source


class Watch(Protocol):
    """What a refresh has to know of the world it will come back to."""

    def died(self, flight: Flight) -> bool:
        """Whether the token that *flight* set out to confirm was proved dead meanwhile."""
        ...

    def wanted(self, flight: Flight) -> bool:
        """Whether what *flight* brings will be used: not after a logout."""
        ...


class Refresher:
    """Brings a token: another process's, the confirmed old one, or a new one. Runs one refresh at a time."""

    def __init__(self, service: AuthService, store: TokenStore | None, config: TokenConfig, clock: Clock) -> None:
        self._service = service
        self._store = store
        self._config = config
        self._clock = clock
        self._cancelled = Signal()
        self._sick = False  # the store failed in this refresh: no second wait for the same timeout

    def run(self, flight: Flight, watch: Watch) -> Outcome:
        """The token that replaces, or stays, the one of *flight*.

        Raises:
            SessionClosed: `cancel` was called before the gateway was asked.
            Exception: whatever the service raises.
        """
        self._sick = False
        found = self._stored(flight)  # a first look without the lease: a warm start waits for nobody
        if found is not None:
            return Outcome(found, Source.STORED)
        with self._lease() as alone:
            if self._cancelled.is_set():
                raise SessionClosed("closed while a token refresh was under way")
            if not alone:
                log.warning("! no lease on the stored token within %.0f s; refreshing without it", LEASE_SECONDS)
            found = self._stored(flight)
            if found is not None:
                return Outcome(found, Source.STORED)
            outcome = self._ask(flight, watch)
            if outcome.source is Source.NEW and watch.wanted(flight):
                outcome = self._share(outcome.token, flight.generation)
            return outcome

    def cancel(self) -> None:
        """A refresh that waits for another process gives up, and none begins."""
        self._cancelled.set()

    def forget(self) -> None:
        """The store holds nothing."""
        if self._store is not None:
            try:
                self._store.clear()
            except Exception as error:
                log.warning("! the stored token was not removed: %s", error)

    def detach(self) -> None:
        """The store is left alone from now on: the token belongs to another user."""
        self._store = None

    def _ask(self, flight: Flight, watch: Watch) -> Outcome:
        token = flight.token
        if flight.plan is Plan.VALIDATE and token is not None:
            answer = self._service.validate(token)
            if answer is not None and answer.value != token.value:
                return Outcome(answer, Source.NEW)
            if answer is not None and not watch.died(flight):
                return Outcome(token, Source.KEPT)
        return Outcome(self._service.login(), Source.NEW)

    def _load(self) -> Token | None:
        store = self._store
        if store is None or self._sick:
            return None
        try:
            return store.load()
        except Exception as error:
            self._sick = True
            log.warning("! the stored token cannot be read: %s", error)
            return None

    def _stored(self, flight: Flight) -> Token | None:
        """The stored token if it is worth having instead of the one of *flight*."""
        stored, ours = self._load(), flight.token
        if stored is None:
            return None
        margin = min(self._config.mandatory_seconds, max(0.0, stored.expires_at - stored.issued_at) / 10)
        if stored.expires_at - margin <= self._clock.epoch():
            return None
        newer = ours is None or (stored.value != ours.value and stored.generation >= flight.generation)
        return stored if newer else None

    def _share(self, new: Token, generation: int) -> Outcome:
        """*new*, stored for the other processes under the generation that follows theirs and ours."""
        stored = self._load()
        held = generation if stored is None else max(generation, stored.generation)
        new = msgspec.structs.replace(new, generation=held + 1)
        store = self._store
        if store is not None and not self._sick:
            try:
                if not store.save(new):
                    log.info("= another process stored a newer token meanwhile")
            except Exception as error:
                log.warning("! the token is not stored, so other processes log in by themselves: %s", error)
        return Outcome(new, Source.NEW)

    def _lease(self) -> AbstractContextManager[bool]:
        if self._store is None or self._sick:
            return nullcontext(True)
        return self._store.lease(LEASE_SECONDS, self._cancelled)

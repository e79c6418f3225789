"""What the user hub's thread does with accounts, orders, positions and trades: each is delivered once (STATE-001).

After every connect a thread of its own asks REST for a snapshot; meanwhile events wait here, and the hub's thread goes
on answering pings. What is told twice and what is believed is decided in `reconcile`; here is when to ask.

Everything here runs on the owner's thread of the hub, except where a method says otherwise.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from topstep_sync.clock import FOREVER, Clock
from topstep_sync.events import Reconnected
from topstep_sync.realtime.feeds import Feed
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.reconcile import MARGIN, Reconciler, Snapshot
from topstep_sync.realtime.subscriptions import Step
from topstep_sync.realtime.versions import account_of

_log = logging.getLogger("topstep_sync.realtime")

Fetch = Callable[[list[int], float], Snapshot]
Moment = tuple[float, float]  # by the monotonic clock, and in seconds since 1970

RETRY: Final = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)  # seconds between attempts at a snapshot; the last one repeats
DOUBT: Final = 2.0  # seconds two clocks may be apart unseen: the Date header has whole ones. An order too many is told.
RELOOK: Final = 30.0  # GUESS: seconds between snapshots because of records that make no sense


class UserFeed(Feed):
    """Accounts, orders, positions and trades, each delivered once, and the state they amount to."""

    def __init__(self, clock: Clock, fetch: Fetch | None, hold_seconds: float, skew: Callable[[], float]) -> None:
        super().__init__("user", clock)
        self._fetch = fetch
        self._skew = skew
        self._hold_seconds = hold_seconds
        self.reconciler = Reconciler()
        self.wake: Callable[[], None] = lambda: None
        """Wakes the owner's thread; a snapshot has come."""
        self.aside: Callable[[Callable[[], None]], None] = _on_a_thread
        """Runs what may block, and not on the owner's thread."""
        self.agreed: Callable[[int], bool] = lambda account_id: True
        """Whether the hub has answered every subscription to an account."""
        self.sure: Callable[[], Moment] = lambda: (clock.monotonic(), clock.epoch())
        """A moment before which nothing was sent that arrives now or is lost."""
        self._commands: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._gap: tuple[float, float] | None = None  # not reconciled yet: start and end, seconds since 1970
        self._told = False  # whether that gap was told of already
        self._lost_at = 0.0  # monotonic: when it began
        self._missed: Moment | None = None  # when a record came that made no sense
        self._looking: Moment | None = None  # the same, of what the snapshot under way is to tell
        self._look_at = 0.0  # monotonic: the next snapshot because of such records is not before
        self._up = False
        self._wanted_at: dict[int, float] = {}  # account → monotonic: since when
        self._let_go: set[int] = set()  # accounts that were wanted no more, for a while, on this connection
        self._job = 0  # number of the snapshot that is awaited; an older one is of no use
        self._busy = False
        self._ahead = 0.0  # how far the gateway's clock was thought to be ahead when it was asked for
        self._failures = 0
        self._retry_at = 0.0
        self._release_at = FOREVER
        self.trouble: str | None = None
        """Why the last snapshot failed; `None` after one that did not."""
        self._lock = threading.Lock()  # an account that becomes wanted is not overlooked between the two lines
        self.caught_up = threading.Event()
        """Set while every watched account is reconciled."""

    ############################################## from other threads ##############################################

    def watch(self, account_ids: Iterable[int]) -> None:
        """These accounts are wanted from now on; from any thread."""
        command = self._watch, (frozenset(account_ids), self._gateway_now(), self._clock.monotonic())
        with self._lock:
            self.caught_up.clear()
            self._commands.append(command)
        self.wake()  # where the hub has agreed already, nothing else does, and somebody waits for it

    def forget(self, account_ids: Iterable[int]) -> None:
        """These accounts are wanted no more; from any thread."""
        self._commands.append((self._forget, (frozenset(account_ids),)))

    def forked(self) -> None:
        """In a child process: nothing is known."""
        self.reconciler = Reconciler()
        self._commands.clear()
        self._wanted_at.clear()
        self._gap, self._up, self._busy = None, False, False
        self._lock, self.caught_up = threading.Lock(), threading.Event()

    def _watch(self, account_ids: frozenset[int], epoch: float, now: float) -> None:
        for account_id in account_ids:
            self._wanted_at[account_id] = min(now, self._wanted_at.get(account_id, now))
            self.reconciler.watch(account_id, epoch)
        if self._fetch is not None:
            self._hold(self.reconciler.unknown)

    def _forget(self, account_ids: frozenset[int]) -> None:
        self._let_go |= account_ids
        for account_id in account_ids:
            self._wanted_at.pop(account_id, None)
            self.reconciler.forget(account_id)

    ############################################## the connection's life ##############################################

    def _gateway_now(self) -> float:
        """Now, in seconds since 1970, as the gateway dates orders and trades; too early rather than too late."""
        return self._clock.epoch() + self._skew() - DOUBT

    def changed(self, state: State, reason: str | None) -> None:
        if state is not State.CONNECTED:
            if self._up and self._gap is None:
                self._lost_at = self.sure()[0]
            self._up = False
            self._let_go.clear()
            self._job += 1
            self._busy = False
            self._still_missed()
            if state is State.DISCONNECTED:  # nobody was left to be told of it
                self._gap = self._missed = None
            self.reconciler.doubt()
            # What has waited came before the gap that begins; behind its snapshot it would take the state back.
            self._deliver(self.reconciler.release())
            self.caught_up.clear()
            if self._fetch is not None:
                # From now on: events may share a batch with the last answer to the subscriptions.
                wanted = frozenset(account_id for route in self.routes for account_id in route.wanted)
                self._watch(wanted, self._gateway_now(), self._clock.monotonic())
                self._hold(self.reconciler.watched)
        super().changed(state, reason)

    def established(self, gap_start: float | None, gap_end: float) -> None:
        self._run_commands()
        self._up = True
        self._failures, self._retry_at = 0, 0.0
        if gap_start is not None:
            start = min(gap_start, self._gap[0]) if self._gap else gap_start
            self._gap, self._told = (start, gap_end), False
        if self._fetch is None:
            if self._gap is not None:
                self._tell_gap(0, 0, reconciled=False)
                self._gap = None
            self._all_caught_up()
        else:
            self._hold(self.reconciler.watched if self._gap else self.reconciler.unknown)

    def _hold(self, account_ids: set[int]) -> None:
        """Their events wait for a snapshot; on a connection that is up, not for long."""
        self.reconciler.hold(account_ids)
        waiting = self._up and self.reconciler.holding
        self._release_at = self._clock.monotonic() + self._hold_seconds if waiting else FOREVER

    def due(self, now: float) -> float:
        self._run_commands()
        if self._up and not self._busy and self._fetch is not None:
            behind = self._gap is not None or bool(self.reconciler.unknown)
            if not behind:
                self._all_caught_up()
            if now >= self._retry_at and (behind or self._relook_at() <= now):
                self._start()
        if now >= self._release_at:
            self._give_up_waiting()
        idle = self._up and not self._busy
        wanted = min((at for at in (self._retry_at, self._relook_at()) if idle and at > now), default=FOREVER)
        return min(self._release_at, wanted, self.tick(now))

    def missed(self) -> None:
        """REST is asked what the record may have said, now or, where they are many, a little later."""
        self.reconciler.missed()
        if self._missed is None:
            self._missed = self.sure()

    def _relook_at(self) -> float:
        return FOREVER if self._missed is None else self._look_at

    def _still_missed(self) -> None:
        """The snapshot that was to tell what a record said does not come."""
        if self._looking is not None:
            self._missed, self._looking = self._looking, None

    def _run_commands(self) -> None:
        while self._commands:
            command, arguments = self._commands.popleft()
            command(*arguments)

    def refused(self, step: Step, reason: str) -> None:
        if step.target == "SubscribeOrders":
            # An account that is not ours would make every snapshot fail.
            self._forget(frozenset(step.want.arguments))
        super().refused(step, reason)

    ################################################## reconciling ##################################################

    def _start(self) -> None:
        """Fetch a snapshot on a thread of its own: the hub must go on answering pings meanwhile."""
        assert self._fetch is not None
        gap = self._gap
        now = self._clock.monotonic()
        missed = self._missed if gap or self._relook_at() <= now else None
        wanted = self.reconciler.watched if gap or missed else self.reconciler.unknown
        if not wanted:
            self._gap = None
            return
        # What happens between a snapshot and a subscription that stands only later would be in neither.
        accounts = {account_id for account_id in wanted if self.agreed(account_id)}
        if not accounts:
            return  # the hub's answer brings us here again
        self.reconciler.asking()
        self._busy, self._job = True, self._job + 1
        start = self._clock.epoch()
        if gap:
            start = self._by_both_clocks((self._lost_at, gap[0]))
        if missed is not None:
            start = min(start, self._by_both_clocks(missed))
            self._looking, self._missed, self._look_at = missed, None, now + RELOOK
            self._hold(accounts)
        self._ahead = self._skew()
        since = self.reconciler.since(start + self._ahead, accounts)
        try:
            self.aside(partial(self._work, self._job, self._fetch, sorted(accounts), since))
        except RuntimeError as error:  # the system has no thread to spare; the hub goes on, and the next attempt comes
            self._finish(self._job, sorted(accounts), None, f"{type(error).__name__}: {error}")

    def _by_both_clocks(self, moment: Moment) -> float:
        """*moment* in seconds since 1970: the wall clock may have been set back since, and the other stood still."""
        return min(moment[1], self._clock.epoch() - (self._clock.monotonic() - moment[0]))

    def _work(self, job: int, fetch: Fetch, accounts: list[int], since: float) -> None:
        try:
            snapshot, error = fetch(accounts, since), None
        except BaseException as failure:  # whatever it is, or no other snapshot would follow
            snapshot, error = None, f"{type(failure).__name__}: {failure}"
        self._commands.append((self._finish, (job, accounts, snapshot, error)))
        self.wake()

    def _finish(self, job: int, accounts: list[int], snapshot: Snapshot | None, error: str | None) -> None:
        if job != self._job or not self._up:
            return  # the connection was lost meanwhile; another snapshot will follow
        self._busy = False
        if snapshot is not None and self._skew() < self._ahead - MARGIN / 2:
            # Our clock was set forward since the reply before, and only this one says so.
            snapshot, error = None, "our clock was set meanwhile, and the time asked for was too late"
        told: list[Any] = []
        if snapshot is not None:
            try:
                told, lost = self._take_in(snapshot, accounts)
            except Exception as failure:  # something in it that nobody thought of; the stream goes on without it
                error = f"it makes no sense: {type(failure).__name__}: {failure}"
        self.trouble = error
        self.look()
        if error is not None:
            self._failed(error)
            return
        self._failures, self._retry_at, self._looking = 0, 0.0, None
        self._deliver(told)
        if self._gap is not None:
            self._tell_gap(sum(event.recovered for event in told), lost, reconciled=True)
            self._gap = None
        self._release_at = FOREVER
        self._deliver(self.reconciler.release())
        if self.reconciler.unknown:
            self._hold(self.reconciler.unknown)
        else:
            self._all_caught_up()

    def _take_in(self, snapshot: Snapshot, accounts: list[int]) -> tuple[list[Any], int]:
        now = self._clock.monotonic()
        for account_id in self.reconciler.unknown:  # when they became wanted, the gateway's time was less sure than now
            self.reconciler.watch(account_id, self._gateway_now() - (now - self._wanted_at[account_id]))
        return self.reconciler.apply(snapshot, accounts, now, self._clock.epoch())

    def _failed(self, error: str) -> None:
        self._still_missed()
        self._retry_at = self._clock.monotonic() + RETRY[min(self._failures, len(RETRY) - 1)]
        self._failures += 1
        _log.warning("~ no snapshot to reconcile with (attempt %d): %s", self._failures, error)

    def _all_caught_up(self) -> None:
        """Every account that is known of is reconciled; of one that still waits to be known, the next turn tells."""
        with self._lock:
            if not self._commands:
                self.caught_up.set()

    def _give_up_waiting(self) -> None:
        """Live events must not wait for ever for a snapshot that does not come."""
        self._release_at = FOREVER
        if self._gap is not None and not self._told:
            self._told = True
            self._tell_gap(0, 0, reconciled=False)
        self._deliver(self.reconciler.release())

    def _tell_gap(self, recovered: int, lost: int, reconciled: bool) -> None:
        assert self._gap is not None
        start, end = self._gap
        self.tell(
            Reconnected(
                source="user",
                gap_start=start,
                gap_end=end,
                recovered_count=recovered,
                lost=lost,
                reconciled=reconciled,
            )
        )

    def ages(self, now: float) -> dict[str, float]:
        """Account → seconds since its last event, or since it is wanted. A quiet one is no trouble. From any thread."""
        accounts = sorted(frozenset().union(*(route.wanted for route in self.routes)))
        heard = {
            account: max(self.last_data.get(account, 0.0), self._wanted_at.get(account, 0.0)) for account in accounts
        }
        return {f"account {account}": now - at for account, at in heard.items() if at}

    ################################################### delivering ###################################################

    def take(self, events: list[Any], now: float, epoch: float) -> None:
        self._run_commands()
        for event in events:
            self.last_data[account_of(event)] = now
        self._deliver(self.reconciler.live(events))
        if any(not self.agreed(account) for account in self._let_go & self.reconciler.unknown):
            # Wanted again: what comes now may be of the subscription before, and not go on.
            self.reconciler.missed()

    def events(self, batch: list[Any], now: float, epoch: float) -> None:
        self.take(batch, now, epoch)

    def _deliver(self, events: list[Any]) -> None:
        while self.reconciler.odd:
            self._dropped("record", self.reconciler.odd.pop(), bug=True)
        for queue, wanted, _ in self.routes:
            queue.put([event for event in events if account_of(event) in wanted])


def _on_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="topstep-reconcile", daemon=True).start()

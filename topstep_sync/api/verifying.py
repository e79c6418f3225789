"""Finding out afterwards: by tag at any time, and after a crash from the journal."""

from collections.abc import Callable, Iterable
from typing import Any

from topstep_sync.api import tags
from topstep_sync.api.changing import DAY
from topstep_sync.api.intent import OPEN, Event, State
from topstep_sync.api.journal import Journal, Line
from topstep_sync.api.ledger import Intent, Ledger, Sought
from topstep_sync.api.placing import Placer
from topstep_sync.api.results import Recovered
from topstep_sync.clock import Clock
from topstep_sync.errors import InvalidRequest, OrderStateUnknown, TopstepError
from topstep_sync.models import Account, Order


class Verifier:
    """Thread-safe."""

    def __init__(
        self,
        placer: Placer,
        ledger: Ledger,
        journal: Journal | None,
        accounts: Callable[[], Iterable[Account]],
        clock: Clock,
    ) -> None:
        self._placer = placer
        self._ledger = ledger
        self._journal = journal
        self._accounts = accounts
        self._clock = clock

    def verify(self, tag: str, account_id: int | None, since: float | None, *, wait: bool) -> Order | None:
        """The order that carries *tag*, or `None`: every look-up answered, and there is no such order.

        Raises:
            OrderStateUnknown: the look-ups failed, or it is not to be seen and yet on its way.
        """
        entry = self._ledger.find(tag)
        if entry is not None and entry.flight is None and (entry.state in OPEN or entry.state is State.ABSENT):
            return self._placer.settle(entry, wait=wait)
        failed: TopstepError | None = None
        for sought in self._sought(tag, entry, account_id, since):
            order, error = self._placer.seek(sought, wait=wait)
            if order is not None:
                return order
            if error is not None:
                failed = self._placer.unknown(sought, error)
        if failed is not None:
            raise failed
        entry = self._ledger.find(tag)
        if entry is not None and (entry.flight is not None or entry.placed is not None):
            raise self._placer.unknown(entry.sought, None)  # on its way, or there and not shown yet
        return None

    def recover(self) -> list[Recovered]:
        """What became of every intent that the journal has open, oldest first."""
        if self._journal is None:
            raise InvalidRequest("there is no journal; give OrderConfig.journal_path a file")
        return [self._settled(line) for line in self._journal.open_intents()]

    def _settled(self, line: Line) -> Recovered:
        entry = self._ledger.adopt(line.intent(self._clock.epoch()))
        shown: dict[str, Any] = {}
        if entry.flight is not None or entry.state not in (*OPEN, State.ABSENT):  # this process knows better
            if entry.flight is None:  # and could not write it down
                self._placer.record(entry)
            return Recovered(custom_tag=line.tag, account_id=line.request.account_id, state=entry.state)
        if line.state is State.SENT and self._ledger.conclude(entry, Event.GIVE_UP):
            self._placer.record(entry)  # whoever was at it has ended; without that word no absence is believed yet
        try:
            order = self._placer.settle(entry, wait=True)
            if order is not None:
                shown["order"] = order
        except OrderStateUnknown as error:
            shown["error"] = error.last_error
        return Recovered(custom_tag=line.tag, account_id=line.request.account_id, state=entry.state, **shown)

    def _sought(self, tag: str, entry: Intent | None, account_id: int | None, since: float | None) -> list[Sought]:
        """Where and from when to look; every account of the user where nothing is known of the tag."""
        if entry is None and self._journal is not None:
            line = self._journal.last(tag)
            entry = None if line is None else line.intent(self._clock.epoch())
        if entry is not None:
            return [entry.sought]
        begun = tags.minted_at(tag) if since is None else since
        begun = self._clock.epoch() - DAY if begun is None else begun
        if account_id is not None:
            return [Sought(account_id, tag, begun)]
        try:
            return [Sought(account.id, tag, begun) for account in self._accounts()]
        except TopstepError as error:
            raise self._placer.unknown(Sought(0, tag, begun), error) from error

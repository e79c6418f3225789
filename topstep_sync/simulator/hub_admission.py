"""Who may open a hub connection: token, negotiated id, and the faults that meet an upgrade."""

from typing import Final

from topstep_sync.simulator.faults import Fault
from topstep_sync.simulator.hub_dialect import CLOSED_WITH_ERROR, HANDSHAKE_FAILED
from topstep_sync.simulator.hub_link import Link
from topstep_sync.simulator.hub_methods import ECHO_HUB
from topstep_sync.simulator.hub_socket import HubSocket, Refusal, Upgrade
from topstep_sync.simulator.tokens import TokenFault, Verdict
from topstep_sync.simulator.world import World

REMEMBERED: Final = 10_000
"""Negotiated ids that are remembered."""

_SPEECHLESS: Final = {"refuse-reset": "reset", "refuse-fin": "fin", "refuse-silence": "silence"}


class Admission:
    """Decides about upgrades. Loop thread only."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._negotiated: dict[str, bool] = {}  # id → whether it may still be used

    def negotiate(self, connection_token: str) -> None:
        """One connection may be made with that token as its `id`."""
        self._negotiated[connection_token] = True
        if len(self._negotiated) > REMEMBERED:
            del self._negotiated[next(iter(self._negotiated))]

    def decide(self, hub: str, upgrade: Upgrade) -> tuple[Verdict, Fault | None, Refusal | None]:
        """What the token is worth, which fault strikes, and the refusal; None when the connection is let in."""
        verdict = self._world.tokens.check(upgrade.token)
        refusal = self._stranger(hub, verdict, upgrade)
        if refusal is not None:
            return verdict, None, refusal
        fault = self._world.faults.take(upgrade.path, self._world.clock.monotonic())
        return verdict, fault, None if fault is None else self._struck(fault)

    def _stranger(self, hub: str, verdict: Verdict, upgrade: Upgrade) -> Refusal | None:
        if hub != ECHO_HUB and verdict.fault:
            return Refusal(401, (("WWW-Authenticate", self._world.tokens.challenge(verdict)),))
        name = upgrade.query.get("id", [None])[0]
        if name is None:
            return None
        if name not in self._negotiated:
            return Refusal(404)
        fresh, self._negotiated[name] = self._negotiated[name], False
        return None if fresh else Refusal(409, (("Content-Type", "text/plain"),))

    def _struck(self, fault: Fault) -> Refusal | None:
        if fault.kind in _SPEECHLESS:
            return Refusal(0, how=_SPEECHLESS[fault.kind])
        if fault.kind == "refuse":
            return Refusal(fault.status, (("Retry-After", fault.retry_after),) if fault.retry_after else ())
        if fault.kind == "unauthorized":
            challenge = self._world.tokens.challenge(Verdict(None, TokenFault.INVALID))
            return Refusal(401, (("WWW-Authenticate", challenge),))
        return None


def spoil(link: Link, socket: HubSocket, fault: Fault) -> None:
    """*link*, let in, will meet what is left of *fault* at its handshake."""
    if fault.kind == "handshake-error":
        link.handshake_refusal = fault.body or HANDSHAKE_FAILED
    elif fault.kind == "handshake-silence":
        socket.silence()
    elif fault.kind == "close":
        link.refusal = fault.body or f"{CLOSED_WITH_ERROR} HubException: refused on connect"

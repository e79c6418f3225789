"""A gateway of your own for tests: `Gateway`, and the pytest fixture `gateway`.

    def test_my_bot(gateway):
        bot = MyBot(base_url=gateway.url, user_name=gateway.user_name, api_key=gateway.api_key)
        gateway.set_price("CON.F.US.MNQ.Z26", 21000.0)
        gateway.faults.lose("Order/place")          # the next order is accepted, and its reply lost
        bot.buy()
        assert 1 == len(gateway.executed_orders)

What happens to a stream, and what it did:

    gateway.drop_hubs("market", "rst")              # or fin, close, close-reconnect, shutdown, abort, silence
    gateway.faults.add("hubs/user", "refuse", times=3)
    gateway.faults.add("GatewayUserTrade", "duplicate")
    gateway.hubs.send("all", "GatewayLogout")
    assert ["orders:536"] == list(gateway.hubs.connections[0].topics)
    gateway.hubs.replay("monday.jsonl.zst", speed=0)

The fixture's market stands still until it is moved. Other switches go into a mark, by the names of
`topstep_sync.simulator.settings.Settings`: ``@pytest.mark.gateway(market_rate=20, limiter="fixed")``.
Needs the extra: ``pip install "topstep-sync[simulator]"``.
"""

import functools
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from topstep_sync.config import Config
from topstep_sync.errors import ConfigError

if TYPE_CHECKING:
    import pytest

    from topstep_sync.simulator.gateway import Simulator

    class Gateway(Simulator):
        """A gateway of its own on 127.0.0.1, running while the ``with`` block does."""

        @property
        def config(self) -> Config:
            """A `Config` that talks to this gateway, in plain text to 127.0.0.1."""

        def config_with(self, **changes: Any) -> Config:
            """The same, with *changes*."""


class _Configured:
    """What a `Gateway` adds to the bare simulator, which knows nothing of this library's client."""

    user_name: str
    api_key: str
    url: str
    user_hub_url: str
    market_hub_url: str

    @property
    def config(self) -> Config:
        return self.config_with()

    def config_with(self, **changes: Any) -> Config:
        names = ("user_name", "api_key", "base_url", "user_hub_url", "market_hub_url")
        values = (self.user_name, self.api_key, self.url, self.user_hub_url, self.market_hub_url)
        return Config.of({**dict(zip(names, values, strict=True)), **changes})


@functools.cache
def _gateway_class() -> "type[Gateway]":
    try:
        from topstep_sync.simulator.gateway import Simulator
    except ImportError as error:
        raise ConfigError('the simulator needs its extra: pip install "topstep-sync[simulator]"') from error
    return type("Gateway", (_Configured, Simulator), {"__module__": __name__})


def __getattr__(name: str) -> Any:
    """`Gateway`, made on first use: this module is a pytest plugin, and must load without the extra."""
    if name == "Gateway":
        return _gateway_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pytest_configure(config: "pytest.Config") -> None:
    """The mark `gateway` is known."""
    config.addinivalue_line("markers", "gateway(**settings): switches of the simulator for the fixture `gateway`")


def _gateway(request: "pytest.FixtureRequest") -> Iterator["Gateway"]:
    """A gateway on a free port, for this test alone."""
    mark = request.node.get_closest_marker("gateway")
    settings = {"market_rate": 0.0, **(mark.kwargs if mark else {})}
    with _gateway_class()(**settings) as gateway:
        yield gateway


if importlib.util.find_spec("pytest"):  # a program may use Gateway without pytest
    import pytest

    gateway = pytest.fixture(name="gateway")(_gateway)

"""The two public SignalR clients for Python, signalrcore and pysignalr, connect, subscribe and receive."""

import subprocess
import threading
from typing import Any

import outsiders
import pytest

from tests.hub_wire import wait_until

pytestmark = pytest.mark.interop

MNQ = "CON.F.US.MNQ.Z26"

PYSIGNALR = """
import asyncio, sys
from pysignalr.client import SignalRClient

url, token, contract = sys.argv[1:]

async def main():
    done = asyncio.Event()
    # By header: it asks its token factory only after the WebSocket stands, too late for a hub that wants a token.
    client = SignalRClient(url, headers={"Authorization": f"Bearer {token}"})

    async def quote(message):
        print("quote", message[0], message[1]["bestBid"], flush=True)
        if message[1]["bestBid"] == 20999.75:
            done.set()

    async def opened():
        await client.send("SubscribeContractQuotes", [contract])

    client.on("GatewayQuote", quote)
    client.on_open(opened)
    running = asyncio.create_task(client.run())
    await asyncio.wait_for(done.wait(), 20)
    running.cancel()

asyncio.run(main())
"""


@pytest.fixture
def token(gateway: Any) -> str:
    return str(gateway.run(lambda world: world.tokens.issue()))


@pytest.mark.filterwarnings("ignore")
def test_signalrcore(gateway: Any, token: str) -> None:
    """signalrcore connects, subscribes and receives, though it asks for version 0 of the protocol."""
    builder = pytest.importorskip("signalrcore.hub_connection_builder").HubConnectionBuilder
    options = {"access_token_factory": lambda: token, "skip_negotiation": True}
    hub = builder().with_url(gateway.market_hub_url, options=options).build()
    seen: list[Any] = []
    opened = threading.Event()
    hub.on_open(opened.set)
    hub.on("GatewayQuote", seen.append)
    hub.start()
    try:
        assert opened.wait(10)
        hub.send("SubscribeContractQuotes", [MNQ])
        wait_until(lambda: seen, 10)
        gateway.set_price(MNQ, 21000.0)
        wait_until(lambda: len(seen) > 1, 10)
    finally:
        gateway.drop_hubs("all", "fin")  # its own stop waits for the next byte
        hub.stop()
    assert (MNQ, 20999.75) == (seen[1][0], seen[1][1]["bestBid"])


def test_pysignalr(gateway: Any, token: str) -> None:
    """pysignalr negotiates, connects, subscribes and receives."""
    python = outsiders.python_with("pysignalr")
    command = [python, "-c", PYSIGNALR, gateway.market_hub_url, token, MNQ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any(link.topics for link in gateway.hubs.connections), 20)
        gateway.set_price(MNQ, 21000.0)
        said, errors = process.communicate(timeout=30)
    assert 0 == process.returncode, errors
    assert f"quote {MNQ} 20999.75" in said.splitlines()

"""`topstep-client-py` against a gateway: login, bars, order, cancel, stream. Only the URLs are ours."""

import asyncio
import sys
import threading
from datetime import UTC, datetime, timedelta

from topstep import OrderSide, OrderType, PlaceOrderRequest, TopstepClient
from topstep.realtime import MarketHub, UserHub

url, user_name, api_key, contract_id = sys.argv[1:]


async def connect(hub: MarketHub | UserHub) -> None:
    """*hub* is connected: its own `connect` returns before the handshake, and what is sent earlier is lost."""
    opened = threading.Event()
    hub.on_open(opened.set)
    await hub.connect()
    await asyncio.to_thread(opened.wait, 20)


async def main() -> None:
    client = await TopstepClient.create(user_name, api_key, base_url=url)
    accounts = await client.accounts.search()
    print("accounts", *(account.id for account in accounts))
    contracts = await client.contracts.search("MNQ")
    print("contracts", *(contract.id for contract in contracts))
    now = datetime.now(UTC)
    bars = await client.history.retrieve_bars(contract_id, now - timedelta(hours=2), now)
    print("bars", len(bars) > 0, all(bar.low <= bar.close <= bar.high for bar in bars))

    orders: list[object] = []
    quotes: list[object] = []
    user = UserHub(client.token or "", hub_url=f"{url}/hubs/user")
    user.on_order(lambda *event: orders.append(event))
    await connect(user)
    await user.subscribe_orders(accounts[0].id)
    market = MarketHub(client.token or "", hub_url=f"{url}/hubs/market")
    market.on_quote(lambda *event: quotes.append(event))
    await connect(market)
    await market.subscribe_quotes(contract_id)

    request = PlaceOrderRequest(
        accountId=accounts[0].id,
        contractId=contract_id,
        type=OrderType.LIMIT,
        side=OrderSide.BUY,
        size=1,
        limitPrice=100.0,
    )
    order_id = await client.orders.place(request)
    working = await client.orders.search_open(accounts[0].id)
    print("order", order_id in [order.id for order in working])
    await client.orders.cancel(accounts[0].id, order_id)
    print("cancelled", not await client.orders.search_open(accounts[0].id))
    for _ in range(500):
        if len(orders) >= 3 and len(quotes) >= 3:
            break
        await asyncio.sleep(0.02)
    print("stream", len(orders) >= 3, len(quotes) >= 3)
    sys.stdout.flush()
    sys.exit(0)  # its hub's stop waits for the next byte of the server


if __name__ == "__main__":
    asyncio.run(main())

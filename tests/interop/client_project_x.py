"""`project-x-py` against a gateway: login, accounts, contracts, bars, order, cancel, stream. Only the URLs are ours."""

import asyncio
import os
import sys

from project_x_py import ProjectX, ProjectXConfig, ProjectXRealtimeClient
from project_x_py.event_bus import EventBus
from project_x_py.order_manager import OrderManager

url, user_name, api_key, contract_id = sys.argv[1:]


async def main() -> None:
    config = ProjectXConfig(
        api_url=f"{url}/api", user_hub_url=f"{url}/hubs/user", market_hub_url=f"{url}/hubs/market", timezone="UTC"
    )
    async with ProjectX(username=user_name, api_key=api_key, config=config) as client:
        await client.authenticate()
        accounts = await client.list_accounts()
        print("accounts", *(account.id for account in accounts))
        contracts = await client.search_instruments("MNQ")
        print("contracts", *(contract.id for contract in contracts))
        bars = await client.get_bars("MNQ", days=1, interval=5)
        print("bars", len(bars) > 0, bool((bars["low"] <= bars["high"]).all()))

        orders: list[object] = []
        quotes: list[object] = []
        stream = ProjectXRealtimeClient(client.session_token, str(accounts[0].id), config=config)
        assert await stream.connect()

        async def order(event: object) -> None:
            orders.append(event)

        async def quote(event: object) -> None:
            quotes.append(event)

        await stream.add_callback("order_update", order)
        await stream.add_callback("quote_update", quote)
        await stream.subscribe_user_updates()
        await stream.subscribe_market_data([contract_id])

        manager = OrderManager(client, EventBus())
        placed = await manager.place_limit_order(contract_id, 0, 1, 100.0, account_id=accounts[0].id)
        working = await manager.search_open_orders(account_id=accounts[0].id)
        print("order", placed.orderId in [one.id for one in working])
        await manager.cancel_order(placed.orderId, account_id=accounts[0].id)
        print("cancelled", not await manager.search_open_orders(account_id=accounts[0].id))
        for _ in range(500):
            if len(orders) >= 3 and len(quotes) >= 3:
                break
            await asyncio.sleep(0.02)
        print("stream", len(orders) >= 3, len(quotes) >= 3)
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())

"""`projectx-sdk` against a gateway: login, accounts, contracts, bars, order, cancel, stream. Only the URLs are ours."""

import os
import sys
import time
from datetime import UTC, datetime, timedelta

from projectx_sdk import ProjectXClient
from projectx_sdk.utils.constants import OrderSide, OrderType

url, user_name, api_key, contract_id = sys.argv[1:]

# Its client takes the base URL as an argument, and the hubs' by the name of an environment.
ProjectXClient.ENVIRONMENT_URLS["ours"] = url
ProjectXClient.USER_HUB_URLS["ours"] = f"{url}/hubs/user"
ProjectXClient.MARKET_HUB_URLS["ours"] = f"{url}/hubs/market"

client = ProjectXClient(username=user_name, api_key=api_key, environment="ours")
accounts = client.accounts.search(only_active_accounts=True)
print("accounts", *(account.id for account in accounts))
print("contracts", *(contract.id for contract in client.contracts.search("MNQ")))
now = datetime.now(UTC)
bars = client.history.retrieve_bars(contract_id, now - timedelta(hours=2), now)
print("bars", len(bars) > 0, all(bar.low <= bar.close <= bar.high for bar in bars))

orders: list[object] = []
quotes: list[object] = []
client.realtime.start()
client.realtime.user.subscribe_orders(accounts[0].id, lambda *event: orders.append(event))
client.realtime.market.subscribe_quotes(contract_id, lambda *event: quotes.append(event))

order_id = client.orders.place(accounts[0].id, contract_id, OrderType.LIMIT, OrderSide.BUY, 1, limit_price=100.0)
print("order", order_id in [order.id for order in client.orders.search_open(accounts[0].id)])
client.orders.cancel(accounts[0].id, order_id)
print("cancelled", not client.orders.search_open(accounts[0].id))
for _ in range(500):
    if len(orders) >= 3 and len(quotes) >= 3:
        break
    time.sleep(0.02)
print("stream", len(orders) >= 3, len(quotes) >= 3)
sys.stdout.flush()
os._exit(0)  # its threads do not end by themselves

from requests import Session
from requests.exceptions import RequestException


class Bot:
    """Places a limit order far from the market, finds it, takes it back; logs in again by itself on a 401."""

    def __init__(self, base, user, key):
        self.base, self.user, self.key = base, user, key
        self.session = Session()
        self.logins = 0
        self.login()

    def login(self):
        self.logins += 1
        reply = self.session.post(f"{self.base}/api/Auth/loginKey", json={"userName": self.user, "apiKey": self.key})
        self.session.headers["Authorization"] = f"Bearer {reply.json()['token']}"

    def post(self, path, payload):
        try:
            reply = self.session.post(f"{self.base}/api/{path}", json=payload, timeout=10)
        except RequestException as error:
            raise SystemExit(f"no gateway: {error}") from error
        if reply.status_code == 401:
            self.login()
            return self.post(path, payload)
        reply.raise_for_status()
        return reply.json()

    def work(self):
        contract = self.post("Contract/search", {"searchText": "MNQ", "live": False})["contracts"][0]["id"]
        order = {"accountId": 536, "contractId": contract, "type": 1, "side": 0, "size": 1, "limitPrice": 10.0}
        placed = self.post("Order/place", order)
        assert placed["success"], placed
        working = self.post("Order/searchOpen", {"accountId": 536})["orders"]
        assert placed["orderId"] in [one["id"] for one in working]
        assert self.post("Order/cancel", {"accountId": 536, "orderId": placed["orderId"]})["success"]
        return self.logins

from datetime import datetime, timedelta, timezone

from requests import Session


class Bot:
    """Pulls bars page by page, newest first, as the gateway gives them."""

    def __init__(self, base, user, key):
        self.base, self.session = base, Session()
        reply = self.session.post(f"{base}/api/Auth/loginKey", json={"userName": user, "apiKey": key})
        self.session.headers["Authorization"] = "Bearer " + reply.json()["token"]
        found = self.session.post(f"{base}/api/Contract/search", json={"searchText": "MNQ", "live": False}).json()
        self.contract = found["contracts"][0]["id"]

    def page(self, start, end):
        payload = {
            "contractId": self.contract, "live": False, "startTime": start.isoformat(), "endTime": end.isoformat(),
            "unit": 2, "unitNumber": 1, "limit": 50, "includePartialBar": False,
        }  # fmt: skip
        reply = self.session.post(f"{self.base}/api/History/retrieveBars", json=payload, timeout=30)
        reply.raise_for_status()
        return reply.json()["bars"] or []

    def work(self):
        end = datetime.now(timezone.utc)
        start = end - timedelta(days=4)
        bars = []
        for _ in range(3):
            page = self.page(start, end)
            if not page:
                break
            bars += page
            end = datetime.fromisoformat(page[-1]["t"]) - timedelta(seconds=1)
        return bars

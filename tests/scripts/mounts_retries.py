from requests import Session
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry


class Bot:
    def __init__(self, base, user, key):
        self.base, self.session = base, Session()
        adapter = HTTPAdapter(
            max_retries=Retry(total=3, backoff_factor=0.1, status_forcelist=[429, 503]), pool_maxsize=8
        )
        self.session.mount("https://", adapter)
        self.session.mount("http://", adapter)
        self.session.mount(base, adapter)
        reply = self.session.post(f"{base}/api/Auth/loginKey", json={"userName": user, "apiKey": key}, timeout=5)
        self.session.headers["Authorization"] = f"Bearer {reply.json()['token']}"

    def work(self):
        with self.session.post(
            f"{self.base}/api/Account/search", json={"onlyActiveAccounts": False}, timeout=5
        ) as reply:
            return reply.json()["accounts"]

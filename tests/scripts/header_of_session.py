from requests import Session


class Bot:
    def __init__(self, base, user, key):
        self.base = base
        self.session = Session()
        reply = self.session.post(f"{base}/api/Auth/loginKey", json={"userName": user, "apiKey": key})
        reply.raise_for_status()
        self.session.headers.update({"Authorization": f"Bearer {reply.json()['token']}"})

    def work(self):
        reply = self.session.post(f"{self.base}/api/Account/search", json={"onlyActiveAccounts": True})
        reply.raise_for_status()
        return [account["id"] for account in reply.json()["accounts"]]

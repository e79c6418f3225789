from requests import Session


class Bot:
    """Renews its token before every piece of work, as the gateway's documentation shows it."""

    def __init__(self, base, user, key):
        self.base, self.session = base, Session()
        reply = self.session.post(f"{base}/api/Auth/loginKey", json={"userName": user, "apiKey": key})
        self.token = reply.json()["token"]

    def renew(self):
        headers = {"Authorization": f"Bearer {self.token}"}
        body = self.session.post(f"{self.base}/api/Auth/validate", headers=headers).json()
        if body["success"] and body.get("newToken"):
            self.token = body["newToken"]

    def work(self):
        self.renew()
        headers = {"Authorization": f"Bearer {self.token}"}
        reply = self.session.post(f"{self.base}/api/Position/searchOpen", json={"accountId": 536}, headers=headers)
        return reply.json()["success"]

from requests import Session
from requests.auth import AuthBase


class Bearer(AuthBase):
    def __init__(self, token):
        self.token = token

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class Bot:
    def __init__(self, base, user, key):
        self.base, self.session = base, Session()
        reply = self.session.post(f"{base}/api/Auth/loginKey", json={"userName": user, "apiKey": key})
        self.session.auth = Bearer(reply.json()["token"])

    def work(self):
        reply = self.session.request("POST", f"{self.base}/api/Order/searchOpen", json={"accountId": 536})
        reply.raise_for_status()
        return reply.json()["success"]

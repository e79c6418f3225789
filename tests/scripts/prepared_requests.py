from requests import Request, Session


class Bot:
    def __init__(self, base, user, key):
        self.base, self.session = base, Session()
        self.headers = {}
        token = self.send("/api/Auth/loginKey", {"userName": user, "apiKey": key})["token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def send(self, path, payload):
        prepared = self.session.prepare_request(Request("POST", self.base + path, json=payload, headers=self.headers))
        settings = self.session.merge_environment_settings(prepared.url, {}, None, None, None)
        reply = self.session.send(prepared, timeout=10, **settings)
        reply.raise_for_status()
        return reply.json()

    def work(self):
        return self.send("/api/Trade/search", {"accountId": 536, "startTimestamp": "2026-01-01T00:00:00Z"})

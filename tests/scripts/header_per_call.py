from requests import Session


class Bot:
    def __init__(self, base, user, key):
        self.base, self.session = base, Session()
        self.token = self.session.post(
            base + "/api/Auth/loginKey",
            json={"userName": user, "apiKey": key},
            headers={"accept": "text/plain", "Content-Type": "application/json"},
            timeout=10,
        ).json()["token"]

    def call(self, path, **payload):
        headers = {"Authorization": "Bearer " + self.token, "Content-Type": "application/json"}
        reply = self.session.post(self.base + path, headers=headers, json=payload, timeout=(3, 10))
        if reply.status_code != 200:
            raise RuntimeError(f"{path}: {reply.status_code} {reply.text}")
        body = reply.json()
        if not body["success"]:
            raise RuntimeError(f"{path}: error {body['errorCode']}")
        return body

    def work(self):
        account = self.call("/api/Account/search", onlyActiveAccounts=True)["accounts"][0]
        found = self.call("/api/Contract/search", searchText="MNQ", live=False)["contracts"]
        return account["name"], found[0]["id"]

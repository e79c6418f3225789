from concurrent.futures import ThreadPoolExecutor

from requests import Session


class Bot:
    def __init__(self, base, user, key):
        self.base, self.session = base, Session()
        reply = self.session.post(f"{base}/api/Auth/loginKey", json={"userName": user, "apiKey": key})
        self.session.headers["Authorization"] = "Bearer " + reply.json()["token"]

    def find(self, text):
        payload = {"searchText": text, "live": False}
        return self.session.post(f"{self.base}/api/Contract/search", json=payload).json()["contracts"][0]["id"]

    def work(self):
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self.find, ["MNQ", "MES", "MGC", "MNQ", "MES", "MGC", "MNQ", "MES"]))

import json

from requests import Session


class Bot:
    def __init__(self, base, user, key):
        self.url = base
        self.http = Session()
        self.http.headers["Content-Type"] = "application/json"
        self.http.headers["accept"] = "text/plain"
        answer = json.loads(self.post("/api/Auth/loginKey", {"userName": user, "apiKey": key}))
        self.http.headers["Authorization"] = "Bearer %s" % answer["token"]

    def post(self, path, payload):
        return self.http.post(self.url + path, data=json.dumps(payload)).text

    def work(self):
        return json.loads(self.post("/api/contract/available", {"live": False}))["contracts"]

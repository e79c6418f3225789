"""The truth table: what works on a `requests.Session` works on ours, with the same results and exceptions."""

import contextlib
import io
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from echo_server import EchoServer, running
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from topstep_sync.config import Config
from topstep_sync.errors import Fate, PermanentError
from topstep_sync.http.prepare import TEMPLATES
from topstep_sync.session import Session
from topstep_sync.testing import Gateway

TOKEN = "token-of-the-truth-table"


@pytest.fixture(scope="module")
def server() -> Iterator[EchoServer]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[EchoServer]:
    """Another host."""
    with running() as one:
        yield one


@pytest.fixture
def ours(server: EchoServer) -> Iterator[Session]:
    with Session(config=Config(base_url=server.url, rate={"general_limit": 100_000, "burst": None})) as session:
        session.tokens.adopt(TOKEN)
        yield session


@pytest.fixture
def bare() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


class Stamp(AuthBase):
    """An authentication of the user's own."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["X-Stamp"] = "mine"
        return request


def hooked(session: requests.Session, url: str) -> Any:
    seen: list[int] = []
    session.hooks["response"].append(lambda reply, **_: seen.append(reply.status_code))
    session.post(f"{url}/echo", json={"a": 1})
    session.post(f"{url}/echo", json={"a": 1}, hooks={"response": lambda reply, **_: seen.append(-1)})
    return seen


def replaced(session: requests.Session, url: str) -> Any:
    def replace(reply: requests.Response, **_: Any) -> requests.Response:
        reply.status_code = 299
        return reply

    session.hooks["response"].append(replace)
    return session.post(f"{url}/echo", json={}).status_code


def cookies(session: requests.Session, url: str) -> Any:
    first = session.post(f"{url}/cookie", json={})
    second = session.post(f"{url}/echo", json={}).json()["headers"].get("cookie")
    third = session.post(f"{url}/echo", json={}, cookies={"one": "off"}).json()["headers"].get("cookie")
    return dict(first.cookies), dict(session.cookies), second, third


def session_headers(session: requests.Session, url: str) -> Any:
    session.headers["X-Mine"] = "1"
    found = [session.post(f"{url}/echo", json={}).json()["headers"].get("x-mine")]
    session.headers.update({"x-mine": "2"})
    found.append(session.post(f"{url}/echo", json={}).json()["headers"].get("x-mine"))
    found.append(session.post(f"{url}/echo", json={}, headers={"X-MINE": "3"}).json()["headers"].get("x-mine"))
    found.append(session.post(f"{url}/echo", json={}, headers={"X-Mine": None}).json()["headers"].get("x-mine"))
    del session.headers["X-Mine"]
    found.append(session.post(f"{url}/echo", json={}).json()["headers"].get("x-mine"))
    session.headers = {"X-Plain": "dict"}  # type: ignore[assignment]
    found.append(session.post(f"{url}/echo", json={}).json()["headers"].get("x-plain"))
    return found


def mounted(session: requests.Session, url: str) -> Any:
    class Mine(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            request.headers["X-Adapter"] = "mine"
            return super().send(request, *args, **kwargs)

    session.mount(f"{url}/echo/mine", Mine())
    paths = ("/echo/mine", "/echo/other")
    return [session.post(f"{url}{path}", json={}).json()["headers"].get("x-adapter") for path in paths]


def prepared(session: requests.Session, url: str) -> Any:
    request = requests.Request("POST", f"{url}/echo", json={"a": 1}, headers={"X-A": "b"})
    ready = session.prepare_request(request)
    ready.headers["X-B"] = "c"
    return told(session.send(ready, timeout=5))


def streamed(session: requests.Session, url: str) -> Any:
    with session.post(f"{url}/lines", stream=True) as reply:
        return list(reply.iter_lines()), reply.raw.closed


def streamed_always(session: requests.Session, url: str) -> Any:
    session.stream = True
    reply = session.post(f"{url}/lines")
    consumed = reply._content_consumed  # type: ignore[attr-defined]
    return consumed, [piece.decode() for piece in reply.iter_lines()]


def pickled(session: requests.Session, url: str) -> Any:
    reply = pickle.loads(pickle.dumps(session.post(f"{url}/cookie", json={"a": 1})))
    return reply.status_code, reply.json(), reply.headers["Content-Type"], dict(reply.cookies), reply.encoding


def params_of_session(session: requests.Session, url: str) -> Any:
    session.params = {"a": "1"}
    return session.get(f"{url}/echo", params={"b": ["2", "3"]}).json()["query"]


def auth_of_session(session: requests.Session, url: str) -> Any:
    session.auth = ("joe", "secret")
    return session.get(f"{url}/echo").json()["headers"]["authorization"]


def foreign_bearer(session: requests.Session, url: str) -> Any:
    return session.post(f"{url}/echo", json={}, headers={"Authorization": "Bearer mine"}).json()["headers"][
        "authorization"
    ]


def reused(session: requests.Session, url: str) -> Any:
    with session as same:
        return same is session, same.post(f"{url}/echo", json={}).ok


def context(session: requests.Session, url: str) -> Any:
    reply = session.post(f"{url}/echo", json={"a": 1})
    return (
        reply.ok,
        reply.reason,
        reply.url,
        reply.history,
        reply.is_redirect,
        reply.apparent_encoding,
        bool(reply),
        repr(reply),
    )


def iterated(session: requests.Session, url: str) -> Any:
    return b"".join(session.post(f"{url}/echo/x", data=b"abc", stream=True).iter_content(7)).count(b"echo")


def upload(session: requests.Session, url: str) -> Any:
    said = session.post(f"{url}/echo", files={"file": ("a.txt", io.BytesIO(b"content"))}, data={"k": "v"}).json()
    return "content" in said["body"], said["headers"]["content-type"].split(";")[0]


def told(reply: requests.Response) -> Any:
    """What the server was sent, without what is ours (the bearer) or differs by machine."""
    said = reply.json()
    said["headers"] = {name: value for name, value in said["headers"].items() if name not in ("authorization", "host")}
    if said["headers"].get("content-type") == "application/json":
        said["headers"].pop("content-length", None)  # ours sends JSON without blanks
        said["body"] = requests.models.complexjson.loads(said["body"])
    return said


Usage = Callable[[requests.Session, str], Any]

USAGES: dict[str, Usage] = {
    "json": lambda s, u: told(s.post(f"{u}/echo", json={"a": 1, "b": [None, True, "é", 1.5], "c": {}})),
    "json empty dict": lambda s, u: told(s.post(f"{u}/echo", json={})),
    "json list": lambda s, u: told(s.post(f"{u}/echo", json=[1, 2])),
    "json scalar": lambda s, u: told(s.post(f"{u}/echo", json=0)),
    "json big integer": lambda s, u: told(s.post(f"{u}/echo", json={"big": 2**80, "id": 2**62})),
    "json integer keys": lambda s, u: told(s.post(f"{u}/echo", json={1: "a"})),
    "json nan": lambda s, u: told(s.post(f"{u}/echo", json={"price": float("nan")})),
    "json infinity": lambda s, u: told(s.post(f"{u}/echo", json={"price": float("inf")})),
    "json of an object": lambda s, u: told(s.post(f"{u}/echo", json={"a": object()})),
    "json surrogate": lambda s, u: s.post(f"{u}/echo", json={"a": "\ud800"}).json()["body"].replace(" ", ""),
    "no body": lambda s, u: told(s.post(f"{u}/echo")),
    "data dict": lambda s, u: told(s.post(f"{u}/echo", data={"a": "1", "b": ["2", "3"]})),
    "data text": lambda s, u: told(s.post(f"{u}/echo", data='{"a":"é"}')),
    "data bytes": lambda s, u: told(s.post(f"{u}/echo", data=b"\x00\xff")),
    "data bytes with header": lambda s, u: told(
        s.post(f"{u}/echo", data=b'{"a": 1}', headers={"Content-Type": "application/json"})
    ),
    "data file": lambda s, u: told(s.post(f"{u}/echo", data=io.BytesIO(b"from a file"))),
    "data generator": lambda s, u: told(s.post(f"{u}/echo", data=iter([b"one ", b"two"]))),
    "data and json": lambda s, u: told(s.post(f"{u}/echo", data="x", json={"a": 1})),
    "files": upload,
    "params": lambda s, u: told(s.get(f"{u}/echo", params={"a": "1 2", "b": ""})),
    "params text": lambda s, u: told(s.get(f"{u}/echo?x=1", params="y=2")),
    "params of the session": params_of_session,
    "query and fragment": lambda s, u: told(s.get(f"{u}/echo?a=1#part")),
    "path with blanks": lambda s, u: told(s.get(f"{u}/echo/a b/é")),
    "headers": lambda s, u: told(s.post(f"{u}/echo", json={}, headers={"X-A": "b", "Accept": "text/plain"})),
    "headers of the session": session_headers,
    "header bytes": lambda s, u: told(s.get(f"{u}/echo", headers={"X-A": b"b"})),
    "header with a newline": lambda s, u: told(s.post(f"{u}/echo", json={}, headers={"X-A": "b\r\nX-Evil: 1"})),
    "header that is a number": lambda s, u: told(s.post(f"{u}/echo", json={}, headers={"X-A": 1})),
    "user agent": lambda s, u: s.get(f"{u}/echo").json()["headers"]["user-agent"],
    "cookies": cookies,
    "auth basic": lambda s, u: s.get(f"{u}/echo", auth=("joe", "x")).json()["headers"]["authorization"],
    "auth object": lambda s, u: s.get(f"{u}/echo", auth=HTTPBasicAuth("joe", "x")).json()["headers"]["authorization"],
    "auth own": lambda s, u: told(s.get(f"{u}/echo", auth=Stamp())),
    "auth of the session": auth_of_session,
    "auth digest": lambda s, u: s.get(f"{u}/auth", auth=HTTPDigestAuth("joe", "x")).status_code,
    "auth bearer of one's own": foreign_bearer,
    "hooks": hooked,
    "hook that replaces": replaced,
    "stream lines": streamed,
    "stream of the session": streamed_always,
    "stream content": lambda s, u: s.post(f"{u}/lines", stream=True).content,
    "iter_content": iterated,
    "text": lambda s, u: (s.post(f"{u}/text").text, s.post(f"{u}/text").encoding),
    "encoding set by hand": lambda s, u: (r := s.post(f"{u}/text"), setattr(r, "encoding", "utf-8"), r.text)[2],
    "json in another encoding": lambda s, u: s.post(f"{u}/utf16").json(),
    "json with NaN": lambda s, u: repr(s.post(f"{u}/nan").json()),
    "json with arguments": lambda s, u: s.post(f"{u}/echo", json={}).json(parse_int=str)["method"],
    "json of a page": lambda s, u: s.post(f"{u}/page").json(),
    "gzip": lambda s, u: s.post(f"{u}/gzip").json(),
    "garbled gzip": lambda s, u: s.post(f"{u}/garbled").json(),
    "status 204": lambda s, u: (s.post(f"{u}/status/204").status_code, s.post(f"{u}/status/204").content),
    "status 400": lambda s, u: (s.post(f"{u}/status/400").status_code, s.post(f"{u}/status/400").json()),
    "status 404": lambda s, u: s.post(f"{u}/status/404").raise_for_status(),
    "status 503": lambda s, u: s.post(f"{u}/status/503").raise_for_status(),
    "links": lambda s, u: s.post(f"{u}/link").links,
    "methods": lambda s, u: [
        getattr(s, name)(f"{u}/echo").json()["method"] for name in ("get", "post", "put", "patch", "delete", "options")
    ],
    "head": lambda s, u: (s.head(f"{u}/echo").status_code, s.head(f"{u}/echo").content),
    "request in lower case": lambda s, u: s.request("post", f"{u}/echo", json={}).json()["method"],
    "positional arguments": lambda s, u: told(s.request("POST", f"{u}/echo", {"q": "1"}, "body", {"X-A": "b"})),
    "URL as bytes": lambda s, u: told(s.get(f"{u}/echo".encode())),
    "prepared by hand": prepared,
    "response": context,
    "pickled response": pickled,
    "as a context": reused,
    "own adapter": mounted,
    "timeout as a number": lambda s, u: s.post(f"{u}/echo", json={}, timeout=5).ok,
    "timeout as a pair": lambda s, u: s.post(f"{u}/echo", json={}, timeout=(3.05, 27)).ok,
    "timeout half open": lambda s, u: s.post(f"{u}/echo", json={}, timeout=(3.05, None)).ok,
    "timeout that passes": lambda s, u: s.post(f"{u}/slow", json={}, timeout=0.05).ok,
    "timeout of three": lambda s, u: s.post(f"{u}/echo", json={}, timeout=(1, 2, 3)).ok,
    "verify off": lambda s, u: s.post(f"{u}/echo", json={}, verify=False).ok,
    "proxies none": lambda s, u: s.post(f"{u}/echo", json={}, proxies={"http": ""}).ok,
    "proxy that refuses": lambda s, u: s.post(f"{u}/echo", json={}, proxies={"http": "http://127.0.0.1:9"}).ok,
    "dropped connection": lambda s, u: s.post(f"{u}/drop", json={}),
    "truncated body": lambda s, u: s.post(f"{u}/truncate", json={}),
    "nothing listens": lambda s, u: s.post("http://127.0.0.1:9/", json={}),
    "no scheme": lambda s, u: s.post("api.topstepx.com/echo", json={}),
    "invalid URL": lambda s, u: s.post("http://", json={}),
    "unknown scheme": lambda s, u: s.post("ftp://127.0.0.1/", json={}),
}  # fmt: skip


def outcome(usage: Usage, session: requests.Session, url: str) -> Any:
    try:
        return usage(session, url)
    except Exception as error:
        return error


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("name", USAGES)
def test_truth_table(name: str, ours: Session, bare: requests.Session, server: EchoServer) -> None:
    """The usage gives on our session what it gives on requests', or raises what the same `except` catches."""
    expected = outcome(USAGES[name], bare, server.url)
    actual = outcome(USAGES[name], ours, server.url)
    if isinstance(expected, Exception):
        assert isinstance(actual, type(expected)), actual
    else:
        assert expected == actual


def test_many_urls_do_not_fill_the_memory(ours: Session) -> None:
    """Prepared URLs are forgotten once there are too many; every one still works."""
    for number in range(TEMPLATES + 2):
        assert f"/echo/{number}" == ours.get(f"/echo/{number}").json()["path"]
    assert len(ours._templates._known) <= TEMPLATES


def test_an_odd_header_name_is_left_to_requests(ours: Session, bare: requests.Session, server: EchoServer) -> None:
    """A header name that is bytes fails or works as it does in requests."""
    odd: Any = {b"X-A": "b"}
    expected = outcome(lambda s, u: s.get(f"{u}/echo", headers=odd).status_code, bare, server.url)
    actual = outcome(lambda s, u: s.get(f"{u}/echo", headers=odd).status_code, ours, server.url)
    assert (type(expected), str(expected)) == (type(actual), str(actual))


########################################### what is ours beside it ###########################################


def test_the_attributes_of_requests_keep_their_meaning(ours: Session, bare: requests.Session) -> None:
    """Whatever requests.Session has, ours has with the same type and value at the start."""
    for name in bare.__attrs__:
        if name == "adapters":
            continue
        mine, theirs = getattr(ours, name), getattr(bare, name)
        assert isinstance(mine, type(theirs)), name
        assert theirs == mine or name == "cookies", name
    assert isinstance(ours, requests.Session)


def test_other_hosts_are_untouched(ours: Session, elsewhere: EchoServer) -> None:
    """A call to another host goes through requests' own adapter, without our bearer."""
    assert type(ours.get_adapter(elsewhere.url + "/echo")) is HTTPAdapter
    assert "authorization" not in ours.post(elsewhere.url + "/echo", json={}).json()["headers"]


def test_a_host_that_begins_like_ours_gets_no_bearer() -> None:
    """The gateway's name with something after it is another host."""
    with Session("u", "k", config=Config(user_name="u", api_key="k")) as session:
        assert type(session.get_adapter("https://api.topstepx.com.evil.example/x")) is HTTPAdapter
        assert type(session.get_adapter("http://api.topstepx.com/api/Order/place")) is HTTPAdapter
        assert type(session.get_adapter("https://API.topstepx.com/api/Order/place")) is not HTTPAdapter


def test_a_path_is_one_of_the_gateway(ours: Session, server: EchoServer) -> None:
    """A URL that begins with one slash is completed with the base URL, also in a prepared request."""
    assert "/echo/x" == ours.post("/echo/x", json={}).json()["path"]
    assert f"{server.url}/echo/y" == ours.prepare_request(requests.Request("POST", "/echo/y")).url


def test_redirects_of_the_gateway_are_errors(ours: Session) -> None:
    """A 3xx is not followed: a redirected POST would become a GET. The error carries the reply."""
    for call in (ours.post, ours.get):
        with pytest.raises(PermanentError, match="never redirects") as caught:
            call("/redirect")
        assert 302 == caught.value.response.status_code


def test_redirects_elsewhere_are_followed(ours: Session, elsewhere: EchoServer) -> None:
    """Other hosts redirect as ever."""
    reply = ours.get(elsewhere.url + "/redirect")
    assert (200, 1) == (reply.status_code, len(reply.history))


def test_a_redirect_elsewhere_to_the_gateway_goes_through_its_adapter(
    ours: Session, server: EchoServer, elsewhere: EchoServer
) -> None:
    """A call that arrives at the gateway by a redirect is stamped and counted like any other."""
    elsewhere.url, kept = server.url, elsewhere.url
    try:
        reply = ours.get(kept + "/redirect")
    finally:
        elsewhere.url = kept
    assert f"Bearer {TOKEN}" == reply.json()["headers"]["authorization"]


def test_the_bearer_is_stamped_and_netrc_is_not_asked(
    ours: Session, server: EchoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in netrc for the gateway's host is not sent to the gateway."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login joe password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for reply in (ours.post("/echo", json={}), ours.post("/echo", data={"a": 1})):
        assert f"Bearer {TOKEN}" == reply.json()["headers"]["authorization"]


def test_the_clock_of_a_reply(ours: Session) -> None:
    """`elapsed` is there as in requests; `wire_time` is the last attempt alone, `attempts` their number."""
    reply = ours.post("/echo", json={})
    assert 0.0 < reply.wire_time <= reply.elapsed.total_seconds() + 0.001
    assert 1 == reply.attempts


def test_the_environment_is_asked_again_when_told(ours: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies are looked up once; `reload_environment` makes a change count; an attribute counts at once."""
    assert ours.post("/echo", json={}).ok
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert ours.post("/echo", json={}).ok
    ours.reload_environment()
    with pytest.raises(requests.exceptions.ProxyError):
        ours.post("/echo", json={})
    monkeypatch.delenv("http_proxy")
    ours.reload_environment()
    assert ours.post("/echo", json={}).ok
    ours.proxies["http"] = "http://127.0.0.1:9"
    with pytest.raises(requests.exceptions.ProxyError):
        ours.post("/echo", json={})


def test_a_subclass_that_overrides_methods_is_heard(server: EchoServer) -> None:
    """`send` and `prepare_request` of a user's subclass run for every call."""
    ran: list[str] = []

    class Mine(Session):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            ran.append("send")
            return super().send(request, **kwargs)

        def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
            ran.append("prepare")
            return super().prepare_request(request)

    with Mine(config=Config(base_url=server.url)) as session:
        session.tokens.adopt(TOKEN)
        for _ in range(2):
            session.post("/echo", json={})
    assert ["prepare", "send"] * 2 == ran


############################################## tools that stand in ##############################################


def test_under_responses(ours: Session, server: EchoServer) -> None:
    """`responses` answers raw and typed calls, and its matchers see the JSON."""
    import responses

    with responses.RequestsMock() as mock:
        body = {"success": True, "errorCode": 0, "accounts": []}
        matcher = responses.matchers.json_params_matcher({"onlyActiveAccounts": True})
        mock.post(f"{server.url}/api/Account/search", json=body, match=[matcher])
        assert body == ours.post("/api/Account/search", json={"onlyActiveAccounts": True}).json()
        assert [] == list(ours.accounts.search())
        assert f"Bearer {TOKEN}" == mock.calls[0].request.headers["Authorization"]
        mock.post(f"{server.url}/api/Order/place", body=requests.ReadTimeout("made up"))
        with pytest.raises(requests.ReadTimeout) as caught:
            ours.post("/api/Order/place", json={})
        assert Fate.UNKNOWN is getattr(caught.value, "fate", None)
        with pytest.raises(requests.ConnectionError):
            ours.post("/api/Order/cancel", json={})


def test_under_requests_mock(ours: Session, server: EchoServer) -> None:
    """`requests-mock` answers raw and typed calls; no token is needed then."""
    import requests_mock

    with requests_mock.Mocker() as mock:
        mock.post(f"{server.url}/api/Account/search", json={"success": True, "errorCode": 0, "accounts": []})
        assert ours.post("/api/Account/search", json={}).json()["success"] is True
        assert [] == list(ours.accounts.search())
        mock.post(f"{server.url}/api/Order/place", status_code=500)
        assert 500 == ours.post("/api/Order/place", json={}).status_code
        assert 3 == mock.call_count
    assert ours.post("/echo", json={}).ok


def test_under_vcr(ours: Session, server: EchoServer, tmp_path: Path) -> None:
    """A cassette records calls once and replays them without the server."""
    vcr = pytest.importorskip("vcr")
    before = len(server.seen)
    assert ours.post("/echo/warm", json={}).ok  # a connection is open before the cassette is in
    for _ in range(2):
        with vcr.use_cassette(str(tmp_path / "tape.yaml"), filter_headers=["Authorization"]) as tape:
            assert "/echo/vcr" == ours.post("/echo/vcr", json={"a": 1}).json()["path"]
            assert "/echo/list" == ours.post("/echo/list", json={"a": 1}).json()["path"]
    assert 2 == tape.play_count
    assert 3 == len(server.seen) - before
    assert ours.post("/echo/after", json={}).ok


def test_with_the_toolbelt(ours: Session, tmp_path: Path) -> None:
    """requests-toolbelt's streaming upload, its monitor and its dump work."""
    toolbelt = pytest.importorskip("requests_toolbelt")
    from requests_toolbelt.utils import dump

    seen: list[int] = []
    fields = {"field": "value", "file": ("a.txt", io.BytesIO(b"x" * 10_000), "text/plain")}
    encoder = toolbelt.MultipartEncoder(fields)
    monitor = toolbelt.MultipartEncoderMonitor(encoder, lambda one: seen.append(one.bytes_read))
    reply = ours.post("/echo", data=monitor, headers={"Content-Type": monitor.content_type})
    assert "x" * 10_000 in reply.json()["body"]
    assert seen
    assert b"POST /echo HTTP/1.1" in dump.dump_all(reply)


############################################## scripts of real life ##############################################

SCRIPTS = Path(__file__).with_name("scripts")


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_runs_unchanged_and_survives_a_revoked_token(
    path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written for bare requests with its own login: one import changed, it runs, and again after a revocation."""
    monkeypatch.setenv("TOPSTEP_BASE_URL", gateway.url)
    bare, ours = (_bot(path, old, gateway) for old in (True, False))
    with contextlib.closing(_session(bare)), contextlib.closing(_session(ours)):
        assert isinstance(_session(ours), Session)
        expected = bare.work()
        assert expected
        assert _shape(expected) == _shape(ours.work())
        gateway.revoke_tokens()
        assert _shape(expected) == _shape(ours.work())
        assert 1 == getattr(ours, "logins", 1), "the script had to log in by itself"


def _bot(path: Path, old: bool, gateway: Gateway) -> Any:
    """The script's bot, with requests' session or, by its one changed import, with ours."""
    text = path.read_text()
    module = re.search("^from requests import .*Session$", text, re.MULTILINE)
    assert module is not None
    if not old:
        names = module[0].replace("Session", "").rstrip(", ")
        others = f"{names}\n" if not names.endswith("import") else ""
        text = text.replace(module[0], f"{others}from topstep_sync import Session")
    room: dict[str, Any] = {"__name__": path.stem}
    exec(compile(text, str(path), "exec"), room)
    return room["Bot"](gateway.url, gateway.user_name, gateway.api_key)


def _session(bot: Any) -> Any:
    return getattr(bot, "session", None) or bot.http


def _shape(result: Any) -> Any:
    return (type(result), len(result)) if isinstance(result, (list, dict, tuple)) else result

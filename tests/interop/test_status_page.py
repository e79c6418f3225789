"""The status page in a real browser: headless Chromium. What it shows agrees with the API, and its switches work."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.hub_wire import opened, wait_until

webdriver = pytest.importorskip("selenium.webdriver")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        shutil.which("chromium") is None or shutil.which("chromedriver") is None,
        reason="Chromium and its driver are not installed (Debian: chromium, chromium-driver)",
    ),
]

MNQ = "CON.F.US.MNQ.Z26"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    profile = tmp_path_factory.mktemp("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # the tests may run as root
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1400,1500",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


class Page:
    """The page of one gateway, in the browser."""

    def __init__(self, browser: Any, gateway: Any) -> None:
        self.browser = browser
        self.gateway = gateway
        self.complaints()  # those of the last page are not ours
        browser.get(gateway.url)
        self.wait(lambda: self.rows("accounts"))
        self.wait(lambda: len(self.find("#fault select option")) > 10)

    def find(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements("css selector", selector))

    def rows(self, table: str) -> list[list[str]]:
        """The texts of a table, read in one step: the page rebuilds its tables while we look."""
        script = (
            "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]"
            ".filter((row) => !row.querySelector('.none'))"
            ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
        )
        return list(self.browser.execute_script(script, table))

    def text(self, selector: str) -> str:
        return str(self.browser.execute_script("return document.querySelector(arguments[0]).innerText", selector))

    def click(self, selector: str) -> None:
        self.find(selector)[0].click()

    def wait(self, condition: Any) -> None:
        wait_until(condition, 15)

    def complaints(self) -> list[str]:
        """What the browser's console holds against the page."""
        return [line["message"] for line in self.browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]


@pytest.fixture
def page(browser: Any, gateway: Any) -> Page:
    return Page(browser, gateway)


def api(gateway: Any, path: str, body: Any) -> Any:
    token = gateway.run(lambda world: world.tokens.issue())
    headers = {"Authorization": f"Bearer {token}"}
    return requests.post(f"{gateway.url}/api/{path}", json=body, headers=headers, timeout=10)


def place(gateway: Any, **more: Any) -> Any:
    order = {"accountId": 536, "contractId": MNQ, "type": 2, "side": 0, "size": 1}
    return api(gateway, "Order/place", {**order, **more})


def test_it_shows_what_the_api_tells(page: Page) -> None:
    """Accounts, orders, positions, market, windows, connections and logs on the page are those of the API."""
    gateway = page.gateway
    gateway.set_price(MNQ, 21000.0)
    place(gateway, size=3)
    place(gateway, type=1, limitPrice=20000.0, customTag="my-tag")
    token = gateway.run(lambda world: world.tokens.issue())
    with opened(gateway.user_hub_url, token) as wire:
        wire.result("SubscribeOrders", 536)
        page.wait(lambda: len(page.rows("orders")) == 2 and page.rows("hubs"))
        orders = api(gateway, "Order/search", {"accountId": 536, "startTimestamp": "2020-01-01T00:00:00Z"}).json()[
            "orders"
        ]
        assert [str(order["id"]) for order in orders] == [row[0] for row in reversed(page.rows("orders"))]
        assert ["Buy 1 Limit", "20000", "Open", "my-tag"] == [page.rows("orders")[0][i] for i in (3, 4, 6, 8)]
        assert ["Buy 3 Market", "Filled", "3 at 21000"] == [page.rows("orders")[1][i] for i in (3, 6, 7)]
        accounts = api(gateway, "Account/search", {"onlyActiveAccounts": True}).json()["accounts"]
        shown = {row[0]: float(row[1].replace(",", "")) for row in page.rows("accounts")}
        assert all(shown[f"{one['id']} {one['name']}"] == pytest.approx(one["balance"], abs=0.01) for one in accounts)
        assert [["536", MNQ, "long 3", "21000"]] == page.rows("positions")
        assert [MNQ, "20999.75", "21000", "21000.25", "○"] == page.rows("market")[0]
        assert ("user", "orders:536") == (page.rows("hubs")[0][0], page.rows("hubs")[0][5])
        used = gateway.run(lambda world: world.limits.used("general", "trader", world.clock.monotonic()))
        page.wait(lambda: page.text('[data-limit="general"]') == f"{used} of 200 in 60 s")
        page.wait(lambda: page.rows("requests")[0][1] == "/api/Account/search")
        page.wait(lambda: ["invoke", "SubscribeOrders(536)"] == page.rows("events")[0][2:])
    page.wait(lambda: not page.rows("hubs"))
    assert [] == page.complaints()


def test_it_follows_by_itself(page: Page) -> None:
    """What happens after the page was opened shows up without a reload."""
    page.gateway.set_price(MNQ, 22000.0)
    page.wait(lambda: page.rows("market") and page.rows("market")[0][2] == "22000")
    page.gateway.set_price(MNQ, 22001.0)
    page.wait(lambda: page.rows("market")[0][2] == "22001")


def test_a_switch_takes_effect(page: Page) -> None:
    """A fault switched on by a click strikes the next call, and one more click ends it."""
    switch = 'button[data-fault="Order/place status"]'
    page.click(switch)
    page.wait(lambda: page.gateway.faults.active())
    assert 503 == place(page.gateway).status_code
    assert 503 == place(page.gateway).status_code
    page.wait(lambda: "struck 2" in page.text(switch))
    assert "true" == page.find(switch)[0].get_attribute("aria-pressed")
    page.click(switch)
    page.wait(lambda: not page.gateway.faults.active())
    assert 200 == place(page.gateway).status_code
    page.wait(lambda: page.find(switch)[0].get_attribute("aria-pressed") == "false")


def test_forms_set_prices_faults_and_drops(page: Page) -> None:
    """A price, a fault with its figures, and a drop can be ordered by form."""
    gateway = page.gateway
    page.find("#price input[name=price]")[0].send_keys("21234.25")
    page.click("#price button")
    page.wait(lambda: page.rows("market") and page.rows("market")[0][2] == "21234.25")
    page.find("#fault input[name=operation]")[0].send_keys("hubs/user")
    page.find("#fault select")[0].send_keys("unauthorized")
    page.click("#fault button")
    page.wait(
        lambda: [("hubs/user", "unauthorized", 1)] == [(f.operation, f.kind, f.times) for f in gateway.faults.active()]
    )
    page.wait(lambda: ["hubs/user", "unauthorized", "0 of 1", "Remove"] in page.rows("faults"))
    page.click("#clear")
    page.wait(lambda: not gateway.faults.active())
    with opened(gateway.user_hub_url, gateway.run(lambda world: world.tokens.issue())) as wire:
        page.wait(lambda: page.rows("hubs"))
        page.click("#logout")
        assert "GatewayLogout" == wire.record_of(1)["target"]
        page.click("#drop button")
        assert {"type": 7} == wire.record_of(7)


def test_a_refused_form_says_why(page: Page) -> None:
    """What the gateway refuses is told beside the form."""
    page.find("#price input[name=price]")[0].send_keys("0.1")
    page.click("#price button")
    page.wait(lambda: "whole number of ticks" in page.text("#refusal"))


def test_markup_in_a_tag_is_text(page: Page) -> None:
    """A custom tag that looks like markup shows as it is, and does nothing."""
    tag = "<img src=x onerror=alert(1)>"
    place(page.gateway, customTag=tag)
    page.wait(lambda: page.rows("orders") and page.rows("orders")[0][8] == tag)
    assert not page.find("#orders img")


def test_it_says_when_the_gateway_is_gone(page: Page) -> None:
    """A gateway that ended shows as such, instead of as standing still."""
    page.gateway.close()
    page.wait(lambda: page.find("#lost")[0].is_displayed())


def test_nothing_comes_from_outside(page: Page) -> None:
    """Every resource the page loaded is of the gateway itself."""
    script = "return performance.getEntriesByType('resource').map((one) => one.name)"
    names = page.browser.execute_script(script)
    assert names
    assert all(name.startswith(page.gateway.url) for name in names)


def test_a_narrow_screen_has_no_sideways_scroll(browser: Any, gateway: Any, tmp_path: Path) -> None:
    """On a narrow window the sections stack; only tables scroll sideways, within themselves."""
    page = Page(browser, gateway)
    size = browser.get_window_size()
    try:
        browser.set_window_size(520, 900)
        wide = browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    finally:
        browser.set_window_size(size["width"], size["height"])
    assert wide
    assert page.rows("accounts")

// Microsoft's own SignalR client against a gateway. Usage: node microsoft_client.mjs CASE URL TOKEN
// Each case asserts what it expects; exit code 0 means that all of it came true.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(process.env.TOPSTEP_NODE + "/");
const signalr = require("@microsoft/signalr");
const [name, url, token] = process.argv.slice(2);
const MNQ = "CON.F.US.MNQ.Z26";

const control = async (path, body) => {
  const answer = await fetch(`${url}/control${path}`, { method: "POST", body: JSON.stringify(body ?? {}) });
  assert.ok(answer.ok, `${path}: ${answer.status}`);
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
};

function connection(hub, options = {}) {
  const builder = new signalr.HubConnectionBuilder()
    .withUrl(`${url}/hubs/${hub}`, {
      skipNegotiation: !options.negotiate,
      transport: signalr.HttpTransportType.WebSockets,
      accessTokenFactory: () => options.token ?? token,
    })
    .configureLogging(signalr.LogLevel.None);
  if (options.retry) builder.withAutomaticReconnect(options.retry);
  const made = builder.build();
  for (const event of options.ignore ?? []) made.on(event, () => {});
  return made;
}

const once = (target, event) => new Promise((done) => target[event]((...said) => done(said)));
const next = (hub, event) =>
  new Promise((done) => {
    const hear = (...said) => { hub.off(event, hear); done(said); };
    hub.on(event, hear);
  });

const cases = {
  async subscribes() {
    const hub = connection("market", { ignore: ["gatewaytrade", "gatewaydepth"] });
    await hub.start();
    const first = next(hub, "GatewayQuote");
    assert.equal(await hub.invoke("SubscribeContractQuotes", MNQ), null);
    const [contract, quote] = await first;
    assert.equal(contract, MNQ);
    assert.ok(quote.lastPrice > 0 && quote.bestBid < quote.bestAsk);
    const second = next(hub, "GatewayQuote");
    await control(`/market?contractId=${MNQ}&price=21000`);
    assert.equal((await second)[1].bestBid, 20999.75);
    await hub.stop();
  },

  async negotiates() {
    const hub = connection("user", { negotiate: true });
    await hub.start();
    assert.ok(hub.connectionId);
    assert.equal(await hub.invoke("SubscribeAccounts"), null);
    await hub.stop();
  },

  async errors() {
    const hub = connection("user");
    await hub.start();
    const start = "Failed to invoke 'Nope' due to an error on the server. HubException: Method does not exist.";
    await assert.rejects(hub.invoke("Nope"), { message: start });
    await assert.rejects(hub.invoke("SubscribeOrders", "x"), /Failed to invoke 'SubscribeOrders' due to an error/);
    await assert.rejects(hub.invoke("SubscribeOrders", 1), /HubException: Account 1 not found\./);
    assert.equal(await hub.invoke("subscribeorders", 536), null);
    await hub.stop();
  },

  async echoes() {
    const hub = connection("echo");
    await hub.start();
    const value = { a: [1, null, true, "é<'&+>", 1.5], b: "x".repeat(20000) };
    assert.deepEqual(await hub.invoke("Echo", value), value);
    assert.equal(await hub.invoke("Add", 40, 2), 42);
    assert.equal(await hub.invoke("Big", 100000), "é".repeat(100000));
    assert.equal(await hub.invoke("Slow", 20), "done");
    const items = [];
    await new Promise((complete, error) =>
      hub.stream("Counter", 5).subscribe({ next: (item) => items.push(item), complete, error }));
    assert.deepEqual(items, [0, 1, 2, 3, 4]);
    await hub.stop();
  },

  async answers() {
    const hub = connection("echo");
    hub.on("AskMe", (a, b) => a + b);
    await hub.start();
    assert.deepEqual(await control("/hubs/echo/ask/AskMe?seconds=5", [40, 2]), [{ result: 42 }]);
    hub.off("AskMe");
    const [silent] = await control("/hubs/echo/ask/Unknown?seconds=5", [1]);
    assert.match(silent.error, /Client didn't provide a result/);
    await hub.stop();
  },

  async floods() {
    for (const burst of [1, 20]) {
      const hub = connection("market");
      const seen = [];
      hub.on("GatewayQuote", (_, quote) => seen.push(quote.volume));
      await hub.start();
      await control(`/hubs/market/blast?count=5000&burst=${burst}`);
      while (seen.length < 5000) await new Promise((done) => setTimeout(done, 10));
      assert.deepEqual(seen, [...Array(5000).keys()]);
      await hub.stop();
    }
  },

  async reconnects() {
    for (const how of ["close-reconnect", "shutdown", "rst", "fin"]) {
      const hub = connection("user", { retry: [0, 50, 100] });
      await hub.start();
      const [lost, back] = [once(hub, "onreconnecting"), once(hub, "onreconnected")];
      await control(`/hubs/user/drop?how=${how}`);
      await lost;
      await back;
      assert.equal(await hub.invoke("SubscribeAccounts"), null, how);
      await hub.stop();
    }
  },

  async stays_away() {
    for (const how of ["abort", "close"]) {
      const hub = connection("user", { retry: [0, 50, 100] });
      hub.onreconnecting(() => assert.fail(`reconnected after ${how}`));
      await hub.start();
      const closed = once(hub, "onclose");
      await control(`/hubs/user/drop?how=${how}`);
      const [error] = await closed;
      if (how === "close") assert.match(error.message, /Server returned an error on close: Connection closed with an error\./);
      assert.equal(hub.state, "Disconnected");
    }
  },

  async outlives_refusals() {
    const hub = connection("user", { retry: [0, 20, 20, 20, 20] });
    await hub.start();
    await control("/faults", { operation: "hubs/user", kind: "refuse", times: 1 });
    await control("/faults", { operation: "hubs/user", kind: "handshake-error", times: 1 });
    await control("/faults", { operation: "hubs/user", kind: "refuse-reset", times: 1 });
    const back = once(hub, "onreconnected");
    await control("/hubs/user/drop?how=rst");
    await back;
    assert.equal(await hub.invoke("SubscribeAccounts"), null);
    await hub.stop();
  },

  async notices_silence() {
    const hub = connection("user", { retry: [0, 20, 20] });
    hub.serverTimeoutInMilliseconds = 400;
    await hub.start();
    const lost = once(hub, "onreconnecting");
    await control("/hubs/user/drop?how=silence");
    assert.match((await lost)[0].message, /Server timeout elapsed/);
    await hub.stop();
  },

  async is_refused() {
    await assert.rejects(connection("user", { token: "nonsense" }).start(), /WebSocket failed to connect/);
    await control("/faults", { operation: "hubs/user", kind: "handshake-error", times: 1, body: "not today" });
    await assert.rejects(connection("user").start(), /not today/);
  },

  async sees_an_order() {
    const hub = connection("user");
    const seen = [];
    hub.on("GatewayUserOrder", (event) => seen.push([event.data.id, event.data.status]));
    hub.on("GatewayUserTrade", (event) => seen.push(event.data.orderId));
    hub.on("GatewayUserPosition", () => {});
    await hub.start();
    for (const topic of ["Orders", "Positions", "Trades"]) await hub.invoke(`Subscribe${topic}`, 536);
    const answer = await fetch(`${url}/api/Order/place`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ accountId: 536, contractId: MNQ, type: 2, side: 0, size: 1 }),
    });
    const { orderId } = await answer.json();
    while (seen.length < 3) await new Promise((done) => setTimeout(done, 5));
    assert.deepEqual(seen.filter((one) => Array.isArray(one)), [[orderId, 6], [orderId, 2]]);
    assert.ok(seen.includes(orderId));
    await hub.stop();
  },
};

if (name === "--list") {
  console.log(Object.keys(cases).join("\n"));
} else {
  await cases[name]();
  console.log(`ok ${name}`);
  process.exit(0);
}

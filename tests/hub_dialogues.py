"""Dialogues with a hub, good and bad, and what came of them.

Each was held with the reference gateway on the real ASP.NET Core; its answers are `golden/hub_dialogues.json`, which
the simulator must give, too (`test_simulator_hub_dialogues.py`), and which the reference is asked for again where it
is at hand (`interop/test_reference_hubs.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub_wire import HANDSHAKE, RS, Ended, Wire

GOLDEN = Path(__file__).parent / "golden" / "hub_dialogues.json"
MARK = "~end"


@dataclass(frozen=True)
class Frame:
    """A WebSocket frame that is not simply a text message."""

    payload: bytes
    opcode: int = 1
    fin: bool = True
    mask: bool = True


@dataclass(frozen=True)
class Dialogue:
    """What a client sends after its handshake; `handshake` replaces that."""

    name: str
    hub: str
    steps: tuple[str | Frame, ...] = ()
    handshake: str = HANDSHAKE

    @property
    def key(self) -> str:
        return f"{self.hub}: {self.name}"


def record(**fields: Any) -> str:
    return json.dumps(fields) + RS


def call(target: str, *arguments: Any, id_: str | None = "1", **more: Any) -> str:
    fields = {"type": 1, "target": target, "arguments": list(arguments), **more}
    return record(**fields, invocationId=id_) if id_ is not None else record(**fields)


def user(name: str, *steps: str | Frame) -> Dialogue:
    return Dialogue(name, "user", steps)


def echo(name: str, *steps: str | Frame) -> Dialogue:
    return Dialogue(name, "echo", steps)


def market(name: str, *steps: str | Frame) -> Dialogue:
    return Dialogue(name, "market", steps)


def shake(name: str, handshake: str) -> Dialogue:
    return Dialogue(f"handshake: {name}", "user", (), handshake)


SUBSCRIBE = call("SubscribeAccounts")

DIALOGUES = [
    shake("version 0", '{"protocol":"json","version":0}' + RS),
    shake("version 2", '{"protocol":"json","version":2}' + RS),
    shake("version -1", '{"protocol":"json","version":-1}' + RS),
    shake("version 9", '{"protocol":"json","version":9}' + RS),
    shake("version is text", '{"protocol":"json","version":"1"}' + RS),
    shake("no version", '{"protocol":"json"}' + RS),
    shake("no protocol", '{"version":1}' + RS),
    shake("protocol is null", '{"protocol":null,"version":1}' + RS),
    shake("unknown protocol", '{"protocol":"nope","version":1}' + RS),
    shake("messagepack", '{"protocol":"messagepack","version":1}' + RS),
    shake("protocol in capitals", '{"protocol":"JSON","version":1}' + RS),
    shake("unknown property", '{"protocol":"json","version":1,"x":{"y":[1]}}' + RS),
    shake("no JSON", "hello" + RS),
    shake("an array", "[]" + RS),
    shake("empty", RS),
    shake("too long", "x" * 33_000),
    shake("and a call in one message", HANDSHAKE + SUBSCRIBE),
    user("call without result", SUBSCRIBE),
    user("call in other letters", call("subscribeORDERS", 536)),
    user("call without id", call("SubscribeAccounts", id_=None)),
    user("call with empty id", call("SubscribeAccounts", id_="")),
    user("unknown method", call("Nope")),
    user("unknown method in other letters", call("nOPE", 1, 2)),
    user("unknown method without id", call("Nope", id_=None)),
    user("text for a number", call("SubscribeOrders", "536")),
    user("fraction for an integer", call("SubscribeOrders", 5.5)),
    user("536.0 for an integer", call("SubscribeOrders", 536.0)),
    user("too large an integer", call("SubscribeOrders", 2**31)),
    user("null for a number", call("SubscribeOrders", None)),
    user("boolean for a number", call("SubscribeOrders", True)),
    user("too few arguments", call("SubscribeOrders")),
    user("too many arguments", call("SubscribeOrders", 536, 536)),
    user("unknown account", call("SubscribeOrders", 1)),
    user("leaving what was not joined", call("UnsubscribeOrders", 77)),
    market("unknown contract", call("SubscribeContractTrades", "NOPE")),
    market("a method of the other hub", call("SubscribeOrders", 536)),
    market("number for a contract", call("SubscribeContractTrades", 5)),
    market("the depth method's wrong name", call("SubscribeContractDepth", "CON.F.US.MNQ.Z26")),
    user(
        "properties in another order", '{"arguments":[536],"invocationId":"q","target":"SubscribeOrders","type":1}' + RS
    ),
    user("headers", record(type=1, headers={"a": "b"}, invocationId="1", target="SubscribeAccounts", arguments=[])),
    user("unknown property", record(type=1, x={"y": [1]}, invocationId="1", target="SubscribeAccounts", arguments=[])),
    user("two types, the last counts", '{"type":1,"type":6}' + RS),
    user("text behind the object", '{"type":6} and more' + RS),
    user("space around the object", ' \r\n\t{"type":6} ' + RS),
    user("no type", "{}" + RS),
    user("type is null", '{"type":null}' + RS),
    user("type is text", '{"type":"1"}' + RS),
    user("type is a fraction", '{"type":1.5}' + RS),
    user("no JSON", "hello" + RS),
    user("half an object", '{"type":6' + RS),
    user("NaN", '{"type":6,"x":NaN}' + RS),
    user("single quotes", "{'type':6}" + RS),
    user("comma at the end", '{"type":6,}' + RS),
    user("empty record", RS),
    user("an array", "[1]" + RS),
    user("a number", "6" + RS),
    user("call without target", '{"type":1,"arguments":[]}' + RS),
    user("call with target null", '{"type":1,"target":null,"arguments":[]}' + RS),
    user("call without arguments", '{"type":1,"target":"SubscribeAccounts","invocationId":"1"}' + RS),
    user("arguments are a number", '{"type":1,"target":"SubscribeAccounts","invocationId":"1","arguments":5}' + RS),
    user("arguments are an object", '{"type":1,"target":"SubscribeAccounts","invocationId":"1","arguments":{}}' + RS),
    user("id is a number", '{"type":1,"target":"SubscribeAccounts","invocationId":1,"arguments":[]}' + RS),
    user("id is null", '{"type":1,"target":"SubscribeAccounts","invocationId":null,"arguments":[]}' + RS),
    user("close", record(type=7)),
    user("close with an error", record(type=7, error="x")),
    user("call after close", record(type=7), SUBSCRIBE),
    user("unknown type 99", record(type=99), SUBSCRIBE, record(type=7)),
    user("unknown type 0", record(type=0), SUBSCRIBE),
    user("unknown type, then 32 KiB", record(type=99), "x" * 33_000),
    user("acknowledgement", record(type=8, sequenceId=1), SUBSCRIBE),
    user("sequence", record(type=9, sequenceId=1), SUBSCRIBE),
    user("acknowledgement without id", record(type=8)),
    user("ping", record(type=6), SUBSCRIBE),
    user("answer to nothing", record(type=3, invocationId="zz", result=1), SUBSCRIBE),
    user("answer without id", record(type=3, result=1)),
    user("answer with result and error", record(type=3, invocationId="z", result=1, error="x")),
    user("item of no stream", record(type=2, invocationId="zz", item=1), SUBSCRIBE),
    user("cancelling nothing", record(type=5, invocationId="zz"), SUBSCRIBE),
    user("cancelling without id", record(type=5)),
    user("stream of a plain method", record(type=4, invocationId="s", target="SubscribeAccounts", arguments=[])),
    user("stream without id", record(type=4, target="SubscribeAccounts", arguments=[])),
    user("largest record", '{"type":6,"x":"' + "x" * 32_750 + '"}' + RS, SUBSCRIBE),
    user("a byte too large", '{"type":6,"x":"' + "x" * 32_751 + '"}' + RS),
    user("too large without end", "x" * 40_000),
    user("two records in a message", call("SubscribeAccounts", id_="1") + record(type=6)),
    user("a record in two messages", SUBSCRIBE[:20], SUBSCRIBE[20:]),
    user("a record in fragments", Frame(SUBSCRIBE[:20].encode(), 1, fin=False), Frame(SUBSCRIBE[20:].encode(), 0)),
    user(
        "a ping between fragments",
        Frame(SUBSCRIBE[:20].encode(), 1, fin=False),
        Frame(b"hi", 9),
        Frame(SUBSCRIBE[20:].encode(), 0),
    ),
    user("binary frame", Frame(SUBSCRIBE.encode(), 2)),
    user("frame without a mask", Frame(SUBSCRIBE.encode(), 1, mask=False)),
    user("unknown opcode", Frame(b"abc", 3)),
    user("continuation of nothing", Frame(b"abc", 0)),
    user("message within a message", Frame(b"a", 1, fin=False), Frame(b"b", 1)),
    user("fragmented ping", Frame(b"abc", 9, fin=False)),
    user("WebSocket close without a code", Frame(b"", 8)),
    user("WebSocket close of one byte", Frame(b"a", 8)),
    user("WebSocket close 1001", Frame(b"\x03\xe9bye", 8)),
    echo("result", call("Echo", {"a": [1, None, True, "é<'&+>", 1.5]})),
    echo("null result", call("Echo", None)),
    echo("sum", call("Add", 1, 2)),
    echo("sum beyond 32 bits", call("Add", 2**31 - 1, 1)),
    echo("sum of wrong types", call("Add", 1, "x")),
    echo("error with words", call("Throw", "boom")),
    echo("error with wrong argument", call("Throw", 5)),
    echo("error without words", call("Crash")),
    echo("plain call of a stream", call("Counter", 3)),
    echo("stream of an unknown method", record(type=4, invocationId="1", target="Nope", arguments=[])),
    echo("client stream nobody wants", call("Echo", 1, streamIds=["q"])),
    echo("hub's abort", call("AbortMe")),
    echo("events before the result", call("Flood", 3, 5)),
    echo("large result", call("Big", 6000)),
    echo("half a surrogate pair", '{"type":1,"target":"Echo","invocationId":"1","arguments":["\\ud800"]}' + RS),
    echo("a surrogate pair", '{"type":1,"target":"Echo","invocationId":"1","arguments":["\\ud83d\\ude00"]}' + RS),
]


def hold(url: str, token: str, dialogue: Dialogue) -> dict[str, Any]:
    """What came of *dialogue*: records but for pings, and the end: `open`, `silent`, or the close code."""
    found: list[Any] = []
    with Wire(f"{url}/hubs/{dialogue.hub}", token) as wire:
        try:
            wire.send(dialogue.handshake)
            found.append(wire.record())
            for step in dialogue.steps:
                _send(wire, step)
            wire.send(call("Done", id_=MARK))
            wire.sock.settimeout(5.0 if _answers(dialogue) else 0.3)
            while True:
                one = wire.record()
                if one.get("invocationId") == MARK:
                    return {"records": found, "end": "open"}
                if one != {"type": 6}:
                    found.append(one)
        except TimeoutError:
            end = "silent"
        except OSError:
            end = "broken"
        except Ended as ended:
            end = str(ended.code) if ended.how == "close" else ended.how
    return {"records": found, "end": end}


def _send(wire: Wire, step: str | Frame) -> None:
    if isinstance(step, Frame):
        wire.send_frame(step.payload, step.opcode, fin=step.fin, mask=step.mask)
    else:
        wire.send(step)


def _answers(dialogue: Dialogue) -> bool:
    """Whether the hub still hears: after a record of unknown type it does not."""
    return not dialogue.name.startswith("unknown type")

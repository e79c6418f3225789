"""The parts of README.md that are written by the code they describe.

`python tests/readme.py` writes them anew; tests/test_readme.py fails while they differ.
"""

import ast
import dataclasses
import importlib
import inspect
import itertools
import re
import typing
from pathlib import Path

import topstep_sync
from topstep_sync import errors
from topstep_sync.config import Config, Part
from topstep_sync.simulator.reference import markdown

README = Path(__file__).parent.parent / "README.md"


def documented(cls: type) -> dict[str, str]:
    """Field → the docstring beneath it, in one line."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(cls)).body[0]).body
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[typing.cast(ast.Name, field.target).id] = " ".join(str(text.value.value).split())
    return found


def shown(value: object) -> str:
    """A default as one writes it."""
    return f"`{', '.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"


def cell(text: str) -> str:
    """*text* within a table."""
    return text.replace("|", "\\|")


def settings() -> str:
    """The table of all settings."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    whole = Config()
    parts = []
    for entry in dataclasses.fields(Config):
        value = getattr(whole, entry.name)
        if isinstance(value, Part):
            parts.append((entry.name, value))
        else:
            rows.append(f"| `{entry.name}` | {shown(value)} | {cell(documented(Config)[entry.name])} |")
    for name, part in parts:
        texts = documented(type(part))
        for entry in dataclasses.fields(part):  # type: ignore[arg-type]
            default = shown(getattr(part, entry.name))
            rows.append(f"| `{name}.{entry.name}` | {default} | {cell(texts[entry.name])} |")
    return "\n".join(rows)


def tree() -> str:
    """The tree of errors."""
    assert errors.__doc__
    drawing = inspect.cleandoc(errors.__doc__).split("::\n\n")[1].split("\n\n")[0]
    return "```text\n" + inspect.cleandoc(drawing) + "\n```"


def reference() -> str:
    """The table of public names."""
    rows = ["| name | from | what it is |", "|---|---|---|"]
    for name in topstep_sync.__all__:
        room = f"topstep_sync.{topstep_sync._ROOM_OF[name]}"
        text = inspect.getdoc(getattr(importlib.import_module(room), name)) or ""
        rows.append(f"| `{name}` | `{room}` | {cell(' '.join(text.split(chr(10) * 2)[0].split()))} |")
    return "\n".join(rows)


MACHINES = {
    "The token": "auth.token_policy",
    "A circuit breaker": "http.circuit_breaker",
    "A hub connection": "realtime.lifecycle",
    "The intent to place an order": "api.intent",
}


def states() -> str:
    """A diagram of each state machine."""
    texts = []
    for title, room in MACHINES.items():
        edges: dict[tuple[str, str], list[str]] = {}
        table = importlib.import_module(f"topstep_sync.{room}").TRANSITIONS
        for (state, event), target in table.items():
            edges.setdefault((state.name, target.name), []).append(str(event.value).replace("_", " "))
        lines = [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in edges.items()]
        first = next(iter(type(next(iter(table))[0]))).name
        texts.append("\n".join([f"{title}:\n", "```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *lines, "```"]))
    return "\n\n".join(texts)


def simulator() -> str:
    """The tables of everything the simulator can do."""
    return markdown().rstrip()


PARTS = {"settings": settings, "errors": tree, "states": states, "reference": reference, "simulator": simulator}


def between(name: str) -> re.Pattern[str]:
    """Where the part *name* stands in the README."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)


def blocks(language: str) -> list[tuple[int, str]]:
    """Line and content of each fenced block of *language*."""
    text = README.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def main() -> None:
    """The README says what the code says."""
    text = README.read_text(encoding="utf-8")
    for name, make in PARTS.items():
        content = make() + "\n"
        text = between(name).sub(lambda _, content=content: content, text)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

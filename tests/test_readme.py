"""What the README says is so: its examples run, and its tables are those of the code."""

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import readme

import topstep_sync

pytest.importorskip("uvicorn", reason="the examples run against the simulator")


@pytest.fixture(scope="module")
def simulator() -> Iterator[Any]:
    """A gateway whose market moves."""
    from topstep_sync.testing import Gateway

    with Gateway(market_rate=20.0) as gateway:
        yield gateway


@pytest.mark.parametrize(("line", "code"), [pytest.param(*b, id=f"line{b[0]}") for b in readme.blocks("python")])
def test_examples_run(line: int, code: str, simulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python example of the README runs as it stands, in a namespace of its own."""
    for name, value in simulator.environ.items():
        monkeypatch.setenv(name, value)
    # The traceback of a failing example shows the README's own lines.
    program = compile("\n" * (line - 1) + code, str(readme.README), "exec")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            exec(program, namespace)
        finally:
            if isinstance(session := namespace.get("session"), topstep_sync.Session):
                session.close()


@pytest.mark.parametrize("part", readme.PARTS)
def test_tables_are_those_of_the_code(part: str) -> None:
    """Settings, errors, states and names are as the code has them; `python tests/readme.py` writes them."""
    found = readme.between(part).search(readme.README.read_text(encoding="utf-8"))
    assert found
    assert readme.PARTS[part]() + "\n" == found[0]


def test_the_two_commands() -> None:
    """The first screen has the command that shows it at work and the one that tests it, each in one line."""
    commands = [code.strip() for _, code in readme.blocks("sh")[:2]]
    assert [1, 1] == [len(command.splitlines()) for command in commands]
    assert [True, True] == [commands[0].endswith("topstep-sync demo"), " -m pytest" in commands[1]]
    assert all(shlex.split(command) for command in commands)


def test_extras_exist() -> None:
    """Each extra that the commands install is one of the project."""
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    for _, command in readme.blocks("sh"):
        for extra in re.findall(r"'\.\[(\w+)\]'", command):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_links_lead_somewhere() -> None:
    """Files that the README points at are there."""
    text = readme.README.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [] == [link for link in links if not os.path.exists(readme.README.parent / link)]  # noqa: PTH110

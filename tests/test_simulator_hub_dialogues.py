"""The hubs answer, dialogue by dialogue, what the real ASP.NET Core answered."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub_dialogues import DIALOGUES, GOLDEN, Dialogue, hold
from topstep_sync.testing import Gateway

EXPECTED = json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def hubs() -> Iterator[tuple[str, str]]:
    with Gateway(market_rate=0.0) as gateway:
        yield gateway.url, gateway.run(lambda world: world.tokens.issue())


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: f"{dialogue.hub} {dialogue.name}")
def test_dialogue(hubs: tuple[str, str], dialogue: Dialogue) -> None:
    """Records, their order and the end are those of the framework."""
    assert EXPECTED[dialogue.key] == hold(*hubs, dialogue)


def test_golden_answers_are_of_these_dialogues() -> None:
    """No answer is kept for a dialogue that is gone, and names are unique."""
    names: list[Any] = [dialogue.key for dialogue in DIALOGUES]
    assert sorted(names) == sorted(EXPECTED)

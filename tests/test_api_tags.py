"""Custom tags."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.api import tags
from topstep_sync.errors import InvalidRequest


def test_the_layout_of_a_ulid() -> None:
    """A known instant gives the characters that the ULID specification prescribes, and then come sixteen of chance."""
    found = [tags.ulid(1469922850.259) for _ in range(2000)]
    assert {"01ARZ3NDEK"} == {tag[:10] for tag in found}
    assert {tags.ULID_LENGTH} == set(map(len, found))
    for place in range(10, tags.ULID_LENGTH):
        assert set(tags.ALPHABET) == {tag[place] for tag in found}, place


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_chances_of_its_own() -> None:
    """A child mints none of the tags that its parent mints in the same millisecond."""
    tags.mint(None, 1.0)  # so that some more are drawn already
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(_minted, [100, 100], chunksize=1)
    assert 300 == len({*_minted(100), *found[0], *found[1]})


def _minted(count: int) -> list[str]:
    return [tags.mint(None, 1.0) for _ in range(count)]


def test_threads_share_no_chance() -> None:
    """Thirty-two threads that mint in the same millisecond have no tag in common."""
    with ThreadPoolExecutor(32) as pool:
        found = [tag for some in pool.map(_minted, [500] * 32) for tag in some]
    assert 16_000 == len(set(found))


@given(st.floats(0, 2**47 / 1000), st.floats(0, 2**47 / 1000))
def test_tags_sort_by_time(a: float, b: float) -> None:
    """Tags of different milliseconds sort as the milliseconds do."""
    if round(a * 1000) != round(b * 1000):
        assert (a < b) == (tags.ulid(a) < tags.ulid(b))


@given(st.integers(0, 2**47))
def test_a_tag_knows_when_it_was_minted(ms: int) -> None:
    """The instant is read back from a minted tag, labelled or not."""
    assert ms / 1000 == tags.minted_at(tags.mint(None, ms / 1000)) == tags.minted_at(tags.mint("a.b", ms / 1000))


@pytest.mark.parametrize("tag", ["", "entry-1", "a~b", "x" * 26, "01ARZ3NDEKTSV4RRFFQ69G5FAVX"])
def test_other_tags_say_nothing(tag: str) -> None:
    """A tag that somebody else made has no instant."""
    assert None is tags.minted_at(tag)


def test_no_two_tags_are_the_same() -> None:
    """Tags of one millisecond differ, also between processes."""
    code = "from topstep_sync.api import tags; print('\\n'.join(tags.mint('x', 1.0) for _ in range(500)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    found += [tags.mint("x", 1.0) for _ in range(500)]
    assert 1000 == len(set(found))


def test_the_longest_label_fits() -> None:
    """The longest label and the tag after it stay within the length that was seen to work."""
    assert tags.LONGEST == len(tags.mint("a" * 33, 1.0))
    with pytest.raises(InvalidRequest, match="label is"):
        tags.mint("a" * 34, 1.0)


@pytest.mark.parametrize("label", ["", "a b", "a~b", "ä", 5, "a\n"])
def test_bad_labels(label: Any) -> None:
    """A label of other characters is refused: the gateway's rules for tags are not known."""
    with pytest.raises(InvalidRequest, match="label is"):
        tags.mint(label, 1.0)


@pytest.mark.parametrize("tag", ["", "a b", "ä", "a" * 61, 5, None, "tab\t"])
def test_bad_tags(tag: Any) -> None:
    """A tag that might not come back as it was sent is refused: it could not be found again."""
    with pytest.raises(InvalidRequest, match="custom_tag is"):
        tags.checked(tag)


def test_a_callers_own_tag() -> None:
    """A printable tag is taken as it is."""
    assert "entry#7/MNQ" == tags.checked("entry#7/MNQ")

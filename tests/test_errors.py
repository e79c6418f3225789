"""The tree of errors, and the facts each of them carries."""

import copy
import inspect
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from topstep_sync import errors
from topstep_sync.errors import APIError, Category, Fate, OrderStateUnknown, RequestError, TopstepError

REAL = {
    name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, TopstepError)
}


def drawn() -> Iterator[tuple[str, str | None, list[str]]]:
    """Name, parent and further bases of each class in the tree at the head of errors.py."""
    trail: dict[int, str] = {}
    assert errors.__doc__
    for line in errors.__doc__.split("::")[1].splitlines():
        found = re.match(r"^    ([│├└─ ]*)((?:\w+(?: \(\w[\w., ]*\))?(?:, )?)+)", line)
        if not found:
            continue
        depth = len(found[1]) // 4
        for name, bases in re.findall(r"(\w+)(?: \(([\w., ]+)\))?(?:, |$|\s{2,}|\s*$)", found[2].strip()):
            trail[depth] = name
            yield name, trail.get(depth - 1), [base.strip() for base in bases.split(",") if base]


DRAWN = {name: (parent, bases) for name, parent, bases in drawn()}


def test_the_tree_names_every_class() -> None:
    """The tree at the head of the module and the module have the same classes."""
    assert sorted(REAL) == sorted(DRAWN)


@pytest.mark.parametrize("name", REAL)
def test_the_tree_is_true(name: str) -> None:
    """Each class hangs where the tree draws it, with the further bases it names there."""
    parent, bases = DRAWN[name]
    expected = [base.rpartition(".")[2] for base in ([parent] if parent else ["Exception"]) + bases]
    assert expected == [base.__name__ for base in REAL[name].__bases__]


@pytest.mark.parametrize("name", REAL)
def test_every_class_says_what_it_is(name: str) -> None:
    """Each class has a docstring of its own and its three facts, of the right type."""
    cls = REAL[name]
    assert cls.__dict__.get("__doc__")
    assert (Category, bool, Fate) == (type(cls.category), type(cls.retryable), type(cls.fate))


@pytest.mark.parametrize("name", REAL)
def test_only_what_was_not_sent_is_repeated(name: str) -> None:
    """The library repeats by itself only what certainly left no trace."""
    assert not REAL[name].retryable or REAL[name].fate is Fate.NOT_SENT


@pytest.mark.parametrize("name", REAL)
def test_survives_a_pickle(name: str) -> None:
    """An error arrives in another process with its text, facts and notes."""
    error = REAL[name]("it went wrong", attempts=3, retry_after=1.5, endpoint="/api/Order/place")
    error.add_note("at the open")
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error), error.__notes__) == (type(arrived), str(arrived), arrived.__notes__)
    assert (3, 1.5, "/api/Order/place") == (arrived.attempts, arrived.retry_after, arrived.endpoint)
    assert (error.category, error.retryable, error.fate) == (arrived.category, arrived.retryable, arrived.fate)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_survives_a_copy(again: Any) -> None:
    """A copied error is the same error."""
    error = again(OrderStateUnknown("lost", tag="t-1", since=5.0))
    assert ("lost", "t-1", 5.0) == (str(error), error.tag, error.since)


def test_a_pickle_leaves_the_bearer_behind() -> None:
    """Request and response, whose headers carry the token, do not travel with an error."""
    request = requests.Request("POST", "https://api.example", headers={"Authorization": "Bearer top-secret"}).prepare()
    data = pickle.dumps(APIError("no", request=request, response=requests.Response()))
    assert b"top-secret" not in data
    assert (None, None) == (pickle.loads(data).request, pickle.loads(data).response)


def test_facts_are_attributes() -> None:
    """Facts given by name override those of the class, for this one error."""
    error = APIError("no", status_code=503, fate=Fate.UNKNOWN)
    assert (503, Fate.UNKNOWN, Fate.REFUSED) == (error.status_code, error.fate, APIError.fate)


def test_a_misspelt_fact_is_refused() -> None:
    """A fact no class has is a programmer's mistake, not an attribute nobody reads."""
    with pytest.raises(TypeError, match="APIError has no fact named 'staus_code'"):
        APIError("no", staus_code=503)


@pytest.mark.parametrize(
    ("cls", "familiar"),
    [
        (RequestError, requests.RequestException),
        (errors.RateLimitTimeout, requests.Timeout),
        (errors.CircuitOpen, requests.ConnectionError),
        (errors.DeadlineExceeded, requests.Timeout),
        (errors.BodyNotRewindable, requests.exceptions.UnrewindableBodyError),
        (errors.ConnectFailed, requests.ConnectionError),
        (errors.ConnectTimedOut, requests.ConnectTimeout),
        (errors.ReplyLost, requests.ConnectionError),
        (errors.ReplyTimedOut, requests.ReadTimeout),
        (APIError, requests.HTTPError),
        (errors.BadReply, requests.exceptions.InvalidJSONError),
        (errors.ConfigError, ValueError),
        (errors.InvalidRequest, ValueError),
        (errors.MissingExtra, ImportError),
    ],
)
def test_existing_handlers_catch_it(cls: type[Exception], familiar: type[Exception]) -> None:
    """What a program catches today still catches it."""
    with pytest.raises(familiar, match="it went wrong"):
        raise cls("it went wrong")


def test_no_stream_error_is_a_request_error() -> None:
    """A handler for REST calls does not swallow what the stream has to say."""
    assert not issubclass(errors.StreamError, requests.RequestException)


def test_an_order_of_unknown_fate_is_no_request_error() -> None:
    """`except requests.RequestException: retry` must not catch an order that may exist."""
    assert not issubclass(OrderStateUnknown, requests.RequestException)

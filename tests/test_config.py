"""Settings: checked when made, and every refusal names the field."""

import ast
import copy
import dataclasses
import inspect
import itertools
import pickle
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync import config as config_module
from topstep_sync.config import (
    BreakerConfig,
    Config,
    GuardConfig,
    HttpConfig,
    OrderConfig,
    Part,
    RateConfig,
    RetryConfig,
    StreamConfig,
    TokenConfig,
)
from topstep_sync.errors import ConfigError
from topstep_sync.redact import Secret

PARTS = [HttpConfig, RateConfig, TokenConfig, RetryConfig, BreakerConfig, StreamConfig, OrderConfig, GuardConfig]

NAMES = {entry.name: typing.get_type_hints(Config)[entry.name] for entry in dataclasses.fields(Config)}

FIELDS = [(part, entry.name) for part in PARTS for entry in dataclasses.fields(part)]

TEXTS = [
    (part, name) for part, name in FIELDS if {str, Secret} & set(typing.get_args(typing.get_type_hints(part)[name]))
]


def part_name(part: type[Part]) -> str:
    """The name of *part* within `Config`."""
    return next(name for name, hint in NAMES.items() if hint is part)


def variable(part: type[Part], name: str) -> str:
    """The environment variable of a field."""
    return f"TOPSTEP_{part_name(part)}_{name}".upper()


def documented(cls: type) -> dict[str, str]:
    """Field → the docstring beneath it."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(cls)).body[0]).body
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[typing.cast(ast.Name, field.target).id] = str(text.value.value)
    return found


def refused(make: Callable[[], object]) -> str | None:
    """What the ConfigError says; None where there is none."""
    try:
        make()
    except ConfigError as error:
        return str(error)
    return None


def accepts(part: type[Part], name: str, value: Any) -> bool:
    """Whether the field takes *value*; a refusal must name the field."""
    refusal = refused(lambda: part.of({name: value}))
    assert refusal is None or f"{part.__name__}.{name} is" in refusal
    return refusal is None


class TestDefaults:
    def test_specified_names_and_values(self) -> None:
        """The keys that the specifications name have their defaults."""
        config = Config()
        assert (7200.0, 4, 100) == (
            config.token.refresh_buffer_seconds,
            config.token.max_retries,
            config.token.max_queue_depth,
        )
        assert (30.0, 60.0, 120.0, 300.0) == config.token.backoff_seconds
        assert (0.0, 2.0, 10.0, 30.0, 60.0) == config.stream.backoff_seconds
        assert (30.0, 120.0) == (config.stream.heartbeat_seconds, config.stream.stale_seconds)
        assert (50, 30.0) == (config.rate.history_limit, config.rate.history_window)
        assert (200, 60.0) == (config.rate.general_limit, config.rate.general_window)

    def test_documented_urls(self) -> None:
        """The defaults are the gateway's documented addresses."""
        config = Config()
        assert "https://api.topstepx.com" == config.base_url
        assert "https://rtc.topstepx.com/hubs/user" == config.user_hub_url
        assert "https://rtc.topstepx.com/hubs/market" == config.market_hub_url

    @pytest.mark.parametrize("part", [Config, *PARTS])
    def test_every_field_says_what_it_is(self, part: type) -> None:
        """Each field has a docstring beneath it; parts of the whole speak for themselves."""
        fields = {entry.name for entry in dataclasses.fields(part)}
        parts = {name for name, hint in NAMES.items() if hint in PARTS} if part is Config else set()
        assert fields - parts == set(documented(part))

    @pytest.mark.parametrize("part", PARTS)
    def test_all_ways_give_the_defaults(self, part: type[Part]) -> None:
        """Nothing, an empty mapping, the part itself and the whole configuration all give the same."""
        assert part() == part.of(None) == part.of({}) == part.of(part()) == part.of(Config())

    def test_frozen(self) -> None:
        """A configuration in use does not change."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            Config().rate.history_limit = 5  # type: ignore[misc]


class TestRefusals:
    @pytest.mark.parametrize(("part", "name"), FIELDS)
    @pytest.mark.parametrize("value", [object(), "word", "", float("nan"), float("inf"), "nan", b"5", {}, [None], 1j])
    def test_nonsense(self, part: type[Part], name: str, value: Any) -> None:
        """No field takes a value of the wrong kind, except that text fields may take a word."""
        may = (part, name) in TEXTS and value in ("word", "nan")
        assert not accepts(part, name, value) or may

    @pytest.mark.parametrize(("part", "name"), FIELDS)
    def test_negative_numbers(self, part: type[Part], name: str) -> None:
        """No setting is below zero."""
        assert not accepts(part, name, -1)

    @pytest.mark.parametrize(("part", "name"), FIELDS)
    def test_none_where_it_means_something(self, part: type[Part], name: str) -> None:
        """None is taken by the fields that say what it means, and by no other."""
        assert ("`None`" in documented(part)[name]) == accepts(part, name, None)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"history_limit": 2.5}, "RateConfig.history_limit is 2.5; expected a whole number"),
            ({"history_limit": True}, "RateConfig.history_limit is True; expected a whole number"),
            ({"history_limit": 0}, "RateConfig.history_limit is 0; expected a number above 0"),
            ({"history_window": True}, "RateConfig.history_window is True; expected a number"),
            ({"margin": 1.01}, "RateConfig.margin is 1.01; expected a share from 0.0 to 1.0"),
            ({"grace": -0.1}, "RateConfig.grace is -0.1; expected a number of 0 or more"),
            ({"history_limit": 10**400}, "RateConfig.history_limit is 1000"),
        ],
    )
    def test_message_says_what_and_what_else(self, values: dict[str, Any], message: str) -> None:
        """A refusal names the field, the value and what was expected."""
        with pytest.raises(ConfigError) as raised:
            RateConfig.of(values)
        assert str(raised.value).startswith(message)

    @pytest.mark.parametrize("value", [[], "", "1,,2", "1,x", [1, -1], 5, [True]])
    def test_delays(self, value: Any) -> None:
        """A schedule is a list of at least one delay."""
        with pytest.raises(ConfigError, match=r"TokenConfig\.backoff_seconds is"):
            TokenConfig.of({"backoff_seconds": value})

    def test_choice(self) -> None:
        """A word that is not one of the choices is refused with the choices."""
        with pytest.raises(ConfigError, match="reconnect_on_close is 'never'; expected one of 'always', 'server'"):
            StreamConfig.of({"reconnect_on_close": "never"})

    def test_unknown_key(self) -> None:
        """A misspelt key is refused, with what there is."""
        with pytest.raises(ConfigError, match=r"RateConfig has no setting 'histroy_limit'; it has .*, history_limit"):
            RateConfig.of({"histroy_limit": 5})

    @pytest.mark.parametrize("value", [5, "rate", ["history_limit"], TokenConfig()])
    def test_not_a_mapping(self, value: Any) -> None:
        """A part is made from a mapping or from itself."""
        with pytest.raises(ConfigError, match="RateConfig is made from a mapping or a RateConfig, not"):
            RateConfig.of(value)

    def test_nested_part(self) -> None:
        """A bad value deep in a mapping is named by its part."""
        with pytest.raises(ConfigError, match=r"RateConfig\.history_limit is 'x'"):
            Config.of({"rate": {"history_limit": "x"}})

    def test_a_secret_is_not_shown(self) -> None:
        """A key of the wrong type is refused without being printed."""
        with pytest.raises(ConfigError) as raised:
            Config(api_key=b"my-very-secret-key")  # type: ignore[arg-type]
        assert "Config.api_key is a secret; expected text" == str(raised.value)

    @pytest.mark.parametrize("field", ["user_name", "api_key"])
    @pytest.mark.parametrize("value", ["", "  ", "joe\n", "jo\x00e"])
    def test_empty_or_broken_text(self, field: str, value: str) -> None:
        """A name or key that is empty or ends in a newline from a file is told, not sent."""
        with pytest.raises(ConfigError, match=rf"Config\.{field} is empty or holds control characters"):
            Config.of({field: value})


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://api.example", "https://api.example:8443/base", "http://127.0.0.1:5000", "http://localhost",
            "http://[::1]:5000", "HTTPS://API.EXAMPLE",
        ],
    )  # fmt: skip
    def test_good(self, url: str) -> None:
        """https anywhere, and http on this machine, are taken as they are."""
        assert url == Config(base_url=url).base_url

    def test_trailing_slash(self) -> None:
        """Paths begin with a slash, so the base does not end with one."""
        assert "https://api.example" == Config(base_url="https://api.example//").base_url

    @pytest.mark.parametrize("field", ["base_url", "user_hub_url", "market_hub_url"])
    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("api.topstepx.com", "not an http"),
            ("ftp://api.example", "not an http"),
            ("wss://api.example", "not an http"),
            ("https://", "not an http"),
            ("https:///path", "not an http"),
            ("https://exa mple", "not an http"),
            ("https://api.example\\@evil.example", "not an http"),
            ("https://аpi.example", "not an http"),
            ("https://api.example:port", "not a URL"),
            ("https://[::1", "not a URL"),
            ("https://joe:hunter2@api.example", "must not carry credentials"),
            ("https://api.example/?access_token=hunter2", "must not carry credentials"),
            ("https://api.example/#hunter2", "must not carry credentials"),
            ("http://api.example", "plain http to api.example"),
            ("http://127.0.0.1.evil.example", "plain http to 127.0.0.1.evil.example"),
        ],
    )
    def test_bad(self, field: str, url: str, why: str) -> None:
        """What is no URL, leaks a secret or travels in the clear is refused, and no secret of it is shown."""
        with pytest.raises(ConfigError) as raised:
            Config.of({field: url})
        assert (True, True, False) == (
            str(raised.value).startswith(f"Config.{field} "),
            why in str(raised.value),
            "hunter2" in str(raised.value),
        )


class TestEnvironment:
    def test_credentials(self) -> None:
        """Name and key come from their variables, and the key is a secret."""
        config = Config.from_env({"TOPSTEP_USERNAME": "joe", "TOPSTEP_API_KEY": "k" * 20})
        assert ("joe", "k" * 20, Secret) == (config.user_name, config.api_key, type(config.api_key))

    def test_the_real_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a mapping, the process's own environment is read."""
        monkeypatch.setenv("TOPSTEP_BASE_URL", "http://127.0.0.1:5000/")
        assert "http://127.0.0.1:5000" == Config.from_env().base_url

    @pytest.mark.parametrize(("part", "name"), FIELDS)
    def test_every_field_has_a_variable(self, part: type[Part], name: str) -> None:
        """Each field's default, written as text, is read back from its variable."""
        value = getattr(part(), name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        unset = "08:30" if (part, name) in TEXTS else "3"
        given_value = unset if value is None else text
        config = Config.from_env({variable(part, name): given_value})
        read = getattr(getattr(config, part_name(part)), name)
        assert ((unset if (part, name) in TEXTS else 3) if value is None else value) == read

    @pytest.mark.parametrize(("part", "name"), [f for f in FIELDS if f not in TEXTS])
    def test_a_bad_value_names_the_variable(self, part: type[Part], name: str) -> None:
        """A value that does not fit is refused by the name that the user typed."""
        with pytest.raises(ConfigError, match=f"^{variable(part, name)} is '-'; expected"):
            Config.from_env({variable(part, name): "-"})

    def test_a_bad_url_names_the_variable(self) -> None:
        """An address from the environment is refused by its variable."""
        with pytest.raises(ConfigError, match=r"^TOPSTEP_BASE_URL is plain http"):
            Config.from_env({"TOPSTEP_BASE_URL": "http://api.example"})

    @pytest.mark.parametrize("name", ["TOPSTEP_RATE_HISTROY_LIMIT", "TOPSTEP_TOKEN_", "TOPSTEP_STREAM_BACKOFF"])
    def test_unknown_variable(self, name: str) -> None:
        """A misspelt variable of a part is refused."""
        with pytest.raises(ConfigError, match=f"{name} names no setting"):
            Config.from_env({name: "30"})

    def test_other_variables_are_left_alone(self) -> None:
        """What belongs to somebody else, or is read elsewhere, is no mistake."""
        environ = {"TOPSTEP_ACCOUNT": "5", "TOPSTEP_TOKEN_PASSPHRASE": "x", "HOME": "/"}
        assert Config() == Config.from_env(environ)

    @pytest.mark.parametrize(
        ("text", "value"), [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("No", False)]
    )
    def test_booleans(self, text: str, value: bool) -> None:
        """Yes and no have the words people use."""
        assert value is Config.from_env({"TOPSTEP_TOKEN_MEMORY_ONLY": text}).token.memory_only

    def test_changes_win(self) -> None:
        """What the program says wins over the environment, setting by setting."""
        environ = {"TOPSTEP_RATE_HISTORY_LIMIT": "30", "TOPSTEP_RATE_GRACE": "9", "TOPSTEP_USERNAME": "joe"}
        config = Config.from_env(environ, rate={"history_limit": 40}, user_name="ann", token={"max_retries": 1})
        assert (40, 9.0, "ann", 1) == (
            config.rate.history_limit,
            config.rate.grace,
            config.user_name,
            config.token.max_retries,
        )

    def test_a_whole_part_replaces(self) -> None:
        """A part given as its class is taken as it is."""
        config = Config.from_env({"TOPSTEP_RATE_GRACE": "9"}, rate=RateConfig())
        assert RateConfig() == config.rate


class TestWhole:
    def test_parts_from_mappings(self) -> None:
        """A configuration nested as plain mappings becomes classes."""
        config = Config.of({"rate": {"history_limit": 30}, "token": TokenConfig(max_retries=0)})
        assert (30, 0) == (config.rate.history_limit, config.token.max_retries)

    def test_replace(self) -> None:
        """A copy with changes is checked like the original."""
        config = Config().replace(user_name="joe", rate={"history_limit": 30})
        assert ("joe", 30, Config().token) == (config.user_name, config.rate.history_limit, config.token)
        with pytest.raises(ConfigError, match="no setting 'history_limit'"):
            config.replace(history_limit=30)

    def test_repr_hides_the_key(self) -> None:
        """A printed configuration shows no key."""
        assert "my-very-secret" not in repr(Config(api_key="my-very-secret-key"))  # type: ignore[arg-type]

    def test_copies_keep_the_secret(self) -> None:
        """Copies work, pickles with a key do not."""
        config = Config(api_key=Secret("my-very-secret-key"))
        assert config == copy.deepcopy(config)
        assert config == Config.of(dataclasses.asdict(config))
        with pytest.raises(TypeError, match="a secret is not pickled"):
            pickle.dumps(config)

    def test_pickles_without_a_key(self) -> None:
        """A configuration without a key travels to another process."""
        assert Config(user_name="joe") == pickle.loads(pickle.dumps(Config(user_name="joe")))

    def test_paths_are_text(self, tmp_path: Path) -> None:
        """A `Path` is as good as its text."""
        assert str(tmp_path) == TokenConfig.of({"storage_path": tmp_path}).storage_path

    @given(st.dictionaries(st.sampled_from([e.name for e in dataclasses.fields(RateConfig)]), st.floats() | st.text()))
    def test_anything_is_taken_or_refused(self, values: dict[str, Any]) -> None:
        """Any values give a configuration or a ConfigError that names a field, and nothing else."""
        refusal = refused(lambda: RateConfig.of(vars(RateConfig.of(values))))
        assert refusal is None or refusal.startswith("RateConfig.")


def test_the_room_documents_itself() -> None:
    """Every public class of the room has a docstring."""
    classes = [
        v for n, v in vars(config_module).items() if inspect.isclass(v) and v.__module__ == config_module.__name__
    ]
    assert [] == [cls.__name__ for cls in classes if not cls.__doc__]

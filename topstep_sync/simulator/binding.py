"""Model binding as ASP.NET Core does it: which bodies are taken, and the ProblemDetails for the others.

Seen on ASP.NET Core 10.0.12: names match in any case and the last of two wins, unknown ones are ignored, nothing is
converted between types, a missing field is told under ``$``, a wrong type under its path, a null text under its name.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import inspect

from topstep_sync.models import Record
from topstep_sync.simulator.wire import parse_time

_MAX_DECIMAL: Final = 79228162514264337593543950335  # .NET's decimal
_DECODE: Final = msgspec.json.Decoder().decode
# msgspec reads 1.0 and 1e2 as float, as .NET does not take them for an integer either.
_CLR_INT32, _CLR_INT64 = "System.Int32", "System.Int64"


class BindingError(Exception):
    """The body does not bind; `errors` is the map that ProblemDetails shows."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__(str(errors))
        self.errors = errors


def _wrong(path: str, clr: str) -> BindingError:
    text = f"The JSON value could not be converted to {clr}. Path: {path}."
    return BindingError({"request": ["The request field is required."], path: [text]})


def _under(path: str, text: str) -> BindingError:
    return BindingError({path: [text], "request": ["The request field is required."]})


_OFFSET: Final = re.compile(r"\(byte (\d+)\)")
_OPEN_VALUE: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*([^\s,{}\[\]"]*[}\]]?)\Z')
_WHOLE: Final = re.compile(rb"(true|false|null|-?\d+(\.\d+)?([eE][+-]?\d+)?)[}\]]")


def _broken(body: bytes, text: str) -> BindingError:
    """Broken JSON is told under the field whose value is broken; under ``$`` where it breaks between values."""
    offset = _OFFSET.search(text)
    field = _OPEN_VALUE.search(body[: int(offset[1])]) if offset else None
    inside = field is not None and not _WHOLE.fullmatch(field[2])
    path = f"$.{field[1].decode(errors='replace')}" if field and inside else "$"
    return _under(path, f"{text}. Path: {path}.")


Reader = Callable[[Any, str], Any]


def _integer(bits: int, clr: str, make: Callable[[int], Any] = int) -> Reader:
    top = 1 << (bits - 1)

    def read(value: Any, path: str) -> Any:
        if type(value) is not int or not -top <= value < top:
            raise _wrong(path, clr)
        return make(value)

    return read


def _boolean(value: Any, path: str) -> Any:
    if type(value) is not bool:
        raise _wrong(path, "System.Boolean")
    return value


def _text(value: Any, path: str) -> Any:
    if type(value) is not str:
        raise _wrong(path, "System.String")
    return value


def _decimal(value: Any, path: str) -> Any:
    if type(value) not in (int, float) or not -_MAX_DECIMAL <= value <= _MAX_DECIMAL:
        raise _wrong(path, "System.Decimal")
    return float(value)


def _instant(value: Any, path: str) -> Any:
    instant = parse_time(value) if type(value) is str else None
    if instant is None:
        raise _wrong(path, "System.DateTimeOffset")
    return instant


def _list(item: Reader) -> Reader:
    def read(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise _wrong(path, "System.Int32[]")
        return [item(entry, f"{path}[{index}]") for index, entry in enumerate(value)]

    return read


class Binder:
    """Turns bodies into one kind of request.

    Args:
        record: the request's class in `messages`.
        optional: Python names of fields that ASP.NET's model does not require though ours does.
        required: the same the other way round.
        int64: names of the fields that take 64 bits; all other integers are 32 bits wide.
    """

    def __init__(
        self,
        record: type[Record],
        *,
        optional: tuple[str, ...] = (),
        required: tuple[str, ...] = (),
        int64: tuple[str, ...] = ("order_id",),
    ) -> None:
        info = inspect.type_info(record)
        assert isinstance(info, inspect.StructType)
        self.record = record
        self._fields: dict[str, tuple[str, str, Reader, bool]] = {}
        self._required: list[tuple[str, str]] = []
        for entry in info.fields:
            needed = (entry.required or entry.name in required) and entry.name not in optional
            reader = self._reader(entry.type, wide=entry.name in int64)
            self._fields[entry.encode_name.lower()] = (entry.name, entry.encode_name, reader, needed)
            if needed:
                self._required.append((entry.name, entry.encode_name))

    def __call__(self, body: bytes) -> Any:
        """The request in *body*.

        Raises:
            BindingError: with the map of errors for ProblemDetails.
        """
        if not body:
            raise _under("", "A non-empty request body is required.")
        try:
            value = _DECODE(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _broken(body, str(error)) from None
        if value is None:
            raise _under("", "A non-empty request body is required.")
        return self._bind(value, "$")

    def _bind(self, value: Any, path: str) -> Any:
        if type(value) is not dict:
            raise _wrong(path, f"Gateway.{self.record.__name__}")
        found: dict[str, Any] = {}
        for key, entry in value.items():
            field = self._fields.get(key) or self._fields.get(key.lower())
            if field is None:
                continue
            name, wire_name, read, needed = field
            if entry is None:
                found[name] = self._null(wire_name, path, read, needed=needed)
            else:
                found[name] = read(entry, f"{path}.{wire_name}")
        missing = [wire_name for name, wire_name in self._required if name not in found]
        if missing:
            names = ", ".join(f"'{name}'" for name in missing)
            kind = f"Gateway.{self.record.__name__}"
            text = f"JSON deserialization for type '{kind}' was missing required properties including: {names}."
            raise _under(path, text)
        return self.record(**found)

    @staticmethod
    def _null(wire_name: str, path: str, read: Reader, *, needed: bool) -> None:
        """A null: fine where optional, a validation error for a text or object, a wrong type for a value."""
        if not needed:
            return
        if read is _text or isinstance(getattr(read, "__self__", None), Binder):
            name = wire_name[0].upper() + wire_name[1:]
            raise BindingError({name: [f"The {name} field is required."]})
        read(None, f"{path}.{wire_name}")

    def _reader(self, kind: inspect.Type, *, wide: bool) -> Reader:
        if isinstance(kind, inspect.UnionType):
            kind = next(t for t in kind.types if not isinstance(t, (inspect.NoneType,)) and "Unset" not in repr(t))
        if isinstance(kind, inspect.EnumType):
            return _integer(32, _CLR_INT32, kind.cls)
        if isinstance(kind, inspect.IntType):
            return _integer(64, _CLR_INT64) if wide else _integer(32, _CLR_INT32)
        if isinstance(kind, inspect.ListType):
            return _list(self._reader(kind.item_type, wide=False))
        if isinstance(kind, inspect.StructType):
            # A bracket without a type binds in the reference: a record's constructor has defaults for values.
            return Binder(kind.cls)._bind  # type: ignore[arg-type]
        simple: dict[type, Reader] = {
            inspect.BoolType: _boolean,
            inspect.StrType: _text,
            inspect.FloatType: _decimal,
            inspect.DateTimeType: _instant,
        }
        return simple[type(kind)]


_MEDIA: Final = re.compile(r"(application/json|text/json|application/[\w.!#$&^-]+\+json)\s*(;.*)?", re.IGNORECASE)


def acceptable(content_type: str | None) -> bool:
    """Whether a body of that content type is read at all."""
    return content_type is not None and _MEDIA.fullmatch(content_type.strip()) is not None


def problem(status: int, title: str, section: str, trace: str, errors: dict[str, list[str]] | None = None) -> bytes:
    """A ProblemDetails body."""
    kind = f"https://tools.ietf.org/html/rfc9110#section-{section}"
    content: dict[str, Any] = {"type": kind, "title": title, "status": status}
    if errors is not None:
        content["errors"] = errors
    return msgspec.json.encode(content | {"traceId": trace})

"""How records show themselves: a short line, an HTML table, a pandas frame. Knows no record in particular.

One mixin, `Shown`, for single records and one list, `Rows`, for many. Nothing here does I/O; pandas is imported when a
frame is asked for, and only then.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final, SupportsIndex, TypeVar, overload

from msgspec import NODEFAULT, UNSET

from topstep_sync.errors import MissingExtra

T = TypeVar("T")

HEAD: Final = 30  # rows of a long table shown before the dots: a notebook cell stays on one screen
TAIL: Final = 5

_CELL: Final = "padding:2px 8px;border-bottom:1px solid #8884;"


def text(value: object) -> str:
    """*value* as a reader wants it: enum members by name, times to the second where that is exact, text quoted."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, datetime):
        return moment(value)
    return repr(value)


def moment(value: datetime) -> str:
    """A time in ISO 8601, UTC written as `Z`, without a fraction that is zero."""
    shown = value.isoformat()
    return shown[:-6] + "Z" if shown.endswith("+00:00") else shown


def cell(value: object) -> str:
    """*value* for a table cell, escaped; what is absent is empty."""
    if value is None or value is UNSET:
        return ""
    return escape(str(value) if isinstance(value, str) else text(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """An HTML table with inline styles, every cell escaped."""
    head = "".join(f'<th style="{_CELL}text-align:right">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}text-align:right">{cell(value)}</td>' for value in row) + "</tr>"
        for row in rows
    )
    top = f'<caption style="text-align:left">{escape(caption)}</caption>' if caption else ""
    return f'<table style="border-collapse:collapse">{top}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


class Shown:
    """A struct that shows itself in one constructor-like line, and in a notebook as a small table.

    Left out: what the gateway left out, nulls, and fields that have their default.
    """

    __slots__ = ()
    __struct_fields__: tuple[str, ...]
    __struct_defaults__: tuple[Any, ...]

    def facts(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each field worth showing, in order."""
        names, defaults = self.__struct_fields__, self.__struct_defaults__
        required = len(names) - len(defaults)
        for index, name in enumerate(names):
            value = getattr(self, name)
            default = NODEFAULT if index < required else defaults[index - required]
            if value is not None and value is not UNSET and (default is NODEFAULT or value != default):
                yield name, value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={text(value)}' for name, value in self.facts())})"

    def __rich_repr__(self) -> Any:
        yield from self.facts()

    def _repr_html_(self) -> str:
        return table(("", type(self).__name__), self.facts())


class Rows(list[T]):
    """A list of records that is a table in a notebook and a frame on request. In every other way a list.

    Args:
        of: what the rows are, so that an empty list still has its columns.
    """

    def __init__(self, rows: Iterable[T] = (), *, of: type[T] | None = None) -> None:
        super().__init__(rows)
        self._of = of

    def __repr__(self) -> str:
        if len(self) <= 3:
            return list.__repr__(self)
        return f"[{self[0]!r}, … {len(self) - 2} more …, {self[-1]!r}]"

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> T: ...
    @overload
    def __getitem__(self, index: slice, /) -> "Rows[T]": ...
    def __getitem__(self, index: Any, /) -> Any:
        found = super().__getitem__(index)
        return Rows(found, of=self._of) if isinstance(index, slice) else found

    def columns(self) -> list[str]:
        """Names of the fields that at least one of the rows has, in order; of an empty list, all."""
        kind: Any = type(self[0]) if self else self._of
        if kind is None:
            return []
        names = [name for name in kind.__struct_fields__ if not name.startswith("_")]
        return [name for name in names if not self or any(_given(getattr(row, name)) for row in self)]

    def _repr_html_(self) -> str:
        if not self:
            return "<i>nothing</i>" if self._of is None else f"<i>no {self._of.__name__}</i>"
        names = self.columns()
        shown: list[Any] = list(self)
        if len(self) > HEAD + TAIL:
            shown = [*self[:HEAD], None, *self[-TAIL:]]
        rows = (["…"] * len(names) if row is None else [getattr(row, name) for name in names] for row in shown)
        return table(names, rows, f"{len(self)} × {type(self[0]).__name__}")

    def to_frame(self) -> Any:
        """A `pandas.DataFrame`, one row each; enum members by name, what is absent as missing.

        Raises:
            MissingExtra: pandas is not installed.
        """
        pd = need_pandas()
        names = self.columns()
        return pd.DataFrame({name: [_plain(getattr(row, name)) for row in self] for name in names})


def _given(value: object) -> bool:
    return value is not UNSET and value is not None


def _plain(value: Any) -> Any:
    if value is UNSET:
        return None
    return value.name if isinstance(value, enum.Enum) else value


def need_pandas() -> Any:
    """pandas, or an error that says how to get it.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("frames need pandas: pip install 'topstep-sync[notebook]'") from error
    return pd

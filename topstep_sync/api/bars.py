"""Bars as they come back: a list that knows what it is a history of, where it has holes, and how to become a frame."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final, Self, SupportsIndex, overload

from topstep_sync.api import calendar
from topstep_sync.api.calendar import Hole
from topstep_sync.models import Bar, BarUnit
from topstep_sync.tables import Rows, moment, need_pandas

SECONDS: Final = {
    BarUnit.SECOND: 1, BarUnit.MINUTE: 60, BarUnit.HOUR: 3600, BarUnit.DAY: 86400, BarUnit.WEEK: 604800,
    BarUnit.MONTH: 2_592_000,
}  # fmt: skip
LETTERS: Final = {
    BarUnit.TICK: "t", BarUnit.SECOND: "s", BarUnit.MINUTE: "m", BarUnit.HOUR: "h", BarUnit.DAY: "d",
    BarUnit.WEEK: "w", BarUnit.MONTH: "mo",
}  # fmt: skip


class Bars(Rows[Bar]):
    """Bars of one contract, oldest first, no instant twice unless they are tick bars. A list in every other way."""

    def __init__(
        self,
        bars: Iterable[Bar] = (),
        *,
        contract_id: str = "",
        unit: BarUnit = BarUnit.MINUTE,
        number: int = 1,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> None:
        super().__init__(bars)
        self.contract_id = contract_id
        self.unit = unit
        self.number = number
        self.start = start
        """Begin of the window that was asked for; `None` where only a number of bars was."""
        self.end = end
        """End of the window that was asked for."""

    @property
    def span(self) -> str:
        """Length of a bar, such as ``5m``."""
        return f"{self.number}{LETTERS.get(self.unit, '?')}"

    @property
    def step(self) -> timedelta | None:
        """Length of a bar, where it is one."""
        seconds = SECONDS.get(self.unit)
        return None if seconds is None else timedelta(seconds=seconds * self.number)

    @property
    def holes(self) -> list[Hole]:
        """Where the market was open and bars are missing, by the session calendar of the CME. Computed when asked.

        Empty for weeks, months and ticks, which have no calendar.
        """
        step = self.step
        start = self.start or (self[0].t if self else None)
        if step is None or start is None or self.end is None or self.unit in (BarUnit.WEEK, BarUnit.MONTH):
            return []
        times = [bar.t for bar in self]
        if self.unit is BarUnit.DAY:
            return calendar.missing_days(times, start, self.end) if self.number == 1 else []
        return calendar.holes(times, step, start, self.end)

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Bar: ...
    @overload
    def __getitem__(self, index: slice, /) -> Self: ...
    def __getitem__(self, index: Any, /) -> Any:
        found = list.__getitem__(self, index)
        return self._like(found) if isinstance(index, slice) else found

    def _like(self, bars: list[Bar]) -> "Bars":
        first, last = (bars[0].t, bars[-1].t) if bars else (self.start, self.end)
        return Bars(bars, contract_id=self.contract_id, unit=self.unit, number=self.number, start=first, end=last)

    def __repr__(self) -> str:
        window = f", {moment(self[0].t)} … {moment(self[-1].t)}" if self else ""
        return f"<Bars {len(self)} × {self.span} {self.contract_id}{window}>"

    def columns(self) -> list[str]:
        """A bar has all its fields."""
        return list(Bar.__struct_fields__)

    def to_frame(self) -> Any:
        """A `pandas.DataFrame`: index `time` (UTC, when each bar opened), columns open high low close volume.

        Raises:
            MissingExtra: pandas is not installed.
        """
        pd = need_pandas()
        import numpy as np

        def column(name: str, kind: Any) -> Any:
            return np.fromiter(map(attrgetter(name), self), kind, len(self))

        seconds = np.fromiter(map(datetime.timestamp, map(attrgetter("t"), self)), np.float64, len(self))
        # Whole microseconds: a double has 53 bits, and today takes 51 of them.
        micros = (seconds * 1e6).round().astype(np.int64)
        return pd.DataFrame(
            {
                "open": column("o", np.float64),
                "high": column("h", np.float64),
                "low": column("l", np.float64),
                "close": column("c", np.float64),
                "volume": column("v", np.int64),
            },
            index=pd.DatetimeIndex(micros.view("datetime64[us]"), name="time").tz_localize(UTC),
        )

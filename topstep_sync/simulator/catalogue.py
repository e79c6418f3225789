"""Which contracts exist: real roots with their ticks, month cycles and rolls.

Roots, ticks and tick values: recorded `Contract/available`, August 2026. Price levels are round figures of late 2026
and only give the seeded market somewhere to start. Rolls are approximate: the real ones follow exchange holidays.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

MONTHS: Final = "FGHJKMNQUVXZ"
_QUARTERLY: Final = "HMUZ"
_MONTHLY: Final = MONTHS
_GOLD: Final = "GJMQVZ"
_GRAIN: Final = "HKNUZ"

# How long before the first of the contract's month its successor becomes the front month, in days.
_INDEX, _NOTICE, _METAL, _OIL = -14, 6, 8, 13


class Root(NamedTuple):
    """One product. `code` is the platform's, `symbol` the exchange's."""

    code: str
    symbol: str
    title: str
    tick_size: float
    tick_value: float
    level: float
    months: str = _QUARTERLY
    roll: int = _INDEX


ROOTS: Final = (
    Root("EP", "ES", "E-mini S&P 500", 0.25, 12.5, 6000.0),
    Root("ENQ", "NQ", "E-mini NASDAQ-100", 0.25, 5.0, 21000.0),
    Root("MES", "MES", "Micro E-mini S&P 500", 0.25, 1.25, 6000.0),
    Root("MNQ", "MNQ", "Micro E-mini Nasdaq-100", 0.25, 0.5, 21000.0),
    Root("RTY", "RTY", "E-mini Russell 2000", 0.1, 5.0, 2400.0),
    Root("M2K", "M2K", "Micro E-mini Russell 2000", 0.1, 0.5, 2400.0),
    Root("YM", "YM", "E-mini Dow", 1.0, 5.0, 47000.0),
    Root("MYM", "MYM", "Micro E-mini Dow", 1.0, 0.5, 47000.0),
    Root("NKD", "NKD", "Nikkei 225 (dollar)", 5.0, 25.0, 50000.0),
    Root("EU6", "6E", "Euro FX", 0.00005, 6.25, 1.16),
    Root("BP6", "6B", "British Pound", 0.0001, 6.25, 1.31),
    Root("CA6", "6C", "Canadian Dollar", 0.00005, 5.0, 0.715),
    Root("DA6", "6A", "Australian Dollar", 0.00005, 5.0, 0.65),
    Root("JY6", "6J", "Japanese Yen", 0.0000005, 6.25, 0.0067),
    Root("SF6", "6S", "Swiss Franc", 0.00005, 6.25, 1.25),
    Root("NE6", "6N", "New Zealand Dollar", 0.00005, 5.0, 0.57),
    Root("MX6", "6M", "Mexican Peso", 0.00001, 5.0, 0.054),
    Root("E7", "E7", "E-mini Euro FX", 0.0001, 6.25, 1.16),
    Root("M6E", "M6E", "Micro Euro FX", 0.0001, 1.25, 1.16),
    Root("M6A", "M6A", "Micro Australian Dollar", 0.0001, 1.0, 0.65),
    Root("M6B", "M6B", "Micro British Pound", 0.0001, 0.625, 1.31),
    Root("CLE", "CL", "Crude Oil", 0.01, 10.0, 60.0, _MONTHLY, _OIL),
    Root("MCLE", "MCL", "Micro Crude Oil", 0.01, 1.0, 60.0, _MONTHLY, _OIL),
    Root("NQM", "QM", "E-mini Crude Oil", 0.025, 12.5, 60.0, _MONTHLY, _OIL),
    Root("NGE", "NG", "Henry Hub Natural Gas", 0.001, 10.0, 4.0, _MONTHLY, 5),
    Root("NQG", "QG", "E-mini Natural Gas", 0.005, 12.5, 4.0, _MONTHLY, 5),
    Root("MNG", "MNG", "Micro Natural Gas", 0.001, 1.0, 4.0, _MONTHLY, 5),
    Root("RBE", "RB", "RBOB Gasoline", 0.0001, 4.2, 1.9, _MONTHLY, 3),
    Root("HOE", "HO", "NY Harbor ULSD", 0.0001, 4.2, 2.3, _MONTHLY, 3),
    Root("GCE", "GC", "Gold", 0.1, 10.0, 4000.0, _GOLD, _METAL),
    Root("MGC", "MGC", "Micro Gold", 0.1, 1.0, 4000.0, _GOLD, _METAL),
    Root("SIE", "SI", "Silver", 0.005, 25.0, 50.0, _GRAIN, _METAL),
    Root("SIL", "SIL", "Micro Silver", 0.005, 5.0, 50.0, _GRAIN, _METAL),
    Root("CPE", "HG", "Copper", 0.0005, 12.5, 5.0, _GRAIN, _METAL),
    Root("MHG", "MHG", "Micro Copper", 0.0005, 1.25, 5.0, _GRAIN, _METAL),
    Root("PLE", "PL", "Platinum", 0.1, 5.0, 1500.0, "FJNV", _METAL),
    Root("TYA", "ZN", "10-Year T-Note", 0.015625, 15.625, 113.0, _QUARTERLY, _NOTICE),
    Root("TNA", "TN", "Ultra 10-Year T-Note", 0.015625, 15.625, 116.0, _QUARTERLY, _NOTICE),
    Root("USA", "ZB", "30-Year T-Bond", 0.03125, 31.25, 117.0, _QUARTERLY, _NOTICE),
    Root("ULA", "UB", "Ultra T-Bond", 0.03125, 31.25, 121.0, _QUARTERLY, _NOTICE),
    Root("FVA", "ZF", "5-Year T-Note", 0.0078125, 7.8125, 109.0, _QUARTERLY, _NOTICE),
    Root("TUA", "ZT", "2-Year T-Note", 0.00390625, 7.8125, 104.0, _QUARTERLY, _NOTICE),
    Root("ZCE", "ZC", "Corn", 0.25, 12.5, 430.0, _GRAIN, _NOTICE),
    Root("ZSE", "ZS", "Soybeans", 0.25, 12.5, 1120.0, "FHKNQUX", _NOTICE),
    Root("ZWA", "ZW", "Wheat", 0.25, 12.5, 540.0, _GRAIN, _NOTICE),
    Root("ZLE", "ZL", "Soybean Oil", 0.01, 6.0, 50.0, "FHKNQUVZ", _NOTICE),
    Root("ZME", "ZM", "Soybean Meal", 0.1, 10.0, 310.0, "FHKNQUVZ", _NOTICE),
    Root("HE", "HE", "Lean Hogs", 0.025, 10.0, 80.0, "GJKMNQVZ", -13),
    Root("GLE", "LE", "Live Cattle", 0.025, 10.0, 220.0, _GOLD, -13),
    Root("MBT", "MBT", "Micro Bitcoin", 5.0, 0.5, 90000.0, _MONTHLY, -24),
    Root("GMET", "MET", "Micro Ether", 0.5, 0.05, 3000.0, _MONTHLY, -24),
)
"""The 51 products of the platform."""

_BY_CODE: Final = {root.code: root for root in ROOTS}
_NAMES: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

# Contracts stay known for this long on either side of the listing date.
_YEARS_BACK, _YEARS_AHEAD = 4, 2


@dataclass(frozen=True)
class Instrument:
    """A contract, with prices as whole ticks inside the simulator."""

    id: str
    name: str
    root: Root
    active: bool
    wire: dict[str, Any]
    """The record as the gateway sends it."""

    @property
    def symbol_id(self) -> str:
        return f"F.US.{self.root.code}"

    @property
    def display_name(self) -> str:
        """The name with the year's two digits, as positions show it: `MNQZ26`."""
        return self.root.symbol + self.id.rpartition(".")[2]

    def price(self, ticks: int) -> float:
        """The price of so many ticks, with no more digits than the tick has."""
        return round(ticks * self.root.tick_size, 9)

    def ticks(self, price: float) -> int:
        """The whole ticks nearest to *price*."""
        return round(price / self.root.tick_size)

    def aligned(self, price: float) -> bool:
        """Whether *price* is a whole number of ticks (to a millionth of one)."""
        ratio = price / self.root.tick_size
        return abs(ratio - round(ratio)) < 1e-6 * max(1.0, abs(ratio) * 1e-6)

    def money(self, ticks: float) -> float:
        """What a move of so many ticks is worth for one contract."""
        return ticks * self.root.tick_value


class Catalogue:
    """Every contract the gateway knows, and which of them is the front month of its root on the listing date."""

    def __init__(self, listing: dt.date) -> None:
        self._front = [self._make(root, *self._front_month(root, listing), active=True) for root in ROOTS]
        self._known = {instrument.id: instrument for instrument in self._front}
        self._years = range(listing.year - _YEARS_BACK, listing.year + _YEARS_AHEAD + 1)

    @property
    def front(self) -> list[Instrument]:
        """The active contract of each root."""
        return self._front

    def get(self, contract_id: str) -> Instrument | None:
        """The contract of that exact id, active or not; None when the gateway does not know it."""
        found = self._known.get(contract_id)
        return found or self._inactive(contract_id)

    def search(self, text: str, limit: int = 20) -> list[Instrument]:
        """Active contracts whose name, description or id contains *text*, in any case."""
        wanted = text.lower()
        return [i for i in self._front if wanted in f"{i.name}{i.wire['description']}{i.id}".lower()][:limit]

    def _inactive(self, contract_id: str) -> Instrument | None:
        head, _, month = contract_id.rpartition(".")
        root = _BY_CODE.get(head.removeprefix("CON.F.US."))
        if not root or head != f"CON.F.US.{root.code}" or len(month) != 3 or not month[1:].isdecimal():
            return None
        year = 2000 + int(month[1:])
        if month[0] not in root.months or year not in self._years or not month.isascii():
            return None
        return self._known.setdefault(contract_id, self._make(root, MONTHS.index(month[0]) + 1, year, active=False))

    @staticmethod
    def _front_month(root: Root, day: dt.date) -> tuple[int, int]:
        for year in (day.year, day.year + 1, day.year + 2):
            for letter in root.months:
                month = MONTHS.index(letter) + 1
                if dt.date(year, month, 1) - dt.timedelta(days=root.roll) > day:
                    return month, year
        raise AssertionError("every cycle has a month within two years")

    @staticmethod
    def _make(root: Root, month: int, year: int, *, active: bool) -> Instrument:
        letter = MONTHS[month - 1]
        contract_id = f"CON.F.US.{root.code}.{letter}{year % 100:02}"
        name = f"{root.symbol}{letter}{year % 10}"
        wire = {
            "id": contract_id,
            "name": name,
            "description": f"{root.title}: {_NAMES[month - 1]} {year}",
            "tickSize": root.tick_size,
            "tickValue": root.tick_value,
            "activeContract": active,
            "symbolId": f"F.US.{root.code}",
        }
        return Instrument(contract_id, name, root, active, wire)

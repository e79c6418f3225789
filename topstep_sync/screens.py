"""Two faces of the demonstration: lines for a log, and a live display for a terminal."""

from collections import deque
from typing import Final, Self

import click
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from topstep_sync.demo import Picture
from topstep_sync.models import Account, given

_COLOURS: Final = {">": "cyan", "<": "green", "=": "blue", "!": "bold red", "~": "yellow"}
_LINES: Final = 12  # of the log that the live display keeps
_ORDERS: Final = 5
_ABOVE: Final = 4 + 1 + 5 + (1 + _ORDERS) + 2  # accounts, bars, market, orders, and the frame of the log


class PlainScreen:
    """One line for each thing that happens; a line about the state every second."""

    def __init__(self) -> None:
        self._next_state = 1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def say(self, mark: str, text: str) -> None:
        click.echo(f"{mark} {text}")

    def accounts(self, accounts: list[Account]) -> None:
        for account in accounts:
            trades = "trades" if account.can_trade else "may not trade"
            click.echo(f"< account {account.id} {account.name}: {account.balance:,.2f}, {trades}")

    def progress(self, share: float) -> None:
        click.echo(f"< bars {share:.0%}")

    def show(self, picture: Picture) -> None:
        if picture.elapsed >= self._next_state:
            self._next_state = picture.elapsed + 1.0
            click.echo(
                f"= {picture.elapsed:4.1f} s  {picture.bid} / {picture.ask}  {picture.position}  "
                f"{picture.rate:.0f} events/s  lag {picture.lag * 1000:.1f} ms  {picture.health}"
            )

    def summary(self, rows: list[tuple[str, str, bool]]) -> None:
        for name, value, held in rows:
            click.echo(f"{'=' if held else '!'} {name}: {value}{'' if held else '  <- not as promised'}")


class RichScreen:
    """A live display: accounts, bars, market, orders, and what just happened."""

    def __init__(self) -> None:
        self._lines: deque[Text] = deque(maxlen=_LINES)
        self._accounts: list[Account] = []
        self._bars = ProgressBar(total=1, completed=0, width=40)
        self._picture = Picture()
        self._live = Live(refresh_per_second=12, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def say(self, mark: str, text: str) -> None:
        self._lines.append(Text(f"{mark} {text}", style=_COLOURS.get(mark, "")))
        self._draw()

    def accounts(self, accounts: list[Account]) -> None:
        self._accounts = accounts
        self._draw()

    def progress(self, share: float) -> None:
        self._bars.update(completed=share)
        self._draw()

    def show(self, picture: Picture) -> None:
        self._picture = picture
        self._draw()

    def summary(self, rows: list[tuple[str, str, bool]]) -> None:
        table = Table(title="What the gateway says happened", title_justify="left", show_header=False, box=None)
        for name, value, held in rows:
            table.add_row(Text("✔", "green") if held else Text("✘", "red"), name, Text(value, "bold"))
        self._live.update(Group(self._view(), table), refresh=True)

    def _draw(self) -> None:
        self._live.update(self._view())

    def _view(self) -> Group:
        lines = list(self._lines)[-self._room() :]
        return Group(
            self._accounts_table(),
            self._bars_line(),
            self._market(),
            self._orders_table(),
            Panel(Group(*lines), title="what happens", title_align="left", height=self._room() + 2),
        )

    def _room(self) -> int:
        """Lines of the log that fit below everything else, so that the display never scrolls."""
        return max(3, min(_LINES, self._live.console.height - _ABOVE))

    def _accounts_table(self) -> Table:
        table = Table("account", "name", "balance", "may trade", box=None, header_style="bold")
        for account in self._accounts:
            table.add_row(
                str(account.id), account.name, f"{account.balance:,.2f}", "yes" if account.can_trade else "no"
            )
        return table

    def _bars_line(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_row("", Text("bars", "bold"), self._bars)
        return grid

    def _market(self) -> Panel:
        picture = self._picture
        text = (
            f"{picture.elapsed:4.1f} of {picture.seconds:.0f} s   {picture.bid} / {picture.ask}   {picture.position}\n"
            f"{picture.rate:4.0f} events/s   {picture.events} in all   lag {picture.lag * 1000:.1f} ms\n"
            f"{picture.health}"
        )
        return Panel(text, title=picture.contract or "market", title_align="left")

    def _orders_table(self) -> Table:
        table = Table("order", "side", "size", "status", "filled at", "tag", box=None, header_style="bold")
        for order in list(self._picture.orders.values())[-_ORDERS:]:
            filled = str(order.filled_price) if given(order.filled_price) else ""
            tag = str(order.custom_tag) if given(order.custom_tag) else ""
            table.add_row(str(order.id), order.side.name, str(order.size), order.status.name, filled, tag)
        return table

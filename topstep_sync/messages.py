"""What goes over the wire around the records: requests and replies of all operations. Source: as in `models`."""

from datetime import datetime

from msgspec import UNSET, UnsetType

from topstep_sync.models import (
    Account,
    Bar,
    BarUnit,
    Contract,
    Order,
    OrderSide,
    OrderSortField,
    OrderStatus,
    OrderType,
    Position,
    Record,
    SortDirection,
    Trade,
)

################################################# the requests #################################################


class LoginKey(Record, frozen=True, kw_only=True):
    user_name: str
    api_key: str


class LoginApp(Record, frozen=True, kw_only=True):
    user_name: str
    password: str
    device_id: str
    app_id: str
    verify_key: str


class SearchAccounts(Record, frozen=True, kw_only=True):
    only_active_accounts: bool


class SearchContracts(Record, frozen=True, kw_only=True):
    search_text: str
    live: bool


class ContractById(Record, frozen=True, kw_only=True):
    contract_id: str


class AvailableContracts(Record, frozen=True, kw_only=True):
    live: bool


class RetrieveBars(Record, frozen=True, kw_only=True):
    contract_id: str
    live: bool
    start_time: datetime
    end_time: datetime
    unit: BarUnit
    unit_number: int
    limit: int
    include_partial_bar: bool


class SearchOrders(Record, frozen=True, kw_only=True):
    account_id: int
    start_timestamp: datetime
    end_timestamp: datetime | UnsetType | None = UNSET


class SearchTrades(Record, frozen=True, kw_only=True):
    account_id: int
    start_timestamp: datetime | UnsetType = UNSET
    end_timestamp: datetime | UnsetType | None = UNSET


class ByAccount(Record, frozen=True, kw_only=True):
    """`Order/searchOpen` and `Position/searchOpen`."""

    account_id: int


class ByOrder(Record, frozen=True, kw_only=True):
    """`Order/searchById` and `Order/cancel`."""

    account_id: int
    order_id: int


class OrderFilter(Record, frozen=True, kw_only=True):
    account_id: int
    statuses: list[OrderStatus] | UnsetType = UNSET
    contract_id: str | UnsetType = UNSET
    created_after: datetime | UnsetType = UNSET
    created_before: datetime | UnsetType = UNSET


class QueryOrders(Record, frozen=True, kw_only=True):
    filter: OrderFilter
    page_size: int | UnsetType = UNSET
    page_offset: int | UnsetType = UNSET
    sort_by: OrderSortField | UnsetType = UNSET
    sort_direction: SortDirection | UnsetType = UNSET
    include_total_count: bool | UnsetType = UNSET


class Bracket(Record, frozen=True, kw_only=True):
    ticks: int
    """Signed, relative to the entry: a buy has its stop below (negative) and its target above."""
    type: OrderType


class PlaceOrder(Record, frozen=True, kw_only=True):
    account_id: int
    contract_id: str
    type: OrderType
    side: OrderSide
    size: int
    limit_price: float | UnsetType | None = UNSET
    stop_price: float | UnsetType | None = UNSET
    trail_price: float | UnsetType | None = UNSET
    """Absolute start level of a trailing stop."""
    custom_tag: str | UnsetType | None = UNSET
    stop_loss_bracket: Bracket | UnsetType | None = UNSET
    take_profit_bracket: Bracket | UnsetType | None = UNSET


class ModifyOrder(Record, frozen=True, kw_only=True):
    account_id: int
    order_id: int
    size: int | UnsetType | None = UNSET
    limit_price: float | UnsetType | None = UNSET
    stop_price: float | UnsetType | None = UNSET
    trail_price: float | UnsetType | None = UNSET


class ClosePosition(Record, frozen=True, kw_only=True):
    account_id: int
    contract_id: str


class PartialClosePosition(Record, frozen=True, kw_only=True):
    account_id: int
    contract_id: str
    size: int


################################################# the replies #################################################


class Reply(Record, frozen=True, kw_only=True):
    """The envelope of every reply; `error_code` means something else at every endpoint (`codes.py`)."""

    success: bool
    error_code: int
    error_message: str | UnsetType | None = UNSET


class LoginReply(Reply, frozen=True, kw_only=True):
    token: str | UnsetType | None = UNSET


class ValidateReply(Reply, frozen=True, kw_only=True):
    new_token: str | UnsetType | None = UNSET


class AccountsReply(Reply, frozen=True, kw_only=True):
    accounts: list[Account] | UnsetType | None = UNSET


class ContractsReply(Reply, frozen=True, kw_only=True):
    contracts: list[Contract] | UnsetType | None = UNSET


class ContractReply(Reply, frozen=True, kw_only=True):
    contract: Contract | UnsetType | None = UNSET


class BarsReply(Reply, frozen=True, kw_only=True):
    bars: list[Bar] | UnsetType | None = UNSET


class OrdersReply(Reply, frozen=True, kw_only=True):
    orders: list[Order] | UnsetType | None = UNSET
    total_count: int | UnsetType | None = UNSET


class OrderReply(Reply, frozen=True, kw_only=True):
    order: Order | UnsetType | None = UNSET


class PlaceReply(Reply, frozen=True, kw_only=True):
    order_id: int | UnsetType | None = UNSET


class PositionsReply(Reply, frozen=True, kw_only=True):
    positions: list[Position] | UnsetType | None = UNSET


class TradesReply(Reply, frozen=True, kw_only=True):
    trades: list[Trade] | UnsetType | None = UNSET

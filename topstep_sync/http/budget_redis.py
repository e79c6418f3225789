"""The budget shared by several machines, in Redis. Instants are those of the Redis server; only numbers are kept there.

A server's clock that is set back makes the budget stricter for a while; one that is set forward frees slots too early
by as much, so it should be slewed, as NTP does. What a server loses (a replica that lags when it takes over, memory
that was evicted) is not counted any more; permits that are out then are counted when their calls end.

A lease that is a matter of counting is one round trip: a Lua script. What needs a decision (a refusal, a probe, a lease
that ran out) is rare, and decided by the same Python code as everywhere, on a copy that is put back if nobody changed
the original meanwhile.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from topstep_sync.clock import Clock
from topstep_sync.errors import MissingExtra
from topstep_sync.http.learning import FADE
from topstep_sync.http.shared_window import KNOWN, load
from topstep_sync.http.sharing import LONGEST, PATIENCE, USABLE, Answer, Ask, BudgetLost, Rules
from topstep_sync.redact import redact

TIMEOUT: Final = 3.0
"""Seconds for a connection, and for an answer."""

TRIES: Final = 50
"""How often a decision is made anew because another process changed the window meanwhile."""

# KEYS[1] the document. ARGV[1] what is asked (msgpack), ARGV[2] seconds that the document lives without use,
# ARGV[3] the instant to believe instead of the server's (tests only). Returns an Answer, or false: decide in Python.
# The rules are those of Window.take and SharedWindow.exchange, line by line.
SCRIPT: Final = """
local raw = redis.call('GET', KEYS[1])
if not raw then return false end
local readable, doc = pcall(cmsgpack.unpack, raw)
if not readable or type(doc) ~= 'table' or not doc.heard then return false end
local ask = cmsgpack.unpack(ARGV[1])
local now = tonumber(ARGV[3])
if not now then
  local t = redis.call('TIME')
  now = t[1] + t[2] / 1000000
end
if doc.gate ~= 'flowing' or now >= doc.review_at then return false end
if doc.limit ~= ask.limit or doc.window ~= ask.window then return false end
local busy, ahead, freed, leases = doc.busy, doc.ahead, doc.freed, doc.leases
if (#ahead > 0 and ahead[1] <= now) or (#busy > 0 and busy[#busy] > now) then return false end
if #ahead > 0 and ahead[#ahead] > now + ask.grace then return false end

local counted, heard = 0, {}
for _, known in ipairs(doc.heard) do
  if known[1] == ask.holder then counted = known[2]
  elseif known[3] + ask.known >= now then heard[#heard + 1] = known end
end
if ask.serial > 0 then
  if ask.serial <= counted then return false end
  heard[#heard + 1] = {ask.holder, ask.serial, now}
  doc.last_lease = math.max(doc.last_lease, ask.last)
end
doc.heard = heard

local at = {}
for i, lease in ipairs(leases) do
  if lease[4] <= now or lease[4] > now + ask.lasts or lease[5] then return false end
  if lease[2] == ask.holder then
    if ask.serial > 0 and lease[1] > ask.last then return false end
    at[lease[1]] = i
  end
end

local function new(ended) return not ended[6] or ended[6] == 0 or ended[6] > counted end
for _, ended in ipairs(ask.ended) do if new(ended) then
  local number, how, age = ended[1], ended[2], ended[3]
  local i = at[number]
  if i then leases[i][3] = leases[i][3] - 1 else doc.taken = doc.taken + 1 end
  if how == 'done' then
    local stamp, place = now - age, #busy
    while place > 0 and busy[place] > stamp do place = place - 1 end
    table.insert(busy, place + 1, stamp)
  elseif how == 'unused' then
    doc.taken = doc.taken - 1
  else
    return false
  end
end end

local function after(list, first)
  local rest = {}
  for i = first, #list do rest[#rest + 1] = list[i] end
  return rest
end
local free = 0
while free < #busy and busy[free + 1] + doc.span <= now do free = free + 1 end
if free > 0 then
  for i = 1, free do freed[#freed + 1] = busy[i] end
  busy = after(busy, free + 1)
  if #freed > doc.limit then freed = after(freed, #freed - doc.limit + 1) end
  doc.taken, doc.expired = doc.taken - free, doc.expired + free
end
local old = 0
while old < #freed and freed[old + 1] + doc.most <= now do old = old + 1 end
if old > 0 then freed = after(freed, old + 1) end
doc.busy, doc.freed = busy, freed

local function clear(count) return doc.sure or #freed + doc.taken + count <= doc.limit end
local ceiling = doc.ceiling
if ask.urgent then ceiling = doc.cap end
local granted, wait = math.max(0, math.min(ask.needed, ceiling - doc.taken)), 0
if ask.needed > 0 and not clear(math.max(1, granted)) then return false end
doc.taken = doc.taken + granted
if granted < ask.needed then
  local lacking = doc.taken - ceiling
  if lacking < #busy then wait = busy[lacking + 1] + doc.span - now
  elseif lacking - #busy < #ahead then wait = ahead[lacking - #busy + 1] + doc.span - now
  else wait = math.huge end
elseif ask.needed > 0 then
  local more = math.min(ask.want - granted, math.floor((doc.ceiling - doc.taken) / 4))
  if more > 0 and clear(more) then doc.taken, granted = doc.taken + more, granted + more end
end

local left = {}
for _, lease in ipairs(leases) do
  if lease[3] > 0 then left[#left + 1] = lease end
end
if granted > 0 then
  doc.last_lease = doc.last_lease + 1
  left[#left + 1] = {doc.last_lease, ask.holder, granted, now + ask.lasts, false}
end
doc.leases = left
redis.call('SET', KEYS[1], cmsgpack.pack(doc), 'EX', ARGV[2])
return cmsgpack.pack({doc.last_lease, granted, false, wait, doc.taken, doc.gate, doc.span, doc.cap, doc.why})
"""


class _Asked(msgspec.Struct):
    """An `Ask` as the script reads it."""

    holder: str
    needed: int
    want: int
    urgent: bool
    ended: list[Any]
    serial: int
    last: int
    limit: int
    window: float
    grace: float
    lasts: float = USABLE + LONGEST
    known: float = KNOWN


_ENCODER: Final = msgspec.msgpack.Encoder()
_ANSWERS: Final = msgspec.msgpack.Decoder(Answer)


class RedisBudget:
    """Windows in the Redis at *url*, under *key*. Thread-safe.

    *clock* replaces the server's time, which only a test wants.

    Raises:
        MissingExtra: the library ``redis`` is not installed.
    """

    kind = "redis"

    def __init__(self, url: str, key: str, *, clock: Clock | None = None) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtra("a budget in Redis needs: pip install 'topstep-sync[redis]'") from error
        self._errors = (redis.RedisError, OSError)
        self._changed = redis.WatchError
        self._url = url
        self._key = key
        self._clock = clock
        self._connect()

    def _connect(self) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # A server that was started anew, or handed over to another, has dropped the connections that lie idle here; one
        # more attempt finds that out. It may be the second time that the server does the same: see `sharing`.
        once = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        self._client: Any = redis.Redis.from_url(
            self._url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, health_check_interval=30, retry=once
        )
        self._script = self._client.register_script(SCRIPT)

    def _name(self, rules: Rules) -> str:
        return f"topstep-sync:budget:{self._key}:{rules.name}"

    def exchange(self, rules: Rules, ask: Ask, patience: float = PATIENCE) -> Answer:
        asked = _Asked(
            ask.holder, ask.needed, ask.want, ask.urgent, list(ask.ended), ask.serial, ask.last, rules.limit,
            rules.window, rules.grace,
        )  # fmt: skip
        now = "" if self._clock is None else repr(self._clock.monotonic())
        with self._translated():
            found = self._script([self._name(rules)], [_ENCODER.encode(asked), int(FADE), now])
            if found is not None:
                return _ANSWERS.decode(found)
            return self._decide(rules, ask)

    def _decide(self, rules: Rules, ask: Ask) -> Answer:
        """The exchange by the Python code, on a copy."""
        name = self._name(rules)
        for _ in range(TRIES):
            with self._client.pipeline() as pipe:
                try:
                    pipe.watch(name)
                    stored, now = pipe.get(name), self._now(pipe)
                    window = load(rules, stored, now)
                    answer = window.exchange(now, ask)
                    pipe.multi()
                    pipe.set(name, window.dump(), ex=int(FADE))
                    pipe.execute()
                except self._changed:
                    continue
                return answer
        raise BudgetLost(f"Redis: the {rules.name} window changed {TRIES} times while it was looked at")

    def _now(self, pipe: Any) -> float:
        if self._clock is not None:
            return self._clock.monotonic()
        whole, micro = pipe.time()
        return float(whole) + float(micro) / 1e6

    def forget(self, rules: Rules) -> None:
        with self._translated():
            self._client.delete(self._name(rules))

    def forked(self) -> None:
        """The parent's connections are not used any more."""
        self._connect()

    def close(self) -> None:
        """No connection is open; a later exchange makes a new one."""
        self._client.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """What Redis and the network raise is `BudgetLost`; the URL, which may hold a password, is in no message."""
        try:
            yield
        except self._errors as error:
            with contextlib.suppress(*self._errors):
                # After a failover the name may stand for another server, while connections to the old one still work.
                self._client.connection_pool.disconnect(inuse_connections=False)
            raise BudgetLost(f"Redis: {type(error).__name__}: {redact(str(error))}") from None

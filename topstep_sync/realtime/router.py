"""From a bare hub connection to the user's callbacks, by target."""

import logging
from collections.abc import Callable
from typing import Any

from topstep_sync.clock import Clock
from topstep_sync.realtime.dispatch import Dispatcher
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.subscriptions import Step

_log = logging.getLogger("topstep_sync.realtime")

Handler = Callable[..., Any]


class CallbackSink:
    """Feeds callbacks, each with the arguments of one invocation. Targets match in any case, as on official clients."""

    def __init__(self, event_router: Any, name: str, clock: Clock) -> None:
        route = getattr(event_router, "route", event_router)
        if route is not None and not callable(route):
            raise TypeError(f"{type(event_router).__name__} routes nothing; expected a function or a method `route`")
        self._route: Handler | None = route
        self._dispatcher = Dispatcher(name, clock)
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self._observers: tuple[Handler, ...] = ()

    def on(self, target: str, handler: Handler) -> Callable[[], None]:
        key = target.lower()
        self._handlers[key] = (*self._handlers.get(key, ()), handler)

        def off() -> None:
            self._handlers[key] = tuple(h for h in self._handlers.get(key, ()) if h is not handler)

        return off

    def observe(self, observer: Handler) -> Callable[[], None]:
        self._observers = (*self._observers, observer)

        def off() -> None:
            self._observers = tuple(o for o in self._observers if o is not observer)

        return off

    def events(self, batch: list[Any], now: float, epoch: float) -> None:
        raise AssertionError("a connection with callbacks has no fast decoder")

    def invocation(self, target: str, arguments: list[Any], now: float, epoch: float) -> None:
        if self._route is not None:
            self._dispatcher.put(self._route, target, arguments)
        for handler in self._handlers.get(target.lower(), ()):
            self._dispatcher.put(handler, *arguments)

    def refused(self, step: Step, reason: str) -> None:
        _log.warning("! the hub refused %s: %s", step.want, reason)

    def changed(self, state: State, reason: str | None) -> None:
        for observer in self._observers:
            self._dispatcher.put(observer, state, reason)

    def established(self, gap_start: float | None, gap_end: float) -> None:
        pass

    def due(self, now: float) -> float:
        return self._dispatcher.due(now)

    def call(self, callback: Handler, *arguments: Any) -> None:
        """*callback* runs after those already due; from any thread."""
        self._dispatcher.put(callback, *arguments)

    def forked(self) -> None:
        """In a child process: the callbacks' thread is not here."""
        self._dispatcher.forked()

    def open(self) -> None:
        self._dispatcher.open()

    def close(self) -> None:
        self._dispatcher.close()

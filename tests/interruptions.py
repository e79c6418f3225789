"""A signal at every moment at which the interpreter would notice one, one after the other, instead of at random ones.

CPython looks at signals when a function begins, after a call, and at the end of a loop's body; nowhere else. A tracer
sees every instruction, so at exactly these moments it can do what a signal's handler would: raise, as Ctrl-C's does, or
call something of ours, as one does that closes the session. Once, as the interpreter ends the tracing when it raises.
"""

import contextlib
import dis
import functools
import gc
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, TypeVar

T = TypeVar("T")

LOOKS = ("RESUME", "CALL", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")

# A function of Python's own that calls another looks at nothing when that returns, unless C code lies in between.
BY_SLOT = ("__init__", "__new__", "__call__")

# Not ours to mend: an interruption leaves a lock of `logging` closed, is swallowed in a callback of a weak set, and
# leaves a thread behind that never ends where it meets `Thread.start`.
SPARED = (
    ("logging", ""),
    ("_weakrefset", ""),
    ("weakref", ""),
    ("threading", "Thread."),
    ("_pytest", ""),
    ("coverage", ""),
)


def looks(code: CodeType, offset: int) -> bool:
    """Whether the interpreter looks at signals within the instruction at *offset*."""
    name = dis.opname[code.co_code[offset]]
    return offset == 0 or (name.startswith(LOOKS) and "NO_INTERRUPT" not in name)


@functools.cache
def _handlers(code: CodeType) -> tuple[Any, ...]:
    return tuple(dis.Bytecode(code).exception_entries)  # type: ignore[attr-defined]


def handler(code: CodeType, offset: int) -> int | None:
    """Where an exception at *offset* is handled, if it is."""
    return next((entry.target for entry in _handlers(code) if entry.start <= offset < entry.end), None)


def ctrl_c() -> None:
    """What Python's own handler of SIGINT does."""
    raise KeyboardInterrupt


class Interruption:
    """Runs *signal* at the moment *number*, counted from 1, of what runs in the block.

    Args:
        within: beginnings of the names of modules whose moments count; those of others are as good as their callers'.
        signal: what the handler does; it is not traced.
    """

    def __init__(self, number: int, within: tuple[str, ...] = ("",), signal: Callable[[], object] = ctrl_c) -> None:
        self._left = number
        self._within = within
        self._signal = signal
        self._last: dict[FrameType, int] = {}  # the instruction that each frame was at
        self._spared: set[FrameType] = set()
        self.where = ""
        """Where that was."""

    def __enter__(self) -> "Interruption":
        self._before = sys.gettrace()
        self._top = sys._getframe(1)
        gc.disable()  # what is finalized meanwhile swallows an interruption, and is no part of what is tried
        sys._getframe().f_trace_opcodes = True  # 3.12 looks whether anybody wants them when it is set
        sys.settrace(self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        gc.enable()
        self._last.clear()
        self._spared.clear()

    def _begin(self, frame: FrameType, event: str, arg: Any) -> Any:
        name, code = frame.f_globals.get("__name__", ""), frame.f_code
        spared = any(name.startswith(module) and code.co_qualname.startswith(what) for module, what in SPARED)
        if spared or frame.f_back in self._spared or frame is self._top or name == __name__:
            self._spared.add(frame)
            return None
        frame.f_trace_lines = False
        if name.startswith(self._within):
            frame.f_trace = self._step  # from 3.13 on, before the next line
            frame.f_trace_opcodes = True
            self._last[frame] = 0
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            self._last.pop(frame, None)
            if frame.f_code.co_name not in BY_SLOT and frame.f_back is not None:
                self._last.pop(frame.f_back, None)
        elif event == "exception":
            self._last.pop(frame, None)  # on the way to its handler nothing is looked at
        elif event == "opcode":
            code, here = frame.f_code, frame.f_lasti
            last, self._last[frame] = self._last.get(frame), here
            # Raised here, it must be handled as if that instruction had raised it.
            if last is not None and looks(code, last) and handler(code, last) == handler(code, here):
                self._left -= 1
                if self._left == 0:
                    self.where = f"{code.co_qualname}:{frame.f_lineno}"
                    self._signal()
        return self._step


def interrupted_everywhere(
    prepare: Callable[[], T], action: Callable[[T], object], within: tuple[str, ...] = ("",)
) -> Iterator[tuple[T, str]]:
    """What *prepare* made, each time *action* on it was interrupted, moment by moment; and where that was.

    The last one was not interrupted, as the action had come to its end before.
    """
    for number in itertools.count(1):
        thing = prepare()
        interruption = Interruption(number, within)
        with contextlib.suppress(KeyboardInterrupt), interruption:
            action(thing)
        yield thing, interruption.where
        if not interruption.where:
            return


def called_everywhere(
    prepare: Callable[[], T],
    action: Callable[[T], object],
    signal: Callable[[T], object],
    within: tuple[str, ...] = ("",),
    timeout: float = 20.0,
) -> Iterator[tuple[T, str]]:
    """The same where the handler calls *signal* on what *prepare* made; it may raise too, and what it raises is lost.

    Raises:
        TimeoutError: the action, or the handler in it, hangs.
    """

    def act(thing: T, interruption: Interruption) -> None:
        with contextlib.suppress(BaseException), interruption:
            action(thing)

    for number in itertools.count(1):
        thing = prepare()
        interruption = Interruption(number, within, functools.partial(signal, thing))
        try:
            elsewhere(functools.partial(act, thing, interruption), timeout)
        except TimeoutError:
            raise TimeoutError(f"a handler that was called at {interruption.where} hangs") from None
        yield thing, interruption.where
        if not interruption.where:
            return


def is_free(lock: Any) -> bool:
    """Whether nobody holds *lock* for longer than a moment."""
    if not lock.acquire(timeout=2.0):
        return False
    lock.release()
    return True


def elsewhere(call: Callable[[], Any], timeout: float = 20.0) -> Any:
    """What *call* returns on a thread of its own, where no lock that the main thread left is anybody's.

    Raises:
        TimeoutError: it hangs.
    """
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if not found:
        raise TimeoutError(f"{call} hangs")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]

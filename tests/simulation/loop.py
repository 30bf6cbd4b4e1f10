"""An event loop on virtual time, in which processes can be paused and killed.

Nothing here waits: when no callback is ready, the clock jumps to the next timer. No threads, no sockets. Each callback
belongs to the :class:`Process` that its context names; those of a process that is paused or dead are held back, so a
process stops between any two callbacks, that is at any await, and everything that arrived meanwhile waits for it.

The same calls give the same run: ready callbacks run in the order in which they were made ready, and tasks hash by a
serial number, because asyncio keeps them in sets (TaskGroup cancels in the order of one).
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

_Result = TypeVar("_Result")

STEPS_MAX: Final = 5_000_000
"""More callbacks than any run needs: something turns in a circle without letting time pass."""

ROUNDS_MAX: Final = 20
"""So often tasks are cancelled at the end: some make others while they end."""


class Deadlock(Exception):
    """Everyone waits and no timer is set."""


class Process:
    """What is paused and killed as one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_paused = False
        self.is_dead = False
        self.fuse = -1
        """The process dies after so many callbacks, if it is not negative."""
        self.held: list[asyncio.Handle] = []
        self.on_resume: list[Callable[[], None]] = []
        """What the machine does for the process as soon as it goes on."""
        self.on_death: list[Callable[[], None]] = []
        self._context = contextvars.copy_context()
        self._context.run(_current.set, self)

    def __repr__(self) -> str:
        return self.name

    @property
    def is_running(self) -> bool:
        return not self.is_paused and not self.is_dead

    def start(self, work: Coroutine[Any, Any, _Result]) -> "asyncio.Task[_Result]":
        """Runs a coroutine in this process."""
        return _loop().create_task(work, context=self._context.copy())

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        if not self.is_paused or self.is_dead:
            return
        self.is_paused = False
        _loop().release(self)
        actions, self.on_resume = self.on_resume, []
        for action in actions:
            action()

    def kill(self) -> None:
        """As by SIGKILL: no callback of it runs any more."""
        if self.is_dead:
            return
        self.is_dead = True
        self.is_paused = False
        actions, self.on_death = self.on_death, []
        self.on_resume.clear()
        for action in actions:
            action()


_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
MACHINE: Final = contextvars.Context()
"""The context of what no process does: frames under way, the database."""


def current_process() -> Process | None:
    return _current.get()


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number."""

    def __init__(self, *arguments: Any, number: int, **named: Any) -> None:
        self._number = number
        super().__init__(*arguments, **named)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.BaseEventLoop):
    """``time()`` is in virtual seconds from 0."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._numbers = 0
        self._steps = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._tasks: list[_Task] = []
        """All that were ever made: no one else holds a dead process's, and the collector of garbage would end them."""
        self._is_open = False
        """Whether nothing is held back any more: the run is over, and all tasks are to end."""
        self.failures: list[str] = []
        """What would be logged: exceptions that no one took."""
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_failure)

    def _make_task(self, _loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> "asyncio.Task[Any]":
        self._numbers += 1
        task = _Task(work, loop=self, number=self._numbers, **named)
        self._tasks.append(task)
        return task

    def _note_failure(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(f"{context['message']}: {context.get('exception')!r}")

    def time(self) -> float:
        return self._now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._numbers += 1
        heapq.heappush(self._timers, (when, self._numbers, timer))
        return timer

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def release(self, process: Process) -> None:
        """Lets a process go on with what was held back."""
        self._ready.extend(process.held)  # type: ignore[attr-defined]
        process.held.clear()

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        if not ready:
            while self._timers and self._timers[0][2].cancelled():
                heapq.heappop(self._timers)
            if not self._timers:
                raise Deadlock(f"at {self._now:.3f} s everyone waits and no timer is set")
            self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled():
                ready.append(timer)
        self._steps += len(ready)
        if self._steps > STEPS_MAX:
            raise Deadlock(f"at {self._now:.3f} s: {STEPS_MAX} steps were made")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            process = handle._context.get(_current)
            if process is None or self._is_open:
                handle._run()
                continue
            if process.fuse >= 0:
                if not process.fuse:
                    process.kill()
                process.fuse -= 1
            if process.is_running:
                handle._run()
            else:
                process.held.append(handle)

    def end(self, processes: list[Process]) -> None:
        """Cancels all tasks, of dead processes too, and runs them to their end."""
        if self.is_closed():
            return
        self._is_open = True
        for process in processes:
            self.release(process)
        for _ in range(ROUNDS_MAX):
            left = asyncio.all_tasks(self)
            if not left:
                break
            for task in sorted(left, key=hash):
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=60))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()

    def _process_events(self, _events: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No one sleeps."""

    def run_in_executor(self, *_arguments: object) -> NoReturn:
        raise RuntimeError("a simulation has no threads")


def _loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


@contextmanager
def virtual_loop(processes: list[Process]) -> Iterator[VirtualLoop]:
    """A loop; at the end every task of it has ended. ``processes`` may grow meanwhile."""
    loop = VirtualLoop()
    try:
        yield loop
    finally:
        loop.end(processes)

"""What the leader wants done: copy, delete, verify. Done in threads, bounded, and answered with the next heartbeat."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from gfschunkserver.copying import copy_chunk
from gfschunkserver.engine import Engine
from gfschunkserver.replica import Replica
from gfschunkserver.scrubber import Scrubber
from gfsprotocol.errors import GfsError
from gfsprotocol.messages import DeleteOrder, Order, OrderResult, ReplicateOrder, VerifyOrder

log = logging.getLogger(__name__)

WORKERS: Final = 4
ORDERS_MAX: Final = 4096

Finished = Callable[[OrderResult], None]
"""Called on the event loop."""


class Orders:
    """Carries out orders. Lives on the event loop; an order that comes again while it is being done is done once."""

    def __init__(self, engine: Engine, scrubber: Scrubber) -> None:
        self._engine = engine
        self._scrubber = scrubber
        self._executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="order")
        self._running: set[tuple[int, int]] = set()
        """Epoch and number: each leader numbers its orders from the beginning."""
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, epoch: int, orders: tuple[Order, ...], finished: Finished) -> None:
        """Begins with those that are new; ``finished`` hears of each."""
        deletions: list[DeleteOrder] = []
        for order in orders:
            if (epoch, order.order) in self._running:
                continue
            if len(self._running) >= ORDERS_MAX:
                finished(OrderResult(order.order, "too many orders at once"))
                continue
            self._running.add((epoch, order.order))
            self._engine.measures.orders.add(type(order).__name__)
            match order:
                case DeleteOrder():
                    deletions.append(order)
                case ReplicateOrder():
                    self._spawn(self._copy(epoch, order, finished))
                case VerifyOrder():
                    self._verify(epoch, order, finished)
        if deletions:
            self._spawn(self._delete(epoch, deletions, finished))

    def cancel(self) -> None:
        """Nobody waits for results any more. On the event loop; :meth:`stop` follows."""
        for task in self._tasks:
            task.cancel()

    def stop(self) -> None:
        """What is being done is finished; what waits is not begun. Not on the event loop."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, epoch: int, order: Order, error: str, finished: Finished) -> None:
        self._running.discard((epoch, order.order))
        if error:
            self._engine.measures.failed_orders.add(type(order).__name__)
        finished(OrderResult(order.order, error))

    async def _copy(self, epoch: int, order: ReplicateOrder, finished: Finished) -> None:
        error = ""
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, copy_chunk, self._engine, order)
        except GfsError as failure:
            error = failure.message
        except Exception as failure:
            log.exception("an order failed")
            error = f"internal error: {failure}"
        self._end(epoch, order, error, finished)

    async def _delete(self, epoch: int, orders: list[DeleteOrder], finished: Finished) -> None:
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._executor, self._delete_all, orders)
        except Exception as failure:
            log.exception("an order failed")
            results = [OrderResult(order.order, f"internal error: {failure}") for order in orders]
        by_number = {order.order: order for order in orders}
        for result in results:
            self._end(epoch, by_number[result.order], result.error, finished)

    def _delete_all(self, orders: list[DeleteOrder]) -> list[OrderResult]:
        """In a worker thread: one fsync for all."""
        results: list[OrderResult] = []
        doomed: list[tuple[DeleteOrder, Replica]] = []
        for order in orders:
            replica = self._engine.store.find(order.chunk)
            error = ""
            try:
                if replica is None:
                    self._engine.store.forget_corrupt(order.chunk)
                elif replica.version > order.version:
                    error = f"chunk {order.chunk:x} has version {replica.version}, newer than {order.version}"
                elif self._engine.chains.is_open(order.chunk):
                    error = f"chunk {order.chunk:x} is being written"
                else:
                    self._engine.chains.forget(order.chunk)
                    doomed.append((order, replica))
                    continue
            except GfsError as failure:
                error = failure.message
            results.append(OrderResult(order.order, error))
        error = ""
        try:
            self._engine.store.drop([replica for _, replica in doomed], "the master had it deleted")
        except GfsError as failure:
            error = failure.message
        results.extend(OrderResult(order.order, error) for order, _ in doomed)
        return results

    def _verify(self, epoch: int, order: VerifyOrder, finished: Finished) -> None:
        loop = asyncio.get_running_loop()

        def done(error: str) -> None:
            loop.call_soon_threadsafe(self._end, epoch, order, error, finished)

        self._scrubber.verify(order.chunk, done)

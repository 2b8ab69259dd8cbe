"""Threads for one kind of blocking work, shared fairly by tenants and with a bounded queue.

Each kind of work has its own pool, so that slow work of one kind never delays another kind.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from oar_wire.errors import PictureQueueFull, PictureShareFull
from oar_wire.tenant import Tenant
from server.api.fair_turns import FairTurns

P = ParamSpec("P")
T = TypeVar("T")

SMOOTHING = 0.2  # weight of the newest call in the mean duration


class FairThreadPool:
    """Runs functions in threads. Belongs to one event loop and is used on it alone.

    A tenant occupies at most its share of the threads and of the queue, and waiting tenants take turns. A thread
    stays occupied until its function returns, even if the caller was canceled before.
    """

    def __init__(self, name: str, num_threads: int, max_waiting: int) -> None:
        """`max_waiting` is the length of the queue of all tenants together."""
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._num_threads = num_threads
        self._max_waiting = max_waiting
        self._turns = FairTurns(num_threads)
        self._mean_seconds = 0.0

    @property
    def num_waiting(self) -> int:
        return self._turns.num_waiting

    @property
    def num_running(self) -> int:
        return self._turns.num_running

    async def run(self, tenant: Tenant, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises PictureShareFull, PictureQueueFull, and what `work` raises."""
        if not self._turns.has_place(tenant):
            self._check_queue(tenant)
        return await self.run_accepted(tenant, work, *args, **kwargs)

    async def run_accepted(self, tenant: Tenant, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs as `run`, but waits however long the queue is: for requests whose job was accepted and made before."""
        await self._turns.begin(tenant)
        loop = asyncio.get_running_loop()
        start = loop.time()
        call = self._threads.submit(work, *args, **kwargs)

        def ended(_: Future[T]) -> None:
            loop.call_soon_threadsafe(self._end, tenant, start)

        # Not asyncio's future: that one ends as soon as the caller is canceled, and the thread does not.
        call.add_done_callback(ended)
        return await asyncio.wrap_future(call)

    async def close(self) -> None:
        """Waits for what is running."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    def _check_queue(self, tenant: Tenant) -> None:
        num_own = self._turns.num_waiting_of(tenant)
        if self.num_waiting >= self._max_waiting:
            message = f"{self.num_waiting} pictures wait to be decoded or encoded already"
            raise PictureQueueFull(message, retry_after=self._wait_seconds(self.num_waiting, self._num_threads))
        if num_own >= tenant.share_of(self._max_waiting):
            message = f"{num_own} pictures of {tenant.name} wait to be decoded or encoded already, which is its share"
            raise PictureShareFull(message, retry_after=self._wait_seconds(num_own, tenant.share_of(self._num_threads)))

    def _wait_seconds(self, num_waiting: int, num_threads: int) -> float:
        return num_waiting * self._mean_seconds / num_threads

    def _end(self, tenant: Tenant, start: float) -> None:
        seconds = asyncio.get_running_loop().time() - start
        self._mean_seconds += SMOOTHING * (seconds - self._mean_seconds)
        self._turns.end(tenant)

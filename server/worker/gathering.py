"""Work that is cheaper together: what is asked for while a batch is under way makes the next one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gathering(Generic[Item, Result]):
    """Gathers calls on one event loop; batches run one after another on a thread of `threads`."""

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], threads: Executor, most: int) -> None:
        """`work` gives one result for each item; it is given `most` items at a time."""
        self._work = work
        self._threads = threads
        self._most = most
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Result:
        """Raises what `work` raised, as all of the batch do; cancelled where `threads` take no more work."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                await self._answer(batch)
        finally:
            self._runner = None

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        items = [item for item, _ in batch]
        try:
            call = asyncio.get_running_loop().run_in_executor(self._threads, self._work, items)
        except RuntimeError:  # the threads are shut down
            for _, answer in batch:
                answer.cancel()
            return
        await asyncio.wait((call,))
        for index, (_, answer) in enumerate(batch):
            if call.cancelled():
                answer.cancel()
            elif answer.done():  # who asked has given up meanwhile
                call.exception()
            elif (error := call.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(call.result()[index])

"""What many requests ask for in the same moment is done together: charges share a commit, keys a look at the database.

While one batch is under way on a thread, those that arrive queue up, and are the next one. Who comes alone waits for nobody.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

from billing_core.errors import BillingError, DatabaseUnavailable

MOST = 200
"""In one batch: nobody waits for longer than so many take."""

Place = TypeVar("Place", bound=Hashable)
Asked = TypeVar("Asked")
Given = TypeVar("Given")


class Together(Generic[Place, Asked, Given]):
    """`act(place, batch)` answers each of a batch, in order, with what it gets or the error that refuses it, all in one
    transaction. `await together(place, asked)` gives the one answer, or raises; what is asked of one place shares batches, of
    which up to `at_once` are under way.

    Who is gone before their batch begins asks for nothing; after that it is done all the same.
    """

    def __init__(self, act: Callable[[Place, list[Asked]], Sequence[Given | BillingError]], at_once: int = 1) -> None:
        self._act, self._at_once = act, at_once
        self._queues: dict[tuple[object, Place], list[tuple[Asked, asyncio.Future[Given]]]] = {}
        """Who waits, where a batch is under way. Each event loop has its own: most processes have one."""
        self._under_way: Counter[tuple[object, Place]] = Counter()
        self._workers: set[asyncio.Task[None]] = set()
        """Kept here, as a loop keeps no task from being collected."""

    async def __call__(self, place: Place, asked: Asked) -> Given:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Given] = loop.create_future()
        self._queues.setdefault((loop, place), []).append((asked, answer))
        if self._under_way[loop, place] < self._at_once:
            self._under_way[loop, place] += 1
            worker = loop.create_task(self._work(loop, place))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await answer

    async def _work(self, loop: object, place: Place) -> None:
        queue = self._queues[loop, place]
        try:
            while queue:
                batch = [one for one in queue[:MOST] if not one[1].done()]
                del queue[:MOST]
                results = await self._results(place, [asked for asked, _ in batch])
                if batch and all(isinstance(one, DatabaseUnavailable) for one in results):
                    # Those who came meanwhile have waited as well, and would wait as long again.
                    batch += queue
                    queue.clear()
                    results = [results[0]] * len(batch)
                for (_, answer), result in zip(batch, results, strict=True):
                    if answer.done():
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)
        finally:
            self._under_way[loop, place] -= 1
            if not self._under_way[loop, place]:
                del self._under_way[loop, place], self._queues[loop, place]

    async def _results(self, place: Place, batch: list[Asked]) -> Sequence[Given | Exception]:
        try:
            return await run_in_threadpool(self._act, place, batch)
        except Exception as error:  # noqa: BLE001
            if len(batch) == 1 or isinstance(error, DatabaseUnavailable):
                return [error] * len(batch)
            # Nobody thought of it, nothing was done, and it is the trouble of one of them alone.
            return [(await self._results(place, [one]))[0] for one in batch]

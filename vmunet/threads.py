"""Apply a function to many items in threads, for work outside Python (decoding, resizing)."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 8  # a 30-megapixel photograph takes 360 MB as float32, and each thread may hold one


def in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    title: str,
    most: int = MOST_THREADS,
) -> list[Result]:
    """`[function(item) for item in items]` with a progress bar; the first error stops the rest.

    At most `most` items are processed at the same time, and no more than there are cores.
    """
    pool = ThreadPoolExecutor(min(most, os.cpu_count() or 1))
    try:
        results = pool.map(function, items)
        return list(tqdm(results, desc=title, total=len(items), disable=None, leave=False))
    finally:
        pool.shutdown(cancel_futures=True)

"""Threads work ahead, in order, and never far."""

import time
from collections.abc import Iterator

import pytest

from pipeline.core.look_ahead import in_threads


def test_results_come_in_order_and_only_so_many_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    for number, result in enumerate(in_threads(lambda item: item**2, items(), workers=2, ahead=5)):
        assert result == number**2
        assert len(taken) <= number + 5


def test_after_an_error_no_waiting_item_is_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)
        if item == 0:
            raise ValueError("the first one")

    with pytest.raises(ValueError, match="the first one"):
        list(in_threads(work, range(1000), workers=1, ahead=1000))
    assert len(begun) < 100


def test_closing_it_begins_no_waiting_item() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)

    results = in_threads(work, range(1000), workers=1, ahead=1000)
    next(results)
    results.close()
    assert len(begun) < 100

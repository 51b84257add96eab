"""Halving: who is guilty, who is not, and what it costs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from app.isolation import Unjudged, fault_of, isolate


def numbered(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1)


class Judge:
    """Answers each image with its number; raises `error` where a guilty one is there."""

    def __init__(self, guilty: set[int], error: Exception) -> None:
        self.guilty, self.error, self.calls = guilty, error, 0
        self.told: list[tuple[Exception, int]] = []

    def __call__(self, images: Tensor) -> list[int]:
        self.calls += 1
        numbers = [int(number) for number in images.flatten()]
        if self.guilty & set(numbers):
            raise self.error
        return numbers

    def failed(self, error: Exception, images: int) -> None:
        self.told.append((error, images))


@given(st.integers(1, 40), st.data())
def test_the_guilty_fail_and_nobody_else(count: int, data: st.DataObject) -> None:
    guilty = data.draw(st.sets(st.integers(0, count - 1)))
    judge = Judge(guilty, RuntimeError("x"))
    outcomes = isolate(judge, numbered(count), failed=judge.failed)
    for number, outcome in enumerate(outcomes):
        if number in guilty:
            assert isinstance(outcome, Unjudged)
            assert outcome.fault == "exception"
        else:
            assert outcome == number
    levels = math.ceil(math.log2(count)) if count > 1 else 0
    assert judge.calls <= 1 + 2 * len(guilty) * levels
    assert sum(images == 1 for _, images in judge.told) == len(guilty)


def test_what_fails_only_together_is_judged_apart() -> None:
    sizes = []

    def judge(images: Tensor) -> list[int]:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [int(number) for number in images.flatten()]

    told: list[str] = []
    assert isolate(judge, numbered(9), failed=lambda error, _: told.append(fault_of(error))) == list(range(9))
    assert sizes == [9, 5, 3, 2, 4, 2, 2]
    assert told == ["out-of-memory"] * 3


def test_what_nobody_waits_for_is_not_tried_again() -> None:
    judge = Judge({3}, RuntimeError("x"))
    outcomes = isolate(judge, numbered(8), failed=judge.failed, give_up=lambda: True)
    assert judge.calls == 1
    assert all(isinstance(each, Unjudged) for each in outcomes)


def test_a_judge_that_loses_an_image_has_failed() -> None:
    outcomes = isolate(lambda images: list(range(len(images) - 1)), numbered(2), failed=lambda *_: None)
    assert [type(each) for each in outcomes] == [Unjudged, Unjudged]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (MemoryError(), "out-of-memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "out-of-memory",
        ),
        (RuntimeError("shape mismatch"), "exception"),
        (ValueError("memory"), "exception"),
    ],
)
def test_kinds_of_faults(error: Exception, fault: str) -> None:
    assert fault_of(error) == fault

"""Fair queueing: who is next, against a plain reference, and that nobody starves."""

from hypothesis import given
from hypothesis import strategies as st

from app.fair_queue import FairQueue


def drained(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_equal_items_leave_in_the_order_of_arrival() -> None:
    queue: FairQueue[str] = FairQueue()
    for name in "abc":
        queue.push(name, 1)
    assert queue.peek() == "a"
    assert drained(queue) == ["a", "b", "c"]
    assert len(queue) == 0


def test_a_light_item_overtakes_a_heavy_one() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("heavy", 10)
    queue.push("light", 1)
    assert drained(queue) == ["light", "heavy"]


def test_flows_take_turns_however_much_one_sends() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(4):
        queue.push(f"a{number}", 1, "a")
    queue.push("b0", 1, "b")
    queue.push("b1", 1, "b")
    assert drained(queue) == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_a_heavy_item_is_overtaken_by_a_bounded_weight() -> None:
    """Weight-1 newcomers without end: the item of weight 10 goes after ten of them."""
    queue: FairQueue[str] = FairQueue()
    queue.push("heavy", 10)
    queue.push("new", 1)
    taken = 0
    while queue.pop() != "heavy":
        taken += 1
        queue.push("new", 1)
    assert taken == 9  # the tenth newcomer has the same tag, and came later


@given(
    st.lists(
        st.one_of(st.none(), st.tuples(st.integers(1, 9), st.sampled_from([None, "a", "b"]))), max_size=60
    )
)
def test_the_smallest_tag_is_next(steps: list[tuple[int, str | None] | None]) -> None:
    """Against the definition: F = max(V, F of the flow's previous item) + weight, smallest F first."""
    queue: FairQueue[int] = FairQueue()
    waiting: list[tuple[float, int]] = []
    virtual, last = 0.0, {"a": 0.0, "b": 0.0}
    for number, step in enumerate(steps):
        if step is not None:
            weight, flow = step
            tag = max(virtual, last.get(flow, 0.0) if flow else 0.0) + weight
            if flow:
                last[flow] = tag
            waiting.append((tag, number))
            queue.push(number, weight, flow)
        elif waiting:
            first = min(waiting)
            waiting.remove(first)
            virtual = first[0]
            assert queue.pop() == first[1]
            if not waiting:
                virtual, last = 0.0, {"a": 0.0, "b": 0.0}
    assert len(queue) == len(waiting)

"""The event engine against times that can be worked out by hand."""

import pytest

from benchmarks.profile.model.events import Cpu, EventLoop, Process, Queue, TimedEvent, Wait


def run(engine: EventLoop, *processes: Process) -> float:
    """The time at which all of them are over."""
    left, end = len(processes), TimedEvent()

    def counted(process: Process) -> Process:
        nonlocal left
        yield from process
        left -= 1
        if not left:
            engine.happen(end)

    for process in processes:
        engine.start(counted(process))
    engine.run(end)
    return engine.now_s


def compute(seconds: float) -> Process:
    yield Cpu(seconds)


def wait(seconds: float) -> Process:
    yield Wait(seconds)


@pytest.mark.parametrize(("num_cores", "expected_s"), [(1, 3.0), (2, 1.5), (3, 1.0), (8, 1.0), (0.5, 6.0)])
def test_three_threads_share_the_cores_evenly(num_cores: float, expected_s: float) -> None:
    assert run(EventLoop(num_cores), *(compute(1.0) for _ in range(3))) == pytest.approx(expected_s)


def test_unequal_work_on_one_core_ends_in_the_order_of_its_size() -> None:
    # 1, 2 and 3 s in equal shares: the first is over at 3, the second has 1 left then and is over at 5, the last at 6.
    engine, ends = EventLoop(1), []

    def noted(seconds: float) -> Process:
        yield Cpu(seconds)
        ends.append(engine.now_s)

    run(engine, noted(2.0), noted(3.0), noted(1.0))
    assert ends == pytest.approx([3.0, 5.0, 6.0])


def test_waiting_takes_no_core() -> None:
    engine = EventLoop(1)
    assert run(engine, wait(2.0), wait(2.0), compute(1.0)) == pytest.approx(2.0)
    assert engine.busy_s == pytest.approx(1.0)


@pytest.mark.parametrize(("num_threads", "expected_s"), [(1, 1.0), (2, 1.25), (3, 1.5), (4, 2.0)])
def test_contention_grows_with_the_busy_cores(num_threads: int, expected_s: float) -> None:
    # 1.5 with all three cores busy, 1 with one; a fourth thread shares three cores at 1.5.
    assert run(EventLoop(3, 1.5), *(compute(1.0) for _ in range(num_threads))) == pytest.approx(expected_s)


def test_an_event_that_has_happened_holds_nobody_up() -> None:
    engine, event = EventLoop(1), TimedEvent()
    engine.happen(event)

    def late() -> Process:
        yield Wait(1.0)
        yield event
        yield Wait(1.0)

    assert run(engine, late()) == pytest.approx(2.0)


def test_items_come_in_order_and_a_full_queue_holds_up_the_sender() -> None:
    engine = EventLoop(2)
    queue: Queue[int] = Queue(engine, 2)
    got: list[tuple[int, float]] = []
    sent: list[float] = []

    def sender() -> Process:
        for item in range(4):
            yield from queue.put(item)
            sent.append(engine.now_s)

    def consumer() -> Process:
        for _ in range(4):
            yield Wait(1.0)
            got.append(((yield from queue.get()), engine.now_s))

    run(engine, sender(), consumer())
    assert got == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]
    assert sent == [0.0, 0.0, 1.0, 2.0]


def test_processes_that_wait_for_each_other_are_an_error() -> None:
    engine = EventLoop(1)
    queue: Queue[int] = Queue(engine, 1)

    def starved() -> Process:
        yield from queue.get()

    with pytest.raises(RuntimeError, match="waits for another"):
        run(engine, starved())

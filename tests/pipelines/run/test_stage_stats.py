"""Stage clocks: where seconds go, and which stage is named the bottleneck."""

import threading
import time

import pytest

from pipelines.run.stage_stats import CONSUMER, StageClock, StageStats, bottleneck, sum_stats


def stage(name, busy_s, blocked_on_input_s=0.0, blocked_on_output_s=0.0, num_items=10):
    return StageStats(
        name=name,
        num_items=num_items,
        num_failures=0,
        busy_s=busy_s,
        blocked_on_input_s=blocked_on_input_s,
        blocked_on_output_s=blocked_on_output_s,
    )


def test_ratios_sum_to_one():
    one = stage("decode", 1.0, 2.0, 5.0)
    assert one.busy_ratio + one.blocked_on_input_ratio + one.blocked_on_output_ratio == pytest.approx(1)
    assert (one.busy_ratio, one.items_per_s) == (0.125, 10.0)


def test_a_stage_that_never_ran_has_no_rates():
    idle = stage("decode", 0.0, num_items=0)
    assert (idle.busy_ratio, idle.items_per_s) == (0.0, 0.0)


def test_the_busiest_stage_is_the_bottleneck():
    assert bottleneck([stage("read", 1, 0, 9), stage("decode", 8, 1, 1), stage("colorization", 5, 5, 0)]) == "decode"


def test_the_consumer_is_the_bottleneck_where_all_wait_for_room():
    assert bottleneck([stage("read", 1, 0, 9), stage("decode", 2, 1, 7)]) == CONSUMER


def test_nothing_ran_is_an_error():
    with pytest.raises(ValueError, match="no stage has run"):
        bottleneck([stage("read", 0, num_items=0)])


def test_busy_seconds_and_items_add_up_even_when_work_fails():
    clock = StageClock("decode")
    with clock.busy(3):
        time.sleep(0.02)
    with pytest.raises(KeyError), clock.busy(4):
        raise KeyError
    clock.add(num_failures=2)
    read = clock.read()
    assert (read.num_items, read.num_failures) == (7, 2)
    assert 0.02 <= read.busy_s < 0.5


def test_idle_time_is_waiting_for_room_first_and_for_input_then():
    clock = StageClock("colorization")
    time.sleep(0.05)
    clock.arrival(room_wait_s=0.02)
    clock.departure()
    read = clock.read()
    assert read.blocked_on_output_s == pytest.approx(0.02)
    assert 0.03 <= read.blocked_on_input_s < 0.5


def test_an_arrival_at_a_working_stage_is_no_waiting():
    clock = StageClock("colorization")
    clock.start()
    clock.arrival(0.0)
    before = clock.read()
    time.sleep(0.02)
    clock.arrival(5.0)
    assert clock.read() == before


def test_a_listener_hears_of_the_thread_that_did_the_work():
    heard = []
    clock = StageClock("decode")
    clock.listener = lambda *told: heard.append(told)
    thread = threading.Thread(target=lambda: clock.add(busy_s=0.25), name="other")
    thread.start()
    thread.join()
    ((stage, start_s, end_s, where),) = heard
    assert (stage, where) == ("decode", "other")
    assert end_s - start_s == pytest.approx(0.25)


def test_stages_of_several_processes_add_up():
    one, two = stage("read", 1, num_items=3), stage("read", 2, num_items=4)
    (both,) = sum_stats([(one,), (two,)])
    assert (both.name, both.num_items, both.busy_s) == ("read", 7, 3)


def test_the_difference_of_two_looks_is_what_happened_between_them():
    before, after = stage("decode", 1.0, 2.0, 5.0, num_items=4), stage("decode", 1.5, 2.25, 9.0, num_items=10)
    assert after.since(before) == stage("decode", 0.5, 0.25, 4.0, num_items=6)

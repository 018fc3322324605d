"""Turns by a clock that only the jobs move."""

from benchmarks.harness.turns import Job, Timed, time_in_turns, turns


def test_who_is_first_moves_on() -> None:
    rounds = list(turns(["a", "b", "c"], 4))
    assert [name for _, name in rounds] == [*"abc", *"bca", *"cab", *"abc"]
    assert [repeat for repeat, _ in rounds] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_warm_up_rounds_come_first_and_are_marked() -> None:
    assert [repeat for repeat, _ in turns(["a", "b"], 1, num_warm_up=2)] == [-2, -2, -1, -1, 0, 0]


def test_a_name_taken_out_gets_no_more_turns() -> None:
    names, taken = {"a": 1, "b": 2, "c": 3}, []
    for repeat, name in turns(names, 2):
        taken.append((repeat, name))
        if taken == [(0, "a")]:
            del names["c"]
        if name == "b" and repeat == 1:
            names.clear()
    assert taken == [(0, "a"), (0, "b"), (1, "b")]


class Clock:
    """Stands still unless a job moves it."""

    def __init__(self) -> None:
        self.now_s, self.said = 0.0, list[str]()

    def job(self, name: str, seconds: list[float]) -> Job:
        """A job whose n-th run takes the n-th of the seconds; preparing takes an hour."""
        left = iter(seconds)

        def run() -> None:
            self.said.append(name)
            self.now_s += next(left)

        def prepare() -> None:
            self.said.append(f"prepare {name}")
            self.now_s += 3600

        return Job(unit="images", num_items=10, run=run, prepare=prepare)


def test_warm_up_and_preparing_are_not_counted() -> None:
    clock, lines = Clock(), list[str]()
    jobs = {"a": clock.job("a", [100, 1, 2, 5]), "b": clock.job("b", [200, 4, 4, 4])}
    found = time_in_turns(jobs, 3, clock=lambda: clock.now_s, report=lines.append)
    assert {name: one.seconds for name, one in found.items()} == {"a": (1, 2, 5), "b": (4, 4, 4)}
    order = [*"ba", *"ab", *"ba", *"ab"]  # the round before the first repeat is number -1
    assert clock.said == [word for name in order for word in (f"prepare {name}", name)]
    assert lines == ["a: 5.0 images/s", "b: 2.5 images/s"]


def test_a_row_tells_every_repeat() -> None:
    row = Timed(name="decode", unit="images", num_items=100, seconds=(1.0, 2.0, 0.5)).row()
    assert row == {
        "name": "decode",
        "unit": "images_per_s",
        "median": 100,
        "ci95_low": None,
        "ci95_high": None,
        "lowest": 50,
        "highest": 200,
        "repeats": [100, 50, 200],
    }

"""Progress of a run on a terminal."""

import io

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

import training.display
from training.display import Clock, Display


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(training.display.time, "monotonic", time)
    return time


def test_a_run_that_goes_on_shows_its_own_speed_and_time_left(time: Time) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    bar = Bar(
        *columns,
        TextColumn("{task.fields[speed]} | {task.fields[figures]}"),
        console=screen,
        get_time=time,
        auto_refresh=False,
    )
    shown = Display(screen, bar, lines=True, epochs=10, steps=1000, batch=32)
    clock = Clock()
    time.now += 60  # to compile
    for step in range(501, 521):  # two a second, from the middle of the sixth epoch on
        with clock.waiting():
            time.now += 0.1
        time.now += 0.4
        shown.step(5, step, clock, lambda: {"loss": 0.5, "learning_rate": 0.01})
    (task,) = bar.tasks
    assert task.description == "epoch 6/10" and task.completed == 5520
    assert task.fields["speed"].startswith("64 images/s, ")
    assert task.fields["speed"].endswith("3% waiting for data")  # 2 of 70 seconds
    assert task.fields["figures"] == "loss 0.5  learning_rate 0.01"
    assert task.time_remaining == pytest.approx((10_000 - 5520) / 2, rel=0.02)


def test_a_line_an_epoch_has_its_figures_and_its_times(time: Time) -> None:
    file = io.StringIO()
    screen = Console(file=file, width=200, highlight=False)
    shown = Display(screen, Bar(console=screen, disable=True), True, epochs=4, steps=9, batch=8)
    shown.epoch(
        {"epoch": 2, "loss": 0.12345, "learning_rate": 0.1},
        {"seconds": 3.14, "images_per_second": 1234.5, "waiting": 0.25},
    )
    assert file.getvalue() == (
        "epoch 2/4  loss 0.1235  learning_rate 0.1  3.1 s  1,234 images/s  25% waiting for data\n"
    )

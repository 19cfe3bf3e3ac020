"""The search: spaces, tuners, kills, workers, failures, budgets, and what is left."""

import csv
import io
import json
import os
import socket
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
import numpy as np
import pytest
import yaml
from fake_search import (
    EXPERIMENT,
    SPACE,
    quick,
    run_real_search,
    run_search,
    run_worker,
    search,
    silent,
    start,
)
from rich.console import Console

from keras_resnet.contract import Contract
from training.experiment_file import list_recipes, load_experiment
from training.task import make_model
from training.tuning.budget import cost_of, pareto_front
from training.tuning.display import SearchTable
from training.tuning.oracles import ORACLES, make_oracle, trial_count
from training.tuning.space import default_space, load_space, make_space, to_tree
from training.tuning.trial import (
    Job,
    Outcome,
    minimum_loss,
    read_outcome,
    run_in_process,
    run_sandboxed,
    write_outcome,
)
from training.tuning.tune import (
    Address,
    Budget,
    ResNetHyperModel,
    Search,
    TooManyFailures,
    tune,
    work,
)
from training.tuning.tuner import ExperimentTuner, Plan

TINY = {"schedule.epochs": 3, "schedule.warmup_epochs": 0, "data.test_fraction": 0.85}


# --- Spaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", list_recipes())
def test_each_recipe_has_a_space_that_fits_it(recipe: str) -> None:
    experiment = load_experiment(recipe)
    space = default_space(recipe, experiment)
    for seed in range(10):
        hp = kt.HyperParameters()
        space.declare(hp)
        values = {p.name: p.random_sample(10 * seed + i) for i, p in enumerate(hp.space)}
        assert space.experiment(experiment, values) != experiment
    # The recipe itself is one of its points.
    start = space.point(experiment)
    assert start and space.experiment(experiment, start) == experiment
    assert make_space(to_tree(space), experiment) == space


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("model.architecture", {"values": ["ResNet8", "ResNet20", "WideResNet16_8"]}),
        ("model.variant", {"values": ["auto", "v2"]}),
        ("model.width", {"min": 0.5, "max": 2.0, "step": 0.5}),
        ("model.size", {"min": 32, "max": 64, "step": 16}),
        ("model.stochastic_depth", {"min": 0.0, "max": 0.3}),
        ("optimizer.name", {"values": ["sgd", "adamw", "lamb"]}),
        ("optimizer.learning_rate", {"min": 1e-4, "max": 1.0, "log": True}),
        ("optimizer.weight_decay", {"min": "1e-4", "max": 1e-1, "log": True}),
        ("optimizer.label_smoothing", {"min": 0.0, "max": 0.2}),
        ("augment.padding", {"min": 0, "max": 8}),
        ("augment.randaugment_magnitude", {"min": 0, "max": 20.0}),
        ("augment.mixup", {"min": 0.0, "max": 1.0}),
        ("data.crop_fraction", {"min": 0.8, "max": 1.0}),
        ("augment.min_area", {"min": 0.08, "max": 1.0}),
        ("runtime.batch_size", {"min": 16, "max": 256, "step": 2, "log": True}),
    ],
)
def test_whatever_is_worth_searching_can_be_a_range(key: str, entry: dict[str, Any]) -> None:
    space = make_space({key: entry}, EXPERIMENT)
    hp = kt.HyperParameters()
    space.declare(hp)
    group, name = key.split(".")
    samples = [hp.space[0].random_sample(seed) for seed in range(20)]
    taken = [getattr(getattr(space.experiment(EXPERIMENT, {key: s}), group), name) for s in samples]
    assert len(set(taken)) > 1
    if "values" not in entry:
        assert all(float(entry["min"]) <= value <= entry["max"] for value in taken)


def test_a_default_that_is_no_number_lies_in_no_range() -> None:
    base = load_experiment("folder-resnet18")
    assert base.data.crop_fraction is None
    space = make_space({"data.crop_fraction": {"min": 0.8, "max": 1.0}}, base)
    assert space.point(base) is None


def test_a_width_is_a_narrower_network() -> None:
    experiment = load_experiment("digits-resnet8", {"model.width": 0.5})
    contract = Contract(32, 32, 1, labels=tuple("0123456789"))
    kernels = [v.shape for v in make_model(experiment, contract).weights if v.name == "kernel"]
    assert sorted({shape[-1] for shape in kernels}) == [8, 10, 16, 32]


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({}, "must hold keys"),
        ({"optimizer.learning_rat": {"min": 0, "max": 1}}, "Did you mean optimizer.learning_rate"),
        ({"learning_rate": {"min": 0, "max": 1}}, "Did you mean optimizer.learning_rate"),
        ({"model.architecture": {"values": ["ResNet50x"]}}, "Did you mean ResNet50"),
        ({"model.architecture": {"min": 1, "max": 2}}, "is not a number"),
        ({"model.variant": {"values": ["v9"]}}, "must be one of"),
        ({"model.size": {"min": 8, "max": 64}}, "between 32 and 4096"),
        ({"model.width": {"min": 0.1, "max": 1}}, "between 0.25 and 4"),
        ({"model.size": {"min": 32.5, "max": 64}}, "a whole number"),
        ({"model.size": {"min": 64, "max": 64}}, "empty range"),
        ({"model.size": {"min": 32, "max": 64, "step": 0}}, "step of model.size"),
        ({"model.size": {"min": 32, "max": 64, "step": 33}}, "at most 32"),
        ({"model.size": {"min": 32, "max": 64, "stepp": 2}}, "Did you mean step"),
        ({"model.size": {"max": 64}}, "has no min"),
        ({"model.size": {"values": []}}, "has no values"),
        ({"model.size": {"values": [32, 32]}}, "twice"),
        ({"model.size": {"values": [32], "min": 1}}, "Give one of them"),
        ({"model.size": 64}, "must be .min"),
        ({"data.mean": {"values": [1]}}, "is not a single value"),
        ({"optimizer.learning_rate": {"min": 0, "max": 1, "log": True}}, "above 0"),
        ({"optimizer.learning_rate": {"min": 1, "max": 2, "log": 3}}, "true or false"),
    ],
)
def test_a_bad_space_is_refused_in_a_line(tree: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match=says) as error:
        load_space(path, EXPERIMENT)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


# --- Searching --------------------------------------------------------------------------------


@pytest.mark.parametrize("tuner", ORACLES)
def test_each_tuner_searches_and_leaves_everything(tuner: str, tmp_path: Path) -> None:
    found = tune(search(tuner, 10), tmp_path / "s", runner=quick, say=silent)
    assert found.best and found.best["score"] == max(row["score"] for row in found.rows)
    with (found.folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [row["trial"] for row in found.rows]
    best = load_experiment(found.folder / "best.yaml")
    assert best.augment.padding == found.best["augment.padding"]
    assert best.schedule.epochs == EXPERIMENT.schedule.epochs
    page = (found.folder / "report.html").read_text()
    assert "Parallel coordinates" in page and "Importance of each key" in page
    assert any((found.folder / "tensorboard").glob("*/events*"))
    if tuner != "hyperband":
        assert len(found.rows) == 10


def test_grid_search_visits_every_point_once(tmp_path: Path) -> None:
    space = make_space(
        {
            "augment.padding": {"min": 0, "max": 3},
            "augment.flip": {"values": [True, False]},
        },
        EXPERIMENT,
    )
    wanted = Search(EXPERIMENT, space, "grid", trials=100)
    found = tune(wanted, tmp_path / "s", runner=quick, say=silent)
    points = {(row["augment.padding"], row["augment.flip"]) for row in found.rows}
    assert len(found.rows) == len(points) == 8


def test_hyperband_continues_the_trials_that_it_keeps(tmp_path: Path) -> None:
    jobs: list[Job] = []

    def note(job: Job, alive: Any) -> Outcome:
        jobs.append(job)
        return quick(job)

    tune(search("hyperband"), tmp_path / "s", runner=note, say=silent)
    by_run = {job.run: job for job in jobs}
    longer = [job for job in jobs if job.parent]
    assert longer
    for job in longer:
        assert job.parent is not None
        parent = by_run[job.parent]
        assert parent.experiment == job.experiment and parent.until < job.until


@pytest.mark.parametrize("tuner", ["random", "bayesian", "hyperband"])
def test_the_recipe_itself_is_trained_to_its_end_once(tuner: str, tmp_path: Path) -> None:
    found = tune(search(tuner, 5), tmp_path / "s", runner=quick, say=silent)
    start = SPACE.point(EXPERIMENT)
    assert start
    rows = [row for row in found.rows if start.items() <= row.items()]
    assert rows == [found.recipe] and rows[0]["epochs"] == EXPERIMENT.schedule.epochs
    assert found.best and found.best["score"] >= rows[0]["score"]


def test_of_equally_accurate_trials_the_surer_one_is_better() -> None:
    targets = np.eye(10)[:3]
    for smoothing in (0.0, 0.1):
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
        perfect = targets * (1 - smoothing) + smoothing / 10
        assert float(loss(targets, perfect)) == pytest.approx(minimum_loss(smoothing, 10), abs=1e-6)


@pytest.mark.slow
def test_memory_after_a_hundred_trials_is_as_after_five(tmp_path: Path) -> None:
    sizes: list[int] = []

    def weigh(job: Job, alive: Any) -> Outcome:
        sizes.append(_resident(os.getpid()))
        return quick(job)

    tune(search("random", 101), tmp_path / "s", runner=weigh, say=silent)
    assert len(sizes) == 101
    assert sizes[100] - sizes[5] < 6e6


@pytest.mark.slow
def test_a_hundred_processes_leave_no_more_behind_than_five(tmp_path: Path) -> None:
    nothing = load_experiment("digits-resnet8", {"data.source": f"folder:{tmp_path}/none"})
    held: list[tuple[int, int, int]] = []
    for _ in range(101):
        outcome = run_sandboxed(Job(nothing, tmp_path / "trial", until=1), lambda: None)
        assert "none" in outcome.failure  # it ran, and found no images
        server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        files = len(os.listdir("/proc/self/fd"))
        held.append((_resident(os.getpid()), _resident(server), files))
    (ours, servers, files), (ours_later, servers_later, files_later) = held[5], held[100]
    assert ours_later - ours < 6e6 and servers_later - servers < 6e6
    assert files_later == files


def _resident(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("width", [80, 200])
def test_the_live_table_tells_of_each_trial_on_any_terminal(width: int, tmp_path: Path) -> None:
    def mixed(job: Job, alive: Any) -> Outcome:
        kind = job.folder.name
        if kind.endswith("1"):
            return _fails(job, alive)
        if kind.endswith("2"):
            write_outcome(job.folder, Outcome(score=-0.25))
            return Outcome(score=-0.25)
        return quick(job, alive)

    oracle = make_oracle(
        "random", SPACE, objective="val_accuracy", trials=4, epochs=9, failures=3, seed=1
    )
    oracle.verbose = 0
    plan = Plan(EXPERIMENT, SPACE, tmp_path / "s")
    ExperimentTuner(oracle, plan, mixed, heartbeat=60.0).search()
    console = Console(file=io.StringIO(), width=width)
    console.print(SearchTable(oracle, plan, already=0))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    rows = {line.split()[0]: line for line in lines if line.strip()[:1].isdigit()}
    best = max(t.score for t in oracle.trials.values() if t.score)
    assert "completed" in rows["0"] and f"{oracle.trials['0'].score:.4f}" in rows["0"]
    assert "failed" in rows["1"] and "no luck" in rows["1"]
    assert "25% over budget" in rows["2"]
    assert f"4 of 4 trials, 1 failed, best {best:.4f}" in rows["4"]


# --- Kills ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuner", ["random", "grid", "hyperband"])
def test_a_killed_search_goes_on_and_counts_every_trial_once(tuner: str, tmp_path: Path) -> None:
    wanted, out = search(tuner, 8), tmp_path / "s"
    for trials, seconds in ((1, 0.1), (2, 0.25), (4, 0.0)):
        process = start(run_search, wanted, out)
        while len(list(out.glob("trial_*/outcome.json"))) < trials:
            assert process.is_alive()
            time.sleep(0.002)
        time.sleep(seconds)
        process.kill()
        process.join()
    found = tune(wanted, out, runner=quick, say=silent)
    oracle = json.loads((out / "oracle.json").read_text())
    names = [row["trial"] for row in found.rows]
    assert sorted(oracle["end_order"]) == sorted(oracle["start_order"]) == sorted(names)
    assert len(set(names)) == len(names)
    expected = trial_count(
        make_oracle(tuner, SPACE, objective="val_accuracy", trials=8, epochs=9, failures=3, seed=1)
    )
    assert len(names) == expected
    assert names == oracle["start_order"]
    assert {row["status"] for row in found.rows} == {"completed"}
    points = {tuple(v for k, v in row.items() if "." in k) for row in found.rows}
    assert tuner == "hyperband" or len(points) == len(names)
    # The search is over: once more runs nothing.
    ran = (out / "ran.jsonl").read_text()
    tune(wanted, out, runner=quick, say=silent)
    assert (out / "ran.jsonl").read_text() == ran


@pytest.mark.slow
def test_a_killed_search_takes_up_the_trial_that_ran(tmp_path: Path) -> None:
    tiny = load_experiment("digits-resnet8", TINY)
    wanted, out = Search(tiny, SPACE, "random", trials=1), tmp_path / "s"
    process = start(run_real_search, wanted, out)
    begun = out / "trial_0" / "run" / "log.csv"
    while not begun.is_file():
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    found = tune(wanted, out, say=silent)
    assert [(row["status"], row["epochs"]) for row in found.rows] == [("completed", 3)]
    events = [json.loads(line)["event"] for line in (begun.parent / "events.jsonl").open()]
    assert events.count("begun") == 1 and "resumed" in events


def test_a_trial_known_only_to_its_file_is_given_again(tmp_path: Path) -> None:
    """A kill between KerasTuner's two writes; it would count the trial as running for ever."""
    wanted, out = search("random", 6), tmp_path / "s"
    tune(search("random", 6), out, runner=quick, say=silent)
    oracle = json.loads((out / "oracle.json").read_text())
    for order in ("start_order", "end_order"):
        oracle[order].remove("5")
    (out / "oracle.json").write_text(json.dumps(oracle))
    trial = json.loads((out / "trial_5" / "trial.json").read_text())
    (out / "trial_5" / "trial.json").write_text(json.dumps(trial | {"status": "RUNNING"}))
    found = tune(wanted, out, runner=quick, say=silent)
    assert [row["status"] for row in found.rows] == ["completed"] * 6


# --- Chief and workers ------------------------------------------------------------------------


def _free() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Address("127.0.0.1", server.getsockname()[1])


def test_a_search_completes_though_one_of_its_workers_is_killed(tmp_path: Path) -> None:
    wanted, out, address = search("random", 12, lease=1.0), tmp_path / "s", _free()
    chief = start(run_search, wanted, out, address)
    while not (out / "oracle.json").is_file():
        assert chief.is_alive()
        time.sleep(0.05)
    workers = [start(run_worker, out, address) for _ in range(2)]
    while not _running(out, 2):
        assert chief.is_alive()
        time.sleep(0.01)
    workers[0].kill()
    chief.join()
    workers[1].join()
    assert (chief.exitcode, workers[1].exitcode) == (0, 0)
    with (out / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["completed"] * 12
    assert len({row["trial"] for row in rows}) == 12
    assert (out / "best.yaml").is_file()


def _running(out: Path, count: int) -> bool:
    return len(json.loads((out / "oracle.json").read_text())["ongoing_trials"]) >= count


def test_a_worker_without_a_chief_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("training.tuning.tuner.CONNECT_SECONDS", 0.3)
    with pytest.raises(ValueError, match=r"No oracle answers at 127\.0\.0\.1"):
        work(tmp_path, _free(), runner=quick)


def test_a_chief_refuses_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        with pytest.raises(ValueError, match="Cannot listen at"):
            tune(search("random"), tmp_path / "s", chief=address, runner=quick, say=silent)


# --- Failures ---------------------------------------------------------------------------------


def _fails(job: Job, alive: Any) -> Outcome:
    job.folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(failure=f"no luck with {job.folder.name}")
    write_outcome(job.folder, outcome)
    return outcome


def test_failed_trials_are_marked_and_the_search_goes_on(tmp_path: Path) -> None:
    def some(job: Job, alive: Any) -> Outcome:
        return _fails(job, alive) if int(job.folder.name[-1]) % 2 else quick(job)

    found = tune(search("random", 9), tmp_path / "s", runner=some, say=silent)
    failed = [row for row in found.rows if row["status"] == "failed"]
    assert len(failed) == 4 and len(found.rows) == 9
    assert failed[0]["failure"] == "no luck with trial_1"
    assert "no luck with trial_1" in (found.folder / "report.html").read_text()


def test_too_many_failures_end_the_search_with_the_last_error(tmp_path: Path) -> None:
    with pytest.raises(
        TooManyFailures, match=r"3 consecutive trials failed.* no luck with trial_2$"
    ):
        tune(search("random", 9), tmp_path / "s", runner=_fails, say=silent)
    found = tune(search("random", 9), tmp_path / "s", runner=quick, say=silent)
    assert [row["status"] for row in found.rows] == ["failed"] * 3 + ["completed"] * 6


def test_folders_that_will_not_do_are_refused(tmp_path: Path) -> None:
    tune(search("random", 2), tmp_path / "s", runner=quick, say=silent)
    with pytest.raises(ValueError, match="its trials is 2, not 3"):
        tune(search("random", 3), tmp_path / "s", runner=quick, say=silent)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds something else"):
        tune(search("random", 3), tmp_path / "other", runner=quick, say=silent)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        tune(search("random", 3), tmp_path / "file" / "s", runner=quick, say=silent)


# --- Budgets ----------------------------------------------------------------------------------


def test_a_network_over_the_budget_is_not_trained(tmp_path: Path) -> None:
    measured: list[Any] = []

    def measure(model: Any, images: Any) -> dict[str, float]:
        measured.append(model)
        return {"size_mb": 3.0, "latency_ms": 1.0}

    experiment = load_experiment("digits-resnet8", TINY)
    job = Job(experiment, tmp_path, 1, None, Budget(max_size_mb=2.0), measure, tmp_path / "costs")
    outcome = run_in_process(job)
    assert outcome.score == -0.5 and not job.run.exists()
    other = {"optimizer.learning_rate": 0.01, "model.stochastic_depth": 0.1}
    same = load_experiment("digits-resnet8", TINY | other)
    assert cost_of(same, measure, tmp_path / "costs") == {"size_mb": 3.0, "latency_ms": 1.0}
    assert len(measured) == 1  # a cost does not depend on what is learned
    cost_of(load_experiment("digits-resnet8", TINY | {"model.size": 40}), measure, job.costs)
    assert len(measured) == 2
    for damaged in (
        "",
        "[]",
        '{"cost": {"size_mb": 1}}',
        '{"cost": {"size_mb": NaN, "latency_ms": 1}}',
    ):
        for path in (tmp_path / "costs").iterdir():
            path.write_text(damaged)
        assert cost_of(same, measure, tmp_path / "costs") == {"size_mb": 3.0, "latency_ms": 1.0}
    assert len(measured) == 6


@pytest.mark.parametrize(
    "text", ["", "[]", '{"score": "high"}', '{"score": NaN}', '{"figures": 3}', '{"luck": 1}']
)
def test_a_damaged_result_of_a_trial_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text(text)
    with pytest.raises(ValueError, match=r"outcome\.json is not the result of a trial: ") as error:
        read_outcome(tmp_path)
    assert "\n" not in str(error.value)


def test_the_pareto_front_is_what_no_other_beats() -> None:
    def row(name: str, accuracy: float, size: float, latency: float) -> dict[str, Any]:
        return {"n": name, "val_accuracy": accuracy, "size_mb": size, "latency_ms": latency}

    rows = [
        row("best", 0.9, 3, 3),
        row("beaten", 0.8, 3, 3),
        row("small", 0.7, 1, 2),
        row("quick", 0.7, 2, 1),
        row("same", 0.7, 2, 1),
        row("bad", 0.1, 2, 2),
    ]
    assert [r["n"] for r in pareto_front(rows)] == ["best", "small", "quick"]


# --- Real trials ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trial_apart_continues_another_and_is_the_same_run(tmp_path: Path) -> None:
    experiment = load_experiment("digits-resnet8", TINY)
    first = Job(experiment, tmp_path / "a", until=1)
    then = Job(experiment, tmp_path / "b", until=3, parent=first.run)
    assert run_sandboxed(first, lambda: None).figures["epochs"] == 1
    outcome = run_sandboxed(then, lambda: None)
    assert outcome.figures["epochs"] == 3 and outcome.score is not None
    loss = outcome.figures["val_loss"] - minimum_loss(experiment.optimizer.label_smoothing, 10)
    assert outcome.score == outcome.figures["val_accuracy"] - 1e-6 * loss / (1 + loss)
    whole = Job(experiment, tmp_path / "c", until=3)
    assert run_sandboxed(whole, lambda: None).score == outcome.score
    assert (whole.run / "log.csv").read_bytes() == (then.run / "log.csv").read_bytes()


def test_what_ends_a_trial_is_told(tmp_path: Path) -> None:
    diverging = load_experiment("digits-resnet8", TINY | {"optimizer.learning_rate": 100.0})
    outcome = run_sandboxed(Job(diverging, tmp_path / "a", until=3), lambda: None)
    assert outcome.score is None and "Lower optimizer.learning_rate" in outcome.failure
    late = Job(load_experiment("digits-resnet8"), tmp_path / "b", until=20, timeout=0.5)
    assert "longer than 0.5 seconds" in run_sandboxed(late, lambda: None).failure


def test_a_trial_that_is_killed_is_told(tmp_path: Path) -> None:
    job = Job(load_experiment("digits-resnet8"), tmp_path / "a", until=20)

    def kill() -> None:
        import multiprocessing

        for child in multiprocessing.active_children():
            if child.name != "keep":
                child.kill()

    assert run_sandboxed(job, kill).failure == "killed by SIGKILL (out of memory?)"


def test_the_hypermodel_serves_any_keras_tuner_code(tmp_path: Path) -> None:
    experiment = load_experiment("digits-resnet8", TINY)
    tuner = kt.RandomSearch(
        ResNetHyperModel(experiment, SPACE),
        objective="val_accuracy",
        max_trials=1,
        directory=str(tmp_path),
    )
    tuner.search(epochs=1, verbose=0)
    [best] = tuner.get_best_models()
    assert best.contract.labels == tuple("0123456789")
    assert set(SPACE.keys) <= set(tuner.get_best_hyperparameters()[0].values)

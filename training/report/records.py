"""The JSON files of a run folder, checked before anything is drawn from them.

Each file has the shape that its command writes. A file of another shape is damaged, or of another
version of this program: it is refused in one line that names the file, what is wrong, and the
command that writes it again.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from keras_resnet.contract import TASKS, Contract
from keras_resnet.text import printable, shorten
from training.run import Run, parse_json
from training.shapes import (
    Check,
    array,
    count,
    image_url,
    mapping,
    maybe,
    number,
    record,
    text,
    truth,
)

ROUNDING = 1e-3  # by which a float may leave its range
SHARE = number(-ROUNDING, 1 + ROUNDING)
PERCENT = number(-ROUNDING, 100 + ROUNDING)
POINTS = number(-100 - ROUNDING, 100 + ROUNDING)
MILLISECONDS = number(1e-6, 1e9)  # charts divide by it, and take its logarithm
BYTES = count(1)

# A loss may be any finite number. What was not finite, training left out.
FIGURES = dict.fromkeys(
    ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"), number(-1e30, 1e30)
)
LOG_ROW = record({"epoch": count(1)}, FIGURES)
METRICS = record(
    {
        "epochs": count(),
        "history": array(record({"epoch": count(1), "seconds": number(0)}, FIGURES)),
    }
)


def _gpu(value: Any, where: str) -> None:
    """A name; earlier versions wrote TensorFlow's details of the device."""
    if not isinstance(value, dict):
        text(value, where)


RUN = record(
    {},
    {
        "environment": record(
            {},
            {
                "versions": mapping(text),
                "cpu": maybe(text),
                "gpus": maybe(array(_gpu)),
                "platform": maybe(text),
                "git": maybe(record({}, {"commit": maybe(text)})),
            },
        )
    },
)
SIDE = count(1, 1 << 12)  # pixels
CONTRACT = record(
    {"height": maybe(SIDE), "width": maybe(SIDE), "channels": count(1, 1 << 12)},
    {"mean": array(number()), "std": array(number()), "labels": array(text)},
)
ESTIMATE = record({"value": SHARE, "images": count(1), "low": SHARE, "high": SHARE})
NO_ESTIMATE = record({"images": count(0, 0)})


def _class_estimate(value: Any, where: str) -> None:
    """An estimate, or one of no images, which has no value."""
    try:
        NO_ESTIMATE(value, where)
    except ValueError:
        ESTIMATE(value, where)


def _task(value: Any, where: str) -> None:
    if value not in TASKS:
        raise ValueError(f"{where} must be one of {', '.join(TASKS)}, and is {value!r:.40}")


POINT = array(SHARE, 2, 2)
# The optional parts are those that earlier versions did not write.
EVALUATION = record(
    {
        "top1": ESTIMATE,
        "top5": maybe(ESTIMATE),
        "classes": array(
            record(
                {"label": text, "precision": _class_estimate, "recall": _class_estimate},
                {
                    "training_images": maybe(count()),
                    **dict.fromkeys(("f1", "average_precision", "threshold"), maybe(SHARE)),
                },
            ),
            1,
        ),
        "confusion": maybe(array(array(count()))),
        "hardest": array(
            record(
                {"index": count(), "label": text, "predicted": text, "probability": SHARE},
                {"file": maybe(text)},
            )
        ),
    },
    {
        "mistakes": array(array(count(), 3, 3)),
        "task": _task,
        "cross_fitted": truth,
        "without_duplicates": maybe(_class_estimate),
        "binary": maybe(
            record(
                {
                    "positive": text,
                    "threshold": SHARE,
                    **dict.fromkeys(("f1", "roc_auc", "average_precision"), maybe(SHARE)),
                    "roc": array(POINT),
                    "precision_recall": array(POINT),
                }
            )
        ),
        "multi": maybe(
            record(
                {
                    "mean_average_precision": maybe(SHARE),
                    "mean_f1": maybe(SHARE),
                    "right_decisions": SHARE,
                }
            )
        ),
    },
)
VERIFY = record(
    {
        "images": count(1),
        "kinds": array(
            record(
                {
                    "kind": text,
                    "keras_top1": PERCENT,
                    "file_top1": PERCENT,
                    "difference": POINTS,
                    "interval": array(POINTS, 2, 2),
                    "agreement": PERCENT,
                    "max_difference": maybe(SHARE),
                    "bytes": BYTES,
                    "broken": array(text),
                },
                {
                    "worst_classes": array(
                        record(
                            {
                                "label": text,
                                "images": count(1),
                                "keras_recall": PERCENT,
                                "file_recall": PERCENT,
                            }
                        )
                    ),
                    "changed": array(
                        record(
                            {
                                "index": count(),
                                "label": text,
                                "keras": text,
                                "file": text,
                                "keras_confidence": SHARE,
                                "file_confidence": maybe(SHARE),
                                "picture": maybe(image_url),
                            }
                        )
                    ),
                },
            )
        ),
    }
)
LATENCY_FIELDS: dict[str, Check] = {
    "kind": text,
    "threads": count(1, 4096),
    "median_ms": MILLISECONDS,
    "bytes": BYTES,
}
LATENCY_OPTIONS: dict[str, Check] = {
    **dict.fromkeys(("p95_ms", "p99_ms", "first_ms", "load_ms"), maybe(MILLISECONDS)),
    "memory_bytes": maybe(count()),
    "device": text,
    "runtime": text,
    "load_average": maybe(number(0)),
}
BENCHMARK = array(record(LATENCY_FIELDS | {"p90_ms": MILLISECONDS}, LATENCY_OPTIONS))
OPERATION = record(
    {"operation": text, "count": count(), "milliseconds": number(0, 1e9), "percent": PERCENT}
)
BENCHMARK_BINARY = array(
    record(
        LATENCY_FIELDS,
        LATENCY_OPTIONS | {"p90_ms": maybe(MILLISECONDS), "operations": array(OPERATION)},
    )
)
INSPECT = mapping(
    record(
        {
            "bytes": BYTES,
            "weight_bytes": count(),
            "arena_bytes": count(),
            "multiply_adds": count(),
            "operations": mapping(count()),
            "lint": array(
                record({"rule": text, "message": text, "mend": maybe(text), "layers": array(text)})
            ),
            "preflight": array(
                record(
                    {
                        "runtime": text,
                        "loads": maybe(truth),
                        "because": text,
                        "measured": truth,
                        "source": text,
                    }
                )
            ),
        }
    )
)
LAYERS = record(
    {
        "images": count(1),
        "layers": array(record({"layer": text, "signal_to_noise_db": maybe(number(-1e4, 1e4))})),
    }
)
MIXED = record(
    {
        "chosen": count(),
        "points": array(
            record(
                {
                    "blocks": array(text),
                    "shift": number(0, 1e6),
                    "drop": PERCENT,
                    "bytes": BYTES,
                    "latency": number(0, 1e9),
                }
            ),
            1,
        ),
    }
)


def _evaluation(value: Any, where: str) -> None:
    EVALUATION(value, where)
    size = len(value["classes"])
    maybe(array(array(count(), size, size), size, size))(value["confusion"], "confusion")
    for number_, (true, predicted, _) in enumerate(value.get("mistakes", ())):
        for class_ in (true, predicted):
            count(0, size - 1)(class_, f"mistakes[{number_}]")
    task = value.get("task", "single")
    if task != "single" and not value.get(task):
        raise ValueError(f"its task is {task!r}, and it has no {task!r}")
    if task == "binary":
        array(record({}), 2, 2)(value["classes"], "classes")


def _mixed(value: Any, where: str) -> None:
    MIXED(value, where)
    count(0, len(value["points"]) - 1)(value["chosen"], "chosen")


def _contract(value: Any, where: str) -> None:
    CONTRACT(value, where)
    try:
        Contract.from_dict(value)
    except (TypeError, ValueError) as error:
        raise ValueError(shorten(str(error), 200)) from None


TRAIN = "keras-resnet train --recipe {run}/experiment.yaml --out {run}"
# What each file has to be, and what to do where it is not.
FILES: dict[str, tuple[Check, str]] = {
    "metrics.json": (METRICS, f"Delete it, and make it again from the last checkpoint: {TRAIN}"),
    "run.json": (RUN, "Delete it, and the report leaves that part out"),
    "contract.json": (_contract, "Delete it: model.keras holds the same contract"),
    "evaluation.json": (_evaluation, "Make it again: keras-resnet evaluate {model}"),
    "tflite/verify.json": (VERIFY, "Make it again: keras-resnet verify {model}"),
    "tflite/benchmark.json": (BENCHMARK, "Make it again: keras-resnet benchmark {model}"),
    "tflite/benchmark_program.json": (
        BENCHMARK_BINARY,
        "Make it again: keras-resnet benchmark {model} --benchmark-binary FILE",
    ),
    "tflite/benchmark_phone.json": (
        BENCHMARK_BINARY,
        "Make it again: keras-resnet benchmark {model} --adb --benchmark-binary FILE",
    ),
    "tflite/inspect.json": (INSPECT, "Make it again: keras-resnet report {model}"),
    "tflite/model_mixed.json": (
        _mixed,
        "Make it again: keras-resnet convert {model} --kinds mixed",
    ),
}
LAYERS_PREFIX = "tflite/layers_"


@dataclass
class Records:
    """What the files of a run folder hold, as far as they are sound.

    Attributes:
        run: The run folder.
        damaged: One line for each file that was left out.
    """

    run: Run
    damaged: list[str] = field(default_factory=list)

    def read(self, name: str) -> Any:
        """The content of a file; ``None`` where it is missing, or damaged, which is kept."""
        try:
            return read_record(self.run, name)
        except ValueError as error:
            self.damaged.append(printable(str(error)))
            return None

    def layers(self) -> dict[str, Any]:
        """The layer errors of each kind that has some."""
        paths = sorted(self.run.tflite.glob("layers_*.json"))
        kinds = [path.stem.removeprefix("layers_") for path in paths]
        found = {kind: self.read(f"{LAYERS_PREFIX}{kind}.json") for kind in kinds}
        return {kind: layers for kind, layers in found.items() if layers}


def read_record(run: Run, name: str) -> Any:
    """The content of a file of the run folder, or ``None`` where it is missing.

    Raises:
        ValueError: The file is damaged or cannot be read.
    """
    path = run.folder / name
    shape, remedy = _known(name)
    try:
        value = parse_json(path.read_bytes())
        shape(value, "")
        return value
    except FileNotFoundError:
        return None
    except OSError as error:  # the file may be whole: no reason to make it again
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        reason = f"is damaged: {error}"
    raise ValueError(f"{path} {reason}. {_filled(remedy, run)}")


def read_log(run: Run) -> tuple[dict[str, float], ...]:
    """The rows of ``log.jsonl``, one an epoch; none where it is missing.

    Raises:
        ValueError: It is damaged or cannot be read.
    """
    path = run.folder / "log.jsonl"
    try:
        return tuple(_rows(path.read_bytes()))
    except FileNotFoundError:
        return ()
    except OSError as error:  # the file may be whole: no reason to make it again
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        reason = f"is damaged: {error}"
    remedy = f"Delete it and metrics.json, and make them again from the last checkpoint: {TRAIN}"
    raise ValueError(f"{path} {reason}. {_filled(remedy, run)}")


def run_argument(run: Run) -> str:
    """What names the run on a command line: its folder, or its model where it is another one."""
    return shlex.quote(str(run.folder if run == Run(run.folder) else run.model_file))


def _rows(content: bytes) -> Iterator[dict[str, float]]:
    for number_, line in enumerate(content.splitlines(), 1):
        try:
            row = parse_json(line)
            LOG_ROW(row, "")
        except ValueError as error:
            raise ValueError(f"line {number_}: {error}") from None
        yield row


def _known(name: str) -> tuple[Check, str]:
    if name.startswith(LAYERS_PREFIX):
        kind = name.removeprefix(LAYERS_PREFIX).removesuffix(".json")
        remedy = f"Make it again: keras-resnet layers {{model}} --kind {shlex.quote(kind)}"
        return LAYERS, remedy
    return FILES[name]


def _filled(remedy: str, run: Run) -> str:
    folder = shlex.quote(str(run.folder))
    return remedy.replace("{run}", folder).replace("{model}", run_argument(run))

"""Trains a small network on digits as its arguments say; prints a JSON object a run.

    python devices_script.py FOLDER CASE ...

A case is JSON: {"name": ..., "keys": {...}, "clip": norm, "kill": step}.

Under TensorFlow two logical CPUs are made; under JAX, XLA_FLAGS makes them.
"""

import json
import os
import signal
import sys
from pathlib import Path

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import training.task
import training.train
from keras_resnet.classifier import ImageClassifier
from keras_resnet.layers import BatchNormalization
from training.experiment_file import load_experiment
from training.train import train

BASE = {
    "schedule.epochs": 2,
    "schedule.warmup_epochs": 0,
    "runtime.batch_size": 240,  # 5 steps an epoch
    "optimizer.learning_rate": 0.05,
    "optimizer.ema_momentum": 0.9,
}


def tiny(experiment, contract):
    norms = {
        "batch": lambda: BatchNormalization(),
        "sync_batch": lambda: BatchNormalization(synchronized=True),
        "group": lambda: keras.layers.GroupNormalization(groups=2),
    }
    norm = norms[training.task.backend_norm(experiment.model.norm)]
    x = inputs = keras.Input((32, 32, 1))
    x = keras.layers.Rescaling(1 / 255)(x)
    for _ in range(2):
        x = keras.layers.Conv2D(8, 3, strides=4, use_bias=False)(x)
        x = keras.layers.ReLU()(norm()(x))
    outputs = keras.layers.Dense(10, activation="softmax", dtype="float32")(
        keras.layers.Flatten()(x)
    )
    model = ImageClassifier(inputs, outputs)
    model.contract = contract
    return model


def run(folder: Path, case: dict) -> dict:
    losses: list[float] = []
    check, make = training.train._check_loss, training.task.make_optimizer

    def checked(task, progress, loss):
        if loss is not None:
            losses.append(float(loss))
            if len(losses) == case.get("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
        check(task, progress, loss)

    def clipping(*arguments):
        optimizer = make(*arguments)
        optimizer.global_clipnorm = case.get("clip")
        return optimizer

    training.train._check_loss, training.task.make_optimizer = checked, clipping
    said: list[str] = []
    try:
        experiment = load_experiment("digits-resnet8", BASE | case.get("keys", {}))
        train(experiment, folder / case["name"], said.append, verbose=0)
    except ValueError as error:
        said.append(str(error))
    finally:
        training.train._check_loss, training.task.make_optimizer = check, make
    return {"losses": losses, "said": said}


if __name__ == "__main__":
    training.task.make_model = tiny
    for text in sys.argv[2:]:
        print(json.dumps(run(Path(sys.argv[1]), json.loads(text))), flush=True)

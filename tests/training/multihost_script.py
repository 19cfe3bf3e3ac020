"""``keras-resnet`` on JAX in processes that can be killed, with everything imported once for all.

Takes a JSON object a line: {"argv": [...], "output": file, "env": {...}} starts the command and
is answered with its process; {"end": process, "timeout": seconds} waits for it and is answered
with its exit code. What the environment may ask of a command besides:

    READ=FILE        where to leave what it read: for each batch the sum of each of its images
    KILL=STEP        ends it by SIGKILL after so many steps
    SECONDS=A,B,C    how long machines wait for each other
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax.experimental.multihost_utils  # noqa: F401
import keras
import numpy as np
import sklearn.datasets  # noqa: F401
from devices_script import tiny

import training.evaluate
import training.multihost
import training.steps.on_jax
import training.task
import training.train
from keras_resnet import cli

training.task.make_model = tiny


def start(order: dict) -> int:
    process = os.fork()
    if process:
        return process
    os.setpgid(0, 0)
    file = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.stdin.close()
    os.environ.update(order.get("env", {}))
    disturb()
    sys.argv = ["keras-resnet", *order["argv"]]
    cli.main()
    sys.exit(0)


def disturb() -> None:
    if seconds := os.environ.get("SECONDS"):
        names = ("CONNECT_SECONDS", "HEARTBEAT_SECONDS", "SHUTDOWN_SECONDS")
        for name, value in zip(names, seconds.split(",")):
            setattr(training.multihost, name, int(value))
    make = training.steps.on_jax.train_step
    read: list[np.ndarray] = []

    def train_step(task, spec):
        step = make(task, spec)

        def stepped(images, labels):
            figures = step(images, labels)
            read.append(np.asarray(images, "int64").sum((1, 2, 3)))
            if len(read) == int(os.environ.get("KILL", "0")):
                float(figures["loss"])
                os.kill(os.getpid(), signal.SIGKILL)
            return figures

        return stepped

    def write_results(*arguments):
        if path := os.environ.get("READ"):
            np.save(path, np.stack(read))
        finish(*arguments)

    finish = training.train.write_results
    training.steps.on_jax.train_step = train_step
    training.train.write_results = write_results


def end(process: int, timeout: float) -> int | None:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


if __name__ == "__main__":
    assert keras.backend.backend() == "jax"
    sys.path.insert(0, str(Path(__file__).parent))
    for line in sys.stdin:
        order = json.loads(line)
        answer = end(order["end"], order["timeout"]) if "end" in order else start(order)
        print(json.dumps(answer), flush=True)

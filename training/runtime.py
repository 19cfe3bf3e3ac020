"""What this machine has, and what is chosen for it."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from training.config import RuntimeConfig


@dataclass(frozen=True)
class Runtime:
    """The choices made, each with its reason, for people to read.

    Attributes:
        precision: A Keras dtype policy.
        jit_compile: Whether XLA compiles the training step.
        reasons: One line a choice.
    """

    precision: str
    jit_compile: bool
    reasons: tuple[str, ...]


def prepare(config: RuntimeConfig) -> Runtime:
    """Sets seeds and precision for this process, and says what was chosen and why."""
    gpus = tf.config.list_physical_devices("GPU")
    precision, precision_reason = _precision(config, gpus)
    jit, jit_reason = _jit(config, bool(gpus))
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(precision)
    return Runtime(
        precision,
        jit,
        (f"precision {precision}: {precision_reason}", f"XLA {_on(jit)}: {jit_reason}"),
    )


def _precision(config: RuntimeConfig, gpus: list) -> tuple[str, str]:
    if config.precision != "auto":
        return config.precision, "as asked"
    if not gpus:
        return "float32", "no GPU; half precision gains little on a CPU and costs accuracy"
    major, _ = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    if major >= 8:
        return "mixed_bfloat16", "the GPU computes in bfloat16"
    return "mixed_float16", "the GPU has no bfloat16"


def _jit(config: RuntimeConfig, gpu: bool) -> tuple[bool, str]:
    if config.jit_compile != "auto":
        return config.jit_compile == "on", "as asked"
    if gpu:
        return True, "fuses elementwise operations on the GPU"
    return False, "measured a quarter slower on a CPU"


def _on(value: bool) -> str:
    return "on" if value else "off"

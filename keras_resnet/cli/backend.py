"""Starts Keras for the command: chooses the backend and ignores ``keras.json``."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from keras_resnet.console import say
from keras_resnet.native_stderr import suppressed_native_stderr

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX"}
# Environment variables besides the backend that Keras reads and that would change a training.
KERAS_SETTINGS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")


def set_environment() -> None:
    """Makes Keras ignore the user's ``keras.json``, in child processes too.

    Only ``--backend`` and ``KERAS_BACKEND`` choose the backend. To be called before Keras is
    imported.
    """
    # No keras.json can exist there: Keras then uses its own defaults, and writes none.
    os.environ["KERAS_HOME"] = os.devnull
    for name in KERAS_SETTINGS:
        os.environ.pop(name, None)
    os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"
    # Before TensorFlow is imported: it logs its start on stderr.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def start_keras(backend: str | None = None) -> None:
    """Imports Keras and its backend, and sets Keras's global settings to its defaults.

    Takes seconds the first time. Arguments that need no Keras are checked before.

    Args:
        backend: ``"tensorflow"`` or ``"jax"``; ``KERAS_BACKEND`` or TensorFlow by default.

    Raises:
        ValueError: The backend is unknown or not installed.
    """
    os.environ["KERAS_BACKEND"] = name = backend or os.environ.get("KERAS_BACKEND") or "tensorflow"
    _check_installed(name)
    if "keras" not in sys.modules:
        say(f"starting {NAMES[name]} …")
        # TensorFlow writes to stderr from C++ before its settings are read. Keras imports it as
        # its backend, and training to read images, with JAX too.
        with _interruptible(), suppressed_native_stderr():
            import keras

            if name == "jax":
                import training.data.pipeline  # noqa: F401
    import keras

    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")


def require_tensorflow(action: str) -> None:
    """Raises ValueError if ``KERAS_BACKEND`` is another backend, which cannot do the action."""
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name != "tensorflow":
        raise ValueError(
            f"{action} needs TensorFlow; a model trained on any backend loads in it. Unset "
            f"KERAS_BACKEND, or set it to tensorflow. Received: KERAS_BACKEND={name}"
        )


def _check_installed(name: str) -> None:
    if name not in NAMES:
        raise ValueError(
            "This command runs on TensorFlow or JAX; models trained on any Keras backend load in "
            f"both. Set KERAS_BACKEND to tensorflow or jax. Received: KERAS_BACKEND={name}"
        )
    # TensorFlow reads the images for JAX too.
    for module in dict.fromkeys(("tensorflow", name)):
        if importlib.util.find_spec(module) is None:
            package = "'keras-resnet[jax]'" if module == "jax" else module
            raise ValueError(f"{NAMES[module]} is not installed: pip install {package}")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C exits at once: an import that is interrupted may catch KeyboardInterrupt."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    stderr = os.dup(2)

    def stop(number: int, frame: FrameType | None) -> Any:
        with contextlib.suppress(OSError):
            os.write(stderr, b"keras-resnet: stopped\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(stderr)

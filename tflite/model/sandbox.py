"""Tries a .tflite file in a subprocess, because a bad one can crash the process that runs it.

The runtimes are C++: they verify a file's structure, but not that its numbers make sense, so
that a damaged or hostile file may end in a crash, an endless loop or all memory used. The
subprocess starts in half a second: it imports a runtime, and neither Keras nor TensorFlow.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_resnet.subprocess_call import Result, call_in_subprocess, is_of_machine

# Processor time for starting, and for loading and running the model.
START_SECONDS = 60
BYTES_PER_SECOND = 1_000_000
MICRO_ARENA = 1 << 28  # bytes

# Cache of ``ensure_sound``: digests of contents that the interpreter has survived, or that this
# process wrote itself.
_sound: set[str] = set()


def trust(data: bytes) -> None:
    """Tells ``ensure_sound`` that this process wrote a file of this content itself."""
    _sound.add(hashlib.sha256(data).hexdigest())


def ensure_sound(path: Path) -> None:
    """Tries a file in LiteRT's interpreter, once for each content.

    Raises:
        ValueError: The interpreter refuses the file or does not survive it; the message is the
            reason.
        SubprocessError: It could not be tried, for a reason that says nothing about the file.
    """
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest not in _sound:
        run_sandboxed(path, "litert")
        _sound.add(digest)


def run_sandboxed(path: Path, runtime: str) -> dict[str, Any]:
    """Loads a file in a runtime and runs it on a black image.

    Args:
        path: A .tflite file.
        runtime: ``"litert"``, ``"compiled_model"``, ``"mediapipe"`` or ``"micro"``.

    Returns:
        What the runtime reports about the model.

    Raises:
        ValueError: The runtime refuses the file, or does not survive it.
        ModuleNotFoundError: The runtime is not installed.
        ImportError: It is, but could not be imported here.
        SubprocessError: The file could not be tried, for a reason that says nothing about it.
    """
    result, _ = call_in_subprocess(
        run,
        [runtime, os.fspath(path)],
        START_SECONDS + path.stat().st_size / BYTES_PER_SECOND,
        "the runtime",
    )
    return result


def run(runtime: str, path: str) -> Result:
    """What the subprocess does."""
    _limit_memory()
    try:
        return RUNTIMES[runtime](path), {}
    except ImportError:
        raise
    except Exception as error:  # each runtime raises types of its own
        if is_of_machine(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(lines[0] if lines else type(error).__name__) from error


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _litert(path: str) -> dict[str, Any]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    interpreter.invoke()
    return _delegated(interpreter._get_ops_details())


def _delegated(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """How many nodes XNNPACK took over: those between the inputs and outputs of its own nodes."""
    plain = [op for op in operations if op["op_name"] != "DELEGATE"]
    producers = {int(out): i for i, op in enumerate(plain) for out in op["outputs"]}
    delegated: set[int] = set()
    parts = [op for op in operations if op["op_name"] == "DELEGATE"]
    for part in parts:
        inputs = {int(i) for i in part["inputs"]}
        pending = [int(out) for out in part["outputs"]]
        while pending:
            producer = producers.get(pending.pop())
            if producer is None or producer in delegated:
                continue
            delegated.add(producer)
            pending += [int(i) for i in plain[producer]["inputs"] if int(i) not in inputs]
    left = sorted({plain[i]["op_name"] for i in range(len(plain)) if i not in delegated})
    return {"nodes": len(plain), "delegated": len(delegated), "parts": len(parts), "left": left}


def _compiled_model(path: str) -> dict[str, Any]:
    import numpy as np
    from ai_edge_litert.compiled_model import CompiledModel

    model = CompiledModel.from_file(path)
    signature = next(iter(model.get_signature_list()))
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    for buffer, details in zip(inputs, model.get_input_tensor_details(signature).values()):
        buffer.write(np.zeros(details["shape"], details["dtype"]))
    model.run_by_index(0, inputs, outputs)
    return {"accelerated": bool(model.is_fully_accelerated())}


def _mediapipe(path: str) -> dict[str, Any]:
    import mediapipe
    import numpy as np
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=path))
    black = mediapipe.Image(mediapipe.ImageFormat.SRGB, np.zeros((32, 32, 3), "uint8"))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        (head,) = classifier.classify(black).classifications
        return {"labels": bool(head.categories[0].category_name)}


def _micro(path: str) -> dict[str, Any]:
    import numpy as np
    from tflite_micro import runtime

    # No microcontroller has more.
    interpreter = runtime.Interpreter.from_file(path, arena_size=MICRO_ARENA)
    details = interpreter.get_input_details(0)
    interpreter.set_input(np.zeros(details["shape"], details["dtype"]), 0)
    interpreter.invoke()
    return {}


RUNTIMES: dict[str, Callable[[str], dict[str, Any]]] = {
    "litert": _litert,
    "compiled_model": _compiled_model,
    "mediapipe": _mediapipe,
    "micro": _micro,
}

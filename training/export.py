"""A trained model to a SavedModel that runs without this package."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import tensorflow as tf

from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.files import atomic_write_folder
from training.data.decode import fit_image

# TensorFlow's folder for files that come with a SavedModel and are not read by it.
CONTRACT_FILE = Path("assets.extra") / "contract.json"
TOP = 5


class Serving(tf.Module):
    """What the SavedModel answers to.

    ``serve`` takes ``(batch, height, width, channels)`` raw pixels 0–255, float32 or uint8;
    ``serve_bytes`` takes ``(batch,)`` JPEG or PNG files as strings. Both return
    ``probabilities`` ``(batch, classes)``, ``top_labels`` and ``top_probabilities``
    ``(batch, 5)``, likeliest first; with fewer classes, as many as there are.
    """

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        contract = model.contract
        self.variables_ = [variable.value for variable in model.variables]
        self.labels = tf.constant(contract.labels or _numbers(model))
        top = min(TOP, model.output_shape[-1])

        def answer(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = model(tf.cast(pixels, "float32"), training=False)
            best, indices = tf.math.top_k(probabilities, top)
            return {
                "probabilities": probabilities,
                "top_labels": tf.gather(self.labels, indices),
                "top_probabilities": best,
            }

        def fit_and_answer(files: tf.Tensor) -> dict[str, tf.Tensor]:
            shape = (contract.height, contract.width, contract.channels)
            spec = tf.TensorSpec(shape, "uint8")
            return answer(
                tf.map_fn(lambda file: fit_image(file, contract), files, fn_output_signature=spec)
            )

        self.serve = tf.function(answer)
        self.serve_bytes = tf.function(fit_and_answer)


def export_saved_model(model: ImageClassifier, folder: Path) -> Path:
    """Writes a SavedModel with the signatures ``serve`` and ``serve_bytes``.

    The signature ``serve`` takes float32; the function ``serve`` of the loaded object takes
    uint8 as well.

    Args:
        model: A model with fixed height and width; in mixed precision it is rebuilt in
            float32.
        folder: Where to; an export that is there is replaced once the new one is whole.

    Raises:
        ValueError: The model takes any size, or other than 1 or 3 channels.
    """
    contract = model.contract
    if contract.height is None or contract.width is None or contract.color == "raw":
        raise ValueError(
            "A SavedModel takes pictures of one size, RGB or grayscale. Received a model of "
            f"height {contract.height}, width {contract.width}, {contract.channels} channels. "
            "Build it with a fixed input_shape, such as (224, 224, 3)"
        )
    serving = Serving(deployable(model))
    shape = (None, contract.height, contract.width, contract.channels)
    floats = serving.serve.get_concrete_function(tf.TensorSpec(shape, "float32", "images"))
    serving.serve.get_concrete_function(tf.TensorSpec(shape, "uint8", "images"))
    files = serving.serve_bytes.get_concrete_function(tf.TensorSpec((None,), "string", "files"))

    with atomic_write_folder(folder) as beside:
        tf.saved_model.save(
            serving, str(beside), signatures={"serve": floats, "serve_bytes": files}
        )
        _write_contract(contract.replace(normalization="inside"), beside / CONTRACT_FILE)
    return folder


def read_contract(folder: Path) -> Contract:
    """The contract that ``export_saved_model`` wrote beside the graph.

    Raises:
        ValueError: There is none.
    """
    path = folder / CONTRACT_FILE
    if not path.is_file():
        raise ValueError(f"{folder} was not exported by keras-resnet: it has no {CONTRACT_FILE}")
    return Contract.from_dict(json.loads(path.read_text("utf-8")))


def _write_contract(contract: Contract, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(contract.to_dict(), ensure_ascii=False), "utf-8")


def _numbers(model: keras.Model) -> list[str]:
    return [str(i) for i in range(model.output_shape[-1])]

"""Export to a SavedModel that runs without this package."""

from __future__ import annotations

import json
from pathlib import Path

import tensorflow as tf

from keras_resnet.classifier import ImageClassifier, require_probabilities
from keras_resnet.contract import DEFAULT_THRESHOLD, Contract
from keras_resnet.deployment import deployable
from keras_resnet.files import SAVED_MODEL_FILE, atomic_write_folder, check_replaceable
from training.data.decode import count_pixels, fit_image
from training.report.tensorboard import first_line
from training.runtime import require_backend

# Of a batch of files, so many are decoded at once; only one if any has more pixels than this.
AT_ONCE, LARGE = 10, 2**24
# TensorFlow's folder for additional files of a SavedModel, which it does not read.
CONTRACT_FILE = Path("assets.extra") / "contract.json"
TOP = 5


class Serving(tf.Module):
    """The functions of the SavedModel.

    ``serve`` takes ``(batch, height, width, channels)`` raw pixels 0–255, float32 or uint8;
    ``serve_bytes`` takes ``(batch,)`` JPEG or PNG files as strings, turns them upright by the
    contract's orientation and refuses other formats and pictures above the limits of
    ``keras_resnet.pictures``, which hold before a pixel is allocated. Both return
    ``probabilities`` ``(batch, outputs)``, as the model outputs them, and ``top_labels`` and
    ``top_probabilities`` ``(batch, 5)`` in order of probability, or all classes if there are fewer
    than five. The task (``contract.json``) says what they mean:

    ``single``  one probability a class; the first of ``top_labels`` is the prediction
    ``binary``  one output, the probability of the second label; ``top_labels`` has both labels
    ``multi``   a probability for each label

    ``binary`` and ``multi`` also return ``decisions``, bool ``(batch, outputs)``: whether a
    probability reaches the contract's threshold (0.5 without one), and so whether the image has
    that label (``binary``: the second one).
    """

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        contract = model.contract
        self.variables_ = [variable.value for variable in model.variables]
        self.labels = tf.constant(contract.labels or _numbers(model))
        top = min(TOP, len(self.labels))
        thresholds = tf.constant(contract.thresholds or (DEFAULT_THRESHOLD,))

        def predict(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = model(tf.cast(pixels, "float32"), training=False)
            of_classes = probabilities
            if contract.task == "binary":
                of_classes = tf.concat([1 - probabilities, probabilities], axis=1)
            best, indices = tf.math.top_k(of_classes, top)
            outputs = {
                "probabilities": probabilities,
                "top_labels": tf.gather(self.labels, indices),
                "top_probabilities": best,
            }
            if contract.task != "single":
                outputs["decisions"] = probabilities >= thresholds
            return outputs

        def decode_and_predict(files: tf.Tensor) -> dict[str, tf.Tensor]:
            shape = (contract.height, contract.width, contract.channels)
            spec = tf.TensorSpec(shape, "uint8")

            def decode(at_once: int) -> tf.Tensor:
                return tf.map_fn(
                    lambda file: fit_image(file, contract, by_pillow=False),
                    files,
                    parallel_iterations=at_once,
                    fn_output_signature=spec,
                )

            pixels = tf.map_fn(count_pixels, files, fn_output_signature="int64")
            large = tf.reduce_any(pixels > LARGE)
            return predict(tf.cond(large, lambda: decode(1), lambda: decode(AT_ONCE)))

        self.serve = tf.function(predict)
        self.serve_bytes = tf.function(decode_and_predict)


def export_saved_model(model: ImageClassifier, folder: Path) -> Path:
    """Writes a SavedModel with the signatures ``serve`` and ``serve_bytes``.

    The signature ``serve`` takes float32; the function ``serve`` of the loaded object takes
    uint8 as well.

    Args:
        model: A model with fixed height and width; a mixed-precision one is rebuilt in float32.
        folder: Target, new or empty; an earlier SavedModel is replaced once the new one is
            complete.

    Raises:
        ValueError: The model has no fixed size, not 1 or 3 channels or no probabilities as outputs,
            the folder holds something else, or Keras does not run on TensorFlow.
        OSError: The folder cannot be written; nothing of the new export is left.
    """
    require_backend("Exporting a SavedModel", "tensorflow")
    check_replaceable(folder, SAVED_MODEL_FILE, "a SavedModel")
    require_probabilities(model)
    contract = model.contract
    if contract.height is None or contract.width is None or contract.color == "raw":
        raise ValueError(
            "A SavedModel takes images of one size, RGB or grayscale. Received a model of "
            f"height {contract.height}, width {contract.width}, {contract.channels} channels. "
            "Build it with a fixed input_shape, such as (224, 224, 3)"
        )
    serving = Serving(deployable(model))
    shape = (None, contract.height, contract.width, contract.channels)
    floats = serving.serve.get_concrete_function(tf.TensorSpec(shape, "float32", "images"))
    serving.serve.get_concrete_function(tf.TensorSpec(shape, "uint8", "images"))
    files = serving.serve_bytes.get_concrete_function(tf.TensorSpec((None,), "string", "files"))

    with atomic_write_folder(folder) as temporary:
        try:
            tf.saved_model.save(
                serving, str(temporary), signatures={"serve": floats, "serve_bytes": files}
            )
        except tf.errors.OpError as error:  # TensorFlow's own for a full or read-only disk
            raise OSError(f"{folder} cannot be written: {first_line(error)}") from None
        _write_contract(contract.replace(normalization="inside"), temporary / CONTRACT_FILE)
    return folder


def read_contract(folder: Path) -> Contract:
    """The contract that ``export_saved_model`` wrote beside the graph.

    Raises:
        ValueError: There is none, or it is not readable.
    """
    path = folder / CONTRACT_FILE
    if not path.is_file():
        raise ValueError(f"{folder} was not exported by keras-resnet: it has no {CONTRACT_FILE}")
    try:
        return Contract.from_dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not a model contract: {' '.join(str(error).split())}"
        ) from None


def _write_contract(contract: Contract, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(contract.to_dict(), ensure_ascii=False), "utf-8")


def _numbers(model: ImageClassifier) -> list[str]:
    classes = 2 if model.contract.task == "binary" else model.output_shape[-1]
    return [str(i) for i in range(classes)]

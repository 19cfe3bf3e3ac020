"""Running a .tflite file on images, as an app would."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_resnet.preprocessing import decide, decode_predictions, fit_image, load_image
from tflite.model.interpreter import open_classifier
from tflite.model.metadata import read_contract

Image = str | os.PathLike[str] | bytes | np.ndarray


class Classifier:
    """A .tflite file with a contract inside, as a classifier of images.

    It is used in the same way whatever the type of its input, its batch and its outputs.

    Example:
        >>> Classifier("model_int8.tflite").predict("cat.jpg", top=1)
        [[('tabby', 0.62)]]

    Attributes:
        contract: What the model expects of an image, as read from the file.
        io_spec: Its input and outputs, likewise.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 2) -> None:
        """Opens a file that ``tflite.convert`` wrote, with that many CPU threads.

        Raises:
            ValueError: The file is missing, damaged, or holds no contract of its own graph.
        """
        self._path = Path(path)
        self._interpreter, self.io_spec = open_classifier(path, threads)
        self.contract = read_contract(path)
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()

    def predict(
        self, images: Image | Sequence[Image], top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """Names and probabilities of the likeliest classes, best first.

        Of the task ``binary`` both labels; of ``multi`` the likeliest labels, whether or not they
        reach their thresholds: see ``labels``.

        Args:
            images: Paths or contents of picture files, or arrays ``(height, width, channels)``
                0–255 of any size, one of them or a sequence.
            top: How many classes for each image; all that the file gives if those are fewer.

        Returns:
            For each image a list of ``(label, probability)``.

        Raises:
            ValueError: An image is not readable or has other channels than the model takes.
        """
        fitted = self._fit_all(images)
        return self.predict_fitted(fitted, top) if len(fitted) else []

    def predict_fitted(self, images: np.ndarray, top: int = 5) -> list[list[tuple[str, float]]]:
        """As ``predict``, of images that already have the model's size.

        Args:
            images: uint8 ``(images, height, width, channels)``, as ``load_image`` returns them.
            top: How many classes for each image.
        """
        if self.io_spec.top_k is None:
            return decode_predictions(self.probabilities(images), self.contract, top)
        if top < 1:
            raise ValueError(f"top must be at least 1. Received: top={top!r}")
        names = self.contract.labels
        return [
            [(names[k] if names else str(k), float(p)) for p, k in zip(row, numbers)][:top]
            for row, numbers in zip(*self._run(images))
        ]

    def labels(self, images: Image | Sequence[Image]) -> list[list[str]]:
        """The labels that the model gives to each image, by its task and thresholds, best first.

        One label for the tasks ``single`` and ``binary``, any number or none for ``multi``; see
        ``keras_resnet.decide``.

        Args:
            images: As in ``predict``.

        Raises:
            ValueError: An image is not readable or has other channels than the model takes.
        """
        if self.io_spec.top_k is not None:  # only for the task single
            return [[label] for ((label, _),) in self.predict(images, top=1)]
        fitted = self._fit_all(images)
        return decide(self.probabilities(fitted), self.contract) if len(fitted) else []

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The model's probabilities for images that already have its size.

        If the file gives logits, their softmax, or for the tasks ``binary`` and ``multi`` their
        sigmoid.

        Args:
            images: uint8 ``(images, height, width, channels)``, raw pixels 0–255.

        Returns:
            float32 ``(images, contract.outputs)``.

        Raises:
            ValueError: The images are of another size or type, or the file gives only the
                likeliest classes.
        """
        if self.io_spec.top_k is not None:
            raise ValueError(
                f"{self._path} gives only the {self.io_spec.top_k} likeliest classes; all "
                "probabilities need a file made without --top-k"
            )
        (scores,) = self._run(images)
        if not self.io_spec.logits:
            return scores
        from scipy.special import expit, softmax

        return softmax(scores, axis=1) if self.contract.task == "single" else expit(scores)

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        """Each output for all images, ``(images, …)``."""
        images = np.asarray(images)
        shape = tuple(map(int, self._input["shape"][1:]))
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise ValueError(
                f"Expected uint8 images of (images, {', '.join(map(str, shape))}). "
                f"Received: {images.dtype} {images.shape}"
            )
        batch = self.io_spec.batch
        outputs = [
            np.empty((len(images), int(details["shape"][1])), details["dtype"])
            for details in self._outputs
        ]
        for start in range(0, len(images), batch):
            some = images[start : start + batch]
            # A batch is always full: the last image is repeated if there are too few.
            padded = some[np.minimum(np.arange(batch), len(some) - 1)]
            self._interpreter.set_tensor(self._input["index"], self.io_spec.as_input(padded))
            self._interpreter.invoke()
            for details, output in zip(self._outputs, outputs):
                computed = self._interpreter.get_tensor(details["index"])
                output[start : start + batch] = computed[: len(some)]
        return outputs

    def _fit_all(self, images: Image | Sequence[Image]) -> np.ndarray:
        """uint8 ``(images, height, width, channels)``; of one image too."""
        single = not isinstance(images, Iterable) or isinstance(images, (str, os.PathLike, bytes))
        single = single or getattr(images, "ndim", None) == 3
        several: Sequence[Image] = [images] if single else images  # type: ignore
        fitted = [self._fitted(image) for image in several]
        return np.stack(fitted) if fitted else np.empty((0,), "uint8")

    def _fitted(self, image: Image) -> np.ndarray:
        if isinstance(image, (str, os.PathLike, bytes)):
            return load_image(image, self.contract)
        if not isinstance(image, np.ndarray):
            raise ValueError(
                "Expected the path or the content of a picture file, or an array (height, width, "
                f"{self.contract.channels}). Received: {type(image).__name__}. Of a Pillow image "
                "take numpy.asarray(image.convert('RGB')), or 'L' for grayscale"
            )
        if image.ndim != 3 or image.shape[2] != self.contract.channels or not image.size:
            raise ValueError(
                f"Expected an array (height, width, {self.contract.channels}). "
                f"Received: {image.shape}"
            )
        return fit_image(image, self.contract)

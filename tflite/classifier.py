"""Running a .tflite file on images, as an app would."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_resnet.preprocessing import decode_predictions, fit_image, load_image
from tflite.model.interpreter import open_classifier
from tflite.model.metadata import read_contract

Image = str | os.PathLike[str] | np.ndarray


class Classifier:
    """A .tflite file that tells by itself what it takes, what it answers and what that means.

    Whatever the type of its input, its batch and its outputs, it is asked in the same way.

    Example:
        >>> Classifier("model_int8.tflite").predict("cat.jpg", top=1)
        [[('tabby', 0.62)]]

    Attributes:
        contract: What the model expects of an image, as read from the file.
        io_spec: What the file takes and answers, likewise.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 2) -> None:
        """Opens a file that ``tflite.convert`` wrote, with that many CPU threads.

        Raises:
            ValueError: The file is missing, damaged, or holds no contract.
        """
        self._path = Path(path)
        self._interpreter, self.io_spec = open_classifier(path, threads)
        self.contract = read_contract(path)
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self._check_contract()

    def predict(
        self, images: Image | Sequence[Image], top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """Names and probabilities of the likeliest classes, best first.

        Args:
            images: Picture files or arrays ``(height, width, channels)`` 0–255 of any size,
                one of them or a sequence.
            top: How many to give an image; all that the file answers, where those are fewer.

        Returns:
            For each image a list of ``(label, probability)``.

        Raises:
            ValueError: An image is not readable or has other channels than the model takes.
        """
        single = isinstance(images, (str, os.PathLike)) or getattr(images, "ndim", None) == 3
        several: Sequence[Image] = [images] if single else images  # type: ignore
        if not len(several):
            return []
        fitted = np.stack([self._fitted(image) for image in several])
        if self.io_spec.top_k is None:
            return decode_predictions(self.probabilities(fitted), self.contract, top)
        if top < 1:
            raise ValueError(f"top must be at least 1. Received: top={top!r}")
        names = self.contract.labels
        return [
            [(names[k] if names else str(k), float(p)) for p, k in zip(row, numbers)][:top]
            for row, numbers in zip(*self._answers(fitted))
        ]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The model's answer to images that already have its size.

        Of a file that answers logits, this is their softmax.

        Args:
            images: uint8 ``(images, height, width, channels)``, raw pixels 0–255.

        Returns:
            float32 ``(images, classes)``.

        Raises:
            ValueError: The images are of another size or type, or the file tells the likeliest
                classes alone.
        """
        if self.io_spec.top_k is not None:
            raise ValueError(
                f"{self._path} answers the {self.io_spec.top_k} likeliest classes alone; all "
                "probabilities need a file made without --top-k"
            )
        (answers,) = self._answers(images)
        return _softmax(answers) if self.io_spec.logits else answers

    def _answers(self, images: np.ndarray) -> list[np.ndarray]:
        """Each output for all images, ``(images, …)``."""
        images = np.asarray(images)
        shape = tuple(map(int, self._input["shape"][1:]))
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise ValueError(
                f"Expected uint8 images of (images, {', '.join(map(str, shape))}). "
                f"Received: {images.dtype} {images.shape}"
            )
        batch = self.io_spec.batch
        answers = [
            np.empty((len(images), int(output["shape"][1])), output["dtype"])
            for output in self._outputs
        ]
        for start in range(0, len(images), batch):
            given = images[start : start + batch]
            # A batch is always full: the last image again where there are no more.
            whole = given[np.minimum(np.arange(batch), len(given) - 1)]
            self._interpreter.set_tensor(self._input["index"], self.io_spec.as_input(whole))
            self._interpreter.invoke()
            for output, answer in zip(self._outputs, answers):
                computed = self._interpreter.get_tensor(output["index"])
                answer[start : start + batch] = computed[: len(given)]
        return answers

    def _fitted(self, image: Image) -> np.ndarray:
        if not isinstance(image, np.ndarray):
            return load_image(image, self.contract)
        if image.ndim != 3 or image.shape[2] != self.contract.channels or not image.size:
            raise ValueError(
                f"Expected an array (height, width, {self.contract.channels}). "
                f"Received: {image.shape}"
            )
        return fit_image(image, self.contract)

    def _check_contract(self) -> None:
        contract = self.contract
        shape = (contract.height, contract.width, contract.channels)
        takes = tuple(map(int, self._input["shape"][1:]))
        classes = int(self._outputs[0]["shape"][1])
        labels = len(contract.labels)
        fits = labels >= classes if self.io_spec.top_k else labels == classes
        if shape != takes or (labels and not fits):
            raise ValueError(
                f"The contract in {self._path} is of another model: it tells of {shape} and "
                f"{labels} labels, the graph takes {takes} and has {classes} classes"
            )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)

"""Running a .tflite file on images, as an app would."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_resnet.preprocessing import decode_predictions, fit_image, load_image
from tflite.interpreter import open_interpreter
from tflite.metadata import read_contract

Image = str | os.PathLike[str] | np.ndarray


class Classifier:
    """A .tflite file that tells by itself how large its images are and what its classes mean.

    Example:
        >>> Classifier("model_int8.tflite").predict("cat.jpg", top=1)
        [[('tabby', 0.62)]]

    Attributes:
        contract: What the model expects of an image, as read from the file.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 2) -> None:
        """Opens a file that ``tflite.convert`` wrote, with that many CPU threads.

        Raises:
            ValueError: The file is missing, damaged, or holds no contract.
        """
        self._interpreter = open_interpreter(path, threads)
        self.contract = read_contract(path)
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        self._check_contract(Path(path))

    def predict(
        self, images: Image | Sequence[Image], top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """Names and probabilities of the likeliest classes, best first.

        Args:
            images: Picture files or arrays ``(height, width, channels)`` 0–255 of any size,
                one of them or a sequence.
            top: How many to give an image; all, where there are fewer classes.

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
        return decode_predictions(self.probabilities(fitted), self.contract, top)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The model's answer to images that already have its size.

        Args:
            images: uint8 ``(images, height, width, channels)``, raw pixels 0–255.

        Returns:
            float32 ``(images, classes)``.

        Raises:
            ValueError: The images are of another size or type.
        """
        images = np.asarray(images)
        shape = tuple(map(int, self._input["shape"][1:]))
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise ValueError(
                f"Expected uint8 images of (images, {', '.join(map(str, shape))}). "
                f"Received: {images.dtype} {images.shape}"
            )
        answers = np.empty((len(images), int(self._output["shape"][1])), "float32")
        for image, answer in zip(images, answers):
            self._interpreter.set_tensor(self._input["index"], image[np.newaxis].astype("float32"))
            self._interpreter.invoke()
            answer[:] = self._interpreter.get_tensor(self._output["index"])[0]
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

    def _check_contract(self, path: Path) -> None:
        contract = self.contract
        shape = (contract.height, contract.width, contract.channels)
        takes = tuple(map(int, self._input["shape"][1:]))
        classes = int(self._output["shape"][1])
        if shape != takes or len(contract.labels) not in (0, classes):
            raise ValueError(
                f"The contract in {path} is of another model: it tells of {shape} and "
                f"{len(contract.labels)} labels, the graph takes {takes} and has {classes} classes"
            )

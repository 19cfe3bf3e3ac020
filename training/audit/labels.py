"""Doubtful labels, by confident learning (Northcutt et al. 2021, JAIR 70:1373).

A logistic regression on the pooled features of a model predicts each picture's class without having
been trained on it, nor on a duplicate of it; cleanlab ranks the labels that the predictions
contradict.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_resnet.architectures import find
from keras_resnet.classifier import ImageClassifier
from keras_resnet.console import progress_after
from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.models import create_model
from keras_resnet.prediction import predictor
from keras_resnet.preprocessing import preprocess_input
from keras_resnet.saving import load_model
from keras_resnet.weights.likely import likely
from keras_resnet.weights.load import SUFFIXES, locate
from training.audit.duplicates import Group
from training.data.pipeline import evaluation_batches
from training.data.sources import Source

BATCH = 32
FOLDS = 5
# Inverse strength of the regularization, and cleanlab's rule: the pair of the best F1 on 1,550
# images of CIFAR-10 with 5 % wrong labels, among C = 0.0001 to 0.1 and six rules.
C = 0.001
RULE = "low_self_confidence"
MOST_CLASSES = 1000
MOST_PICTURES = 100_000


@dataclass(frozen=True)
class Doubt:
    """A picture whose label is doubtful.

    Attributes:
        index: Its number in the scan.
        label: The class that it is labelled as.
        suggested: The class that is predicted.
        label_probability: Predicted probability of its label.
        suggested_probability: That of the predicted class.
    """

    index: int
    label: int
    suggested: int
    label_probability: float
    suggested_probability: float


@dataclass(frozen=True)
class FeatureModel:
    """A network whose outputs are its pooled features.

    Attributes:
        network: From float32 pixels, normalized by ``contract``, to ``(batch, features)``.
        contract: Size and normalization.
    """

    network: keras.Model
    contract: Contract


def open_features(path: Path) -> FeatureModel:
    """The pooled features of a run, a ``.keras`` file, or a file of published weights.

    Raises:
        ValueError: There is no model, or its weights fit no network of this package.
    """
    if path.suffix == ".keras" or path.is_dir() or path.suffix not in SUFFIXES:
        file = path / "model.keras" if path.is_dir() else path
        if not file.is_file():
            raise ValueError(
                f"There is no model {file}. Give a run folder, a .keras file or a file of weights"
            )
        return pooled_features(load_model(file))
    if not path.is_file():
        raise ValueError(f"There is no file of weights {path}")
    source = locate(path, find("ResNet50"))
    guess = likely(source.tensors.arrays, source.convention)
    if guess is None:
        raise ValueError(f"{path} holds the weights of no network of this package")
    name = guess.split()[0]
    options = dict(re.findall(r"(variant|shortcut)='(.+?)'", guess))
    size = find(name).input_shape
    model = create_model(
        name, include_top=False, pooling="avg", weights=path, input_shape=size, **options
    )
    return FeatureModel(model, model.contract)


def pooled_features(model: ImageClassifier) -> FeatureModel:
    """The network up to its global pooling.

    Raises:
        ValueError: It has no global pooling.
    """
    contract = model.contract
    if contract.height is None or contract.width is None:
        raise ValueError("The model takes any size. Build it with a fixed input_shape")
    network: keras.Model = deployable(model)
    if contract.normalization == "outside":  # inside, behind the normalization, is the network
        network = next(x for x in network.layers if isinstance(x, keras.Model))
        contract = contract.replace(order="rgb")
    pools = [x for x in network.layers if isinstance(x, keras.layers.GlobalAveragePooling2D)]
    if not pools:
        raise ValueError("The model has no global average pooling, whose outputs are its features")
    return FeatureModel(keras.Model(network.inputs, pools[-1].output), contract)


def check_channels(model: FeatureModel, source: Source, spec: str) -> None:
    """Raises ValueError if the model takes other channels than the pictures have."""
    if model.contract.channels != source.channels:
        raise ValueError(
            f"{spec} has {source.channels} channels, the model takes {model.contract.channels}. "
            "Give --model a model of the same channels"
        )


def embed(model: FeatureModel, source: Source) -> np.ndarray:
    """Pooled features of all pictures, training first: float32 ``(count, features)``."""
    total, blocks, done = source.train.count + source.test.count, [], 0
    predict = predictor(model.network, BATCH)
    with progress_after("computing features") as show:
        for pixels in _batches(source, model.contract):
            features = predict(preprocess_input(pixels, model.contract))
            blocks.append(features.astype("float32"))
            done += len(pixels)
            show(done, total)
    return np.concatenate(blocks)


def _batches(source: Source, contract: Contract) -> Iterator[np.ndarray]:
    for split in (source.train, source.test):
        for pixels, _ in evaluation_batches(split, contract, BATCH):
            yield np.asarray(pixels)


def doubtful_labels(
    features: np.ndarray, labels: np.ndarray, groups: Sequence[Group] = ()
) -> tuple[Doubt, ...]:
    """Labels that predictions contradict, the least likely first.

    Args:
        features: ``(count, features)``.
        labels: int64 ``(count,)``.
        groups: Duplicates, which are always predicted together.

    Raises:
        ValueError: Fewer than two classes have enough pictures.
    """
    from cleanlab.filter import find_label_issues

    usable, classes = _usable(labels, groups)
    numbers = np.searchsorted(classes, labels[usable])
    probabilities = out_of_fold(features[usable], numbers, groups_of(len(labels), groups)[usable])
    found = find_label_issues(
        numbers,
        probabilities,
        filter_by=RULE,
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return tuple(
        Doubt(
            int(usable[i]),
            int(classes[numbers[i]]),
            int(classes[probabilities[i].argmax()]),
            float(probabilities[i, numbers[i]]),
            float(probabilities[i].max()),
        )
        for i in found
    )


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Probabilities ``(count, classes)``, each by a regression that has not seen its group.

    Args:
        features: ``(count, features)``.
        labels: ``(count,)``, 0 to classes − 1, each in at least ``FOLDS`` groups.
        groups: Number of each picture's group.
        seed: Of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    _, firsts, group = np.unique(groups, return_index=True, return_inverse=True)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    fold = np.zeros(len(firsts), int)
    for number, (_, held_out) in enumerate(folds.split(firsts, labels[firsts])):
        fold[held_out] = number
    probabilities = np.zeros((len(labels), labels.max() + 1))
    with progress_after("predicting each label from the others") as show:
        for number in range(FOLDS):
            held_out = fold[group] == number
            mean, scale = features[~held_out].mean(0), features[~held_out].std(0) + 1e-6
            regression = LogisticRegression(C=C, max_iter=1000)
            with _no_warnings():
                regression.fit((features[~held_out] - mean) / scale, labels[~held_out])
            predicted = regression.predict_proba((features[held_out] - mean) / scale)
            probabilities[np.ix_(held_out, regression.classes_)] = predicted
            show(number + 1, FOLDS)
    return probabilities


def groups_of(count: int, groups: Sequence[Group]) -> np.ndarray:
    """A number for each picture, equal for duplicates: int64 ``(count,)``."""
    numbers = np.arange(count)
    for group in groups:
        numbers[list(group.members)] = group.members[0]
    return numbers


def _usable(labels: np.ndarray, groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the pictures of classes that have enough of them, and these classes."""
    first = groups_of(len(labels), groups) == np.arange(len(labels))
    classes, counts = np.unique(labels[first], return_counts=True)
    classes = classes[counts >= FOLDS]
    if len(classes) < 2:
        raise ValueError(f"fewer than two classes have {FOLDS} pictures that are no duplicates")
    return np.flatnonzero(np.isin(labels, classes)), classes


def why_not(labels: np.ndarray) -> str | None:
    """Why the labels of a source cannot be judged; ``None`` if they can."""
    if labels.ndim > 1:
        return "labels are judged where each picture has one; here it may have several"
    if len(labels) > MOST_PICTURES:
        return f"labels are judged for up to {MOST_PICTURES:,} pictures; here are {len(labels):,}"
    if (classes := len(np.unique(labels))) > MOST_CLASSES:
        return f"labels are judged for up to {MOST_CLASSES:,} classes; here are {classes:,}"
    return None


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """A regression that has not converged after 1,000 steps ranks as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

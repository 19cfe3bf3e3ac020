"""``weights=``: loads weights, from a file or by the name of a published one, into a model.

Nothing is skipped silently, and all weights load, or none: either every weight of the network
has its value and the report says where it came from, or there is an error and the model is
unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.architectures import Architecture
from keras_resnet.block_config import BlockConfig
from keras_resnet.classifier import HEAD, ImageClassifier
from keras_resnet.contract import Contract, default_contract
from keras_resnet.weights import catalog
from keras_resnet.weights.catalog import Published
from keras_resnet.weights.download import fetch
from keras_resnet.weights.formats.readers import Tensors, read_tensors
from keras_resnet.weights.likely import likely
from keras_resnet.weights.mapping import (
    EPSILON,
    Convention,
    convention,
    from_file,
    full_name,
    head_names,
    layer_names,
)
from keras_resnet.weights.report import LoadReport

STEMS = ("stem_conv", "stem_conv1")
# Fields of preprocessing that a file can state.
PREPROCESSING = ("mean", "std", "order", "resize", "crop_fraction", "interpolation", "orientation")
# Those of the outputs, which a network with another number of outputs does not take over.
OUTPUTS = ("labels", "task", "thresholds")
SUFFIXES = (".keras", ".h5", ".safetensors", ".pth", ".pt", ".th")


@dataclass(frozen=True)
class Source:
    """Weights that were found and read, before they are loaded into a model.

    Attributes:
        name: Path or address, for messages.
        tensors: The content of the file.
        published: Its row of the catalog, if the file is listed there.
    """

    name: str
    tensors: Tensors
    published: Published | None = None

    @property
    def convention(self) -> Convention:
        found = convention(self.tensors.arrays)
        if found is None:
            raise ValueError(
                f"{self.name} does not name its weights as keras_resnet, torchvision, timm or "
                f"keras.applications do. The first is {next(iter(self.tensors.arrays), 'none')!r}"
            )
        return found

    @property
    def network(self) -> dict[str, Any]:
        """Properties of the network that the weights were trained in, as far as known.

        Those of ``_distinguishing`` that the file or its publisher states, and the ``epsilon`` of
        its batch norms, ``None`` where it is not known.
        """
        if chosen := self.tensors.block_config:
            return _distinguishing(chosen) | {"epsilon": chosen.epsilon}
        epsilon = EPSILON.get(self.convention)
        if self.published:
            variant, shortcut = self.published.variant, self.published.shortcut
        elif self.convention == "keras.applications":
            variant, shortcut = "v2" if "post_bn/gamma" in self.tensors.arrays else "v1", "B"
        else:
            return {"epsilon": epsilon}
        known = {"variant": variant, "shortcut": shortcut, "antialias": False}
        return known | {"epsilon": epsilon}

    @property
    def order(self) -> str:
        """The order in which the first kernel takes red, green and blue."""
        return self._preprocessing(None).get("order", "rgb")

    def contract(
        self, architecture: Architecture, size: tuple[int | None, ...], classes: int | None
    ) -> Contract | None:
        """How images were prepared for these weights, or ``None`` if that is unknown.

        ``size`` is the input's height, width and channels; a published crop fraction belongs to
        a height.
        """
        height, width, channels = size
        default = default_contract(architecture)
        default = default.replace(height=height, width=width, channels=channels)
        return self.preprocessing(default, architecture.classes if classes is None else classes)

    def preprocessing(self, contract: Contract, classes: int) -> Contract | None:
        """The same, for a model that has a contract; its size and channels stay."""
        known = self._preprocessing(contract.height)
        if not known:
            return None
        if contract.channels != 3:
            known = {**known, "order": "rgb"}
        if len(known.get("mean", ())) not in (1, 3, contract.channels):
            known = {k: v for k, v in known.items() if k not in ("mean", "std")}
        outputs = 1 if known.get("task") == "binary" else len(known.get("labels", ()))
        if outputs != classes:
            known = {key: value for key, value in known.items() if key not in OUTPUTS}
        return contract.replace(**known)

    def _preprocessing(self, size: int | None) -> dict[str, Any]:
        if self.published:
            return self.published.contract_fields(size)
        if self.tensors.contract is not None:
            fields = (*PREPROCESSING, *OUTPUTS)
            return {key: getattr(self.tensors.contract, key) for key in fields}
        if self.convention == "keras.applications":
            return catalog.APPLICATIONS_PREPROCESSING[self.network["variant"]]
        return {}


def locate(
    weights: str | os.PathLike[str], architecture: Architecture, size: int | None = None
) -> Source:
    """Finds, downloads where needed, checks and reads what ``weights=`` names.

    ``size`` is the input's height in pixels: ``"imagenet"`` is the best file at that size.

    Raises:
        ValueError: There is no such file or tag, it cannot be downloaded, or it is not readable.
    """
    if (source := _by_address_or_path(weights)) is not None:
        return source
    text = str(weights)
    # Networks of basic blocks are the same in v1 and v1.5, and are published as the latter.
    same = architecture.block == "basic" and architecture.variant == "v1"
    variant = "v1.5" if same else architecture.variant
    published = catalog.find(architecture.name, variant, text, size=size)
    return Source(published.urls[0], read_tensors(fetch(published)), published)


def load_weights(model: ImageClassifier, weights: str | os.PathLike[str]) -> LoadReport:
    """Loads the weights of a file into an existing network.

    A model that normalizes outside takes over how images were prepared for the weights, as far
    as the file tells; one that normalizes inside must have been built for the same.

    Args:
        model: A network of this package.
        weights: The path of a file, or ``hf://owner/name``; see ``weights=`` of the constructors.

    Returns:
        What was done with every weight.

    Raises:
        ValueError: The file is not available or does not fit; the model is unchanged.
    """
    _check_is_ours(model)
    source = _by_address_or_path(weights)
    if source is None:
        raise ValueError(
            f"load_weights takes a file or hf://owner/name; a tag goes to the constructor, as "
            f"weights={weights!r}"
        )
    contract = model.contract
    prepared = source.preprocessing(contract, model.output_shape[-1]) or contract
    if contract.normalization == "outside":
        contract = prepared
    elif (prepared.mean, prepared.std) != (contract.mean, contract.std):
        raise ValueError(
            f"{source.name} is for mean {prepared.mean} and std {prepared.std}, and this model "
            f"normalizes inside by {contract.mean} and {contract.std}. Build it with "
            "weights=…, which takes them over"
        )
    report = load(model, source, contract)
    model.contract = contract
    return report


def load(model: ImageClassifier, source: Source, contract: Contract) -> LoadReport:
    """Loads weights into a network; all of them, or none if there is an error.

    Args:
        model: A network of this package.
        source: The weights.
        contract: What the model will expect of an image: its order of channels decides that
            of the first kernel's.

    Raises:
        ValueError: A weight does not fit; names it, both shapes and the likely network.
    """
    _check_is_ours(model)
    _check_network(model, source)
    fitting = _Fitting(model, source, contract)
    for layer, variable in _variables(model):
        fitting.take(layer, variable)
    report = fitting.report()
    for layer, variable in _variables(model):
        value = fitting.values.get(_name(layer, variable))
        if value is not None:
            variable.assign(value)
    return report


class _Fitting:
    """Matches the weights of a file to the variables of a network."""

    def __init__(self, model: ImageClassifier, source: Source, contract: Contract) -> None:
        self.source = source
        self.order = contract.order
        self.convention = source.convention
        self.epsilon = source.network["epsilon"]
        self.left = dict(source.tensors.arrays)
        self.layers = {layer.name: layer for layer in model.layers}
        self.names = layer_names(model, self.convention, self.left)
        self.values: dict[str, np.ndarray] = {}
        self.adapted: dict[str, str] = {}
        self.reinitialised: list[str] = []
        self.missing: list[str] = []

    def take(self, layer: Any, variable: Any) -> None:
        """Takes the value of one variable out of the file."""
        ours, shape = _name(layer, variable), tuple(variable.shape)
        theirs = self._find(layer.name, variable.name)
        # A classifier that the file lacks, or that is reinitialised, is left out as a whole.
        if layer.name == HEAD and theirs is None and (self.missing or variable.name == "kernel"):
            self.missing.append(ours)
            return
        if theirs is None:
            raise self._error(f"it has nothing for {ours} {shape}")
        with np.errstate(over="ignore"):
            value = from_file(self.left.pop(theirs), self.convention).astype("float32")
        if not np.isfinite(value).all():
            raise self._error(f"its {theirs} is too large for float32")
        if layer.name in STEMS and variable.name == "kernel":
            self._take_stem(ours, theirs, value, shape)
        elif value.shape == shape:
            self.values[ours] = self._corrected(layer, variable.name, value)
        elif layer.name == HEAD and value.shape[:-1] == shape[:-1]:
            self.reinitialised.append(ours)
        else:
            raise self._error(f"its {theirs} is {value.shape}, and {ours} is {shape}")

    def report(self) -> LoadReport:
        """What was done with every weight; an error if the file has unexpected weights."""
        heads = tuple(f"{name}{dot}" for name in head_names(self.convention) for dot in "./")
        unexpected = [
            name for name in self.left if HEAD in self.layers or not name.startswith(heads)
        ]
        if unexpected:
            shape = self.left[unexpected[0]].shape
            raise self._error(f"its {unexpected[0]} {shape} is not a weight of this network")
        return LoadReport(
            source=self.source.name,
            loaded=tuple(self.values),
            adapted=self.adapted,
            reinitialised=tuple(self.reinitialised),
            unused=tuple(self.left),
            missing=tuple(self.missing),
        )

    def _find(self, layer: str, variable: str) -> str | None:
        names = (full_name(name, variable, self.convention) for name in self.names[layer])
        return next((name for name in names if name in self.left), None)

    def _take_stem(self, ours: str, theirs: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
        like = value.ndim == 4 and (*value.shape[:2], value.shape[3]) == (*shape[:2], shape[3])
        if not like or not value.size:
            raise self._error(f"its {theirs} is {value.shape}, and {ours} is {shape}")
        if value.shape[2] == 3 and self.source.order != self.order:
            value = value[:, :, ::-1]
            self.adapted[ours] = f"input channels from {self.source.order} to {self.order}"
        if value.shape[2] != shape[2]:
            value, how = _with_channels(value, shape[2])
            self.adapted[ours] = "; ".join(filter(None, (self.adapted.get(ours), how)))
        self.values[ours] = value

    def _corrected(self, layer: Any, variable: str, value: np.ndarray) -> np.ndarray:
        """Corrects the norms for epsilon and biases that differ from the file's network."""
        if variable == "moving_variance":
            return self._with_epsilon(layer, value)
        if variable != "moving_mean":
            return value
        # The bias of a convolution before a norm only shifts the mean that the norm subtracts.
        conv = layer.name.replace("norm", "conv")
        bias = self._find(conv, "bias") if conv in self.names else None
        if bias is None or self.layers[conv].use_bias:
            return value
        self.adapted[f"{layer.name}/moving_mean"] = "the convolution's bias is folded in"
        return value - self.left.pop(bias).astype("float32")

    def _with_epsilon(self, layer: Any, variance: np.ndarray) -> np.ndarray:
        """Corrects the variance for another epsilon, so that variance + epsilon is unchanged."""
        if self.epsilon is not None:
            variance = variance + np.float32(self.epsilon - layer.epsilon)
        if not (variance + layer.epsilon > 0).all():
            raise self._error(f"the variance of {layer.name} is negative")
        return variance

    def _error(self, what: str) -> ValueError:
        guess = likely(self.source.tensors.arrays, self.convention)
        hint = f" They look like the weights of {guess}." if guess else ""
        return ValueError(f"{self.source.name} does not fit this network: {what}.{hint}")


def _by_address_or_path(weights: str | os.PathLike[str]) -> Source | None:
    """What ``weights`` names, unless it is a tag of the catalog."""
    if not isinstance(weights, (str, os.PathLike)) or not os.fspath(weights):
        raise ValueError(
            "weights must be None, a tag such as 'imagenet', hf://owner/name, or the path of a "
            f"file. Received: weights={weights!r}"
        )
    text = os.fspath(weights)
    if text.startswith(("hf://", "https://")):
        return Source(text, read_tensors(fetch(text)), catalog.at(text))
    if isinstance(weights, str) and not text.endswith(SUFFIXES) and not {"/", os.sep} & set(text):
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no weights file {path}")
    return Source(str(path), read_tensors(path), catalog.identify(path))


def _variables(model: keras.Model) -> Iterator[tuple[Any, Any]]:
    for layer in model.layers:
        for variable in layer.weights:
            yield layer, variable


def _name(layer: Any, variable: Any) -> str:
    return f"{layer.name}/{variable.name}"


def _with_channels(kernel: np.ndarray, channels: int) -> tuple[np.ndarray, str]:
    """A kernel for another number of input channels, whose outputs keep their size."""
    before = kernel.shape[2]
    if channels == 1:  # a gray image is the same in red, green and blue
        return kernel.sum(axis=2, keepdims=True), f"summed over {before} input channels"
    repeated = np.tile(kernel, (1, 1, -(-channels // before), 1))[:, :, :channels]
    how = f"{before} input channels repeated to {channels} and scaled by {before}/{channels}"
    return repeated * np.float32(before / channels), how


def _check_is_ours(model: Any) -> None:
    if not isinstance(model, ImageClassifier) or model.block_config is None:
        raise ValueError(
            "Weights go into a network as the constructors of keras_resnet build it. Received: "
            f"a {type(model).__name__} that they did not build"
        )


def _check_network(model: ImageClassifier, source: Source) -> None:
    """The networks must be alike in what the shapes of weights do not tell."""
    assert model.block_config is not None  # _check_is_ours
    ours = _distinguishing(model.block_config)
    for choice, theirs in source.network.items():
        if choice in ours and theirs != ours[choice]:
            raise ValueError(
                f"{source.name} holds weights of a network with {choice}={theirs!r}, and this "
                f"network has {choice}={ours[choice]!r}: its predictions would be wrong. Build it "
                f"with {choice}={theirs!r}"
            )


def _distinguishing(config: BlockConfig) -> dict[str, Any]:
    """The choices that change what a network computes, and not the shapes of its weights."""
    row = config.architecture
    # Networks of basic blocks are the same in v1 and v1.5.
    variant = "v1.5" if row.block == "basic" and row.variant == "v1" else row.variant
    return {
        "variant": variant,
        "shortcut": config.shortcut,
        "antialias": config.antialias,
        "padding": row.padding,
    }

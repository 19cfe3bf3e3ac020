"""The public constructors: ``ResNet50()`` and all other networks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import keras

from keras_resnet.architectures import ARCHITECTURES, Architecture, VariantName, find
from keras_resnet.block_config import BATCH_NORM_MOMENTUM, BlockConfig, share
from keras_resnet.build import build
from keras_resnet.classifier import PROBABILITIES, ImageClassifier, check_head
from keras_resnet.contract import Contract, default_contract, one_of
from keras_resnet.inputs import checked_data_format, input_size, make_input
from keras_resnet.weights.load import load, locate

__all__ = [*ARCHITECTURES, "create_model", "list_models"]


class Constructor:
    """Builds one named network; ``keras_resnet.ResNet50`` is an instance."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.__name__ = self.__qualname__ = architecture.name
        self.__doc__ = f"{architecture.name} ({architecture.paper}).\n\n{_ARGUMENTS}"

    def __repr__(self) -> str:
        return f"<keras_resnet.{self.architecture.name}>"

    def __call__(
        self,
        include_top: bool = True,
        weights: str | os.PathLike[str] | None = None,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: Literal["avg", "max"] | None = None,
        classes: int | None = None,
        classifier_activation: str | Callable | None = "softmax",
        name: str | None = None,
        *,
        variant: VariantName | None = None,
        width: float = 1.0,
        shortcut: Literal["A", "B", "none"] = "B",
        output_stride: int | None = None,
        antialias: bool = False,
        stochastic_depth: float = 0.0,
        dropout_rate: float = 0.0,
        zero_init_residual: bool = False,
        norm: Literal["batch", "sync_batch", "group"] = "batch",
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
        batch_norm_epsilon: float | None = None,
        data_format: Literal["channels_last", "channels_first"] | None = None,
        include_preprocessing: bool = False,
        contract: Contract | None = None,
    ) -> ImageClassifier:
        layout = checked_data_format(data_format)
        config = BlockConfig(
            self.architecture.with_variant(variant).of_width(width),
            shortcut=shortcut,
            output_stride=output_stride,
            antialias=antialias,
            stochastic_depth=stochastic_depth,
            zero_init_residual=zero_init_residual,
            norm=norm,
            batch_norm_momentum=batch_norm_momentum,
            batch_norm_epsilon=batch_norm_epsilon,
            data_format=layout,
        )
        architecture = config.architecture
        classes = architecture.classes if classes is None else classes
        _check(pooling, classes, classifier_activation, dropout_rate, contract)
        inputs = make_input(architecture, input_tensor, input_shape, layout)
        size = input_size(inputs, layout)

        outputs = classes if include_top else None
        activation = _activation_name(classifier_activation)
        if outputs == 1 and activation == "softmax":  # before a download
            check_head(1, activation, "single" if contract is None else contract.task)
        if contract is not None:
            contract = contract.of_network(size, outputs, include_preprocessing)
        # After all arguments have been checked: this may download a file.
        source = None if weights is None else locate(weights, architecture, size[0])
        if contract is None:
            found = source and source.contract(architecture, size, classes)
            found = found or default_contract(architecture)
            if outputs == 1 and activation == "sigmoid" and not found.labels:
                found = found.replace(task="binary")
            contract = found.of_network(size, outputs, include_preprocessing)
        if include_top and activation in PROBABILITIES:
            check_head(classes, activation, contract.task)
        model = build(
            config,
            inputs,
            include_top=include_top,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            dropout_rate=dropout_rate,
            name=name or architecture.name.lower(),
            contract=contract,
        )
        if source is not None:
            model.load_report = load(model, source, contract)
        return model


def _activation_name(activation: Any) -> str | None:
    """``"softmax"``, ``"sigmoid"``, …; ``None`` for logits."""
    name = getattr(keras.activations.get(activation), "__name__", None)
    return None if name == "linear" else name


def _check(
    pooling: Any, classes: Any, classifier_activation: Any, dropout_rate: Any, contract: Any
) -> None:
    one_of("pooling", pooling, (None, "avg", "max"))
    share("dropout_rate", dropout_rate)
    keras.activations.get(classifier_activation)  # raises ValueError
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes must be an integer of at least 1. Received: classes={classes!r}")
    if contract is not None and not isinstance(contract, Contract):
        raise ValueError(
            f"contract must be a keras_resnet.Contract or None. Received: contract={contract!r}"
        )


_ARGUMENTS = """\
Args:
    include_top: Whether the network ends in global pooling and a dense classifier.
    weights: ``None`` for random weights; ``"imagenet"`` for the best published file, or the
        tag of one (``"torchvision-v2"``, ``"timm-a1"``, ``"keras"``: see docs/models.md);
        ``"hf://timm/resnet50.a1_in1k"``; or the path of a ``.keras``, ``.weights.h5``,
        keras.applications ``.h5``, ``.safetensors``, ``.pth`` or ``.th`` file. What was loaded,
        adapted and reinitialized is listed in ``model.load_report``.
    input_tensor: A Keras tensor to build the network on, instead of a new ``keras.Input``.
    input_shape: ``(height, width, channels)``; height and width at least 32 or ``None``
        for any; 1 to N channels. The architecture's own by default. ``(channels, height,
        width)`` with ``data_format="channels_first"``.
    pooling: Output without the top: ``None`` for ``(batch, h, w, channels)``; ``"avg"`` and
        ``"max"`` for ``(batch, channels)``.
    classes: Number of outputs: of classes, or 1 for two classes told apart by one sigmoid (the
        task ``binary``). The architecture's own by default.
    classifier_activation: ``"softmax"`` for one class an image, ``"sigmoid"`` for the tasks
        ``binary`` and ``multi`` of the contract, or ``None`` for logits, which nothing here reads
        as probabilities.
    name: Name of the model.
    variant: ``None`` for the architecture's own (see docs/models.md), ``"v1.5"`` for most.
        ``"v1.5"`` has the stride on the 3×3 convolution of a bottleneck block, ``"v1"`` on the
        first 1×1; networks of basic blocks are the same in both. ``"v2"`` has norm and ReLU
        before each convolution. ``"c"`` has a stem of three 3×3 convolutions, ``"s"`` a wider
        one, and ``"d"`` the stem of c and shortcuts with average pooling.
    width: Filters of all stages and of a plain stem as a multiple of the architecture's own,
        0.25–4, rounded to multiples of 8. Published weights are for 1.
    shortcut: If shapes differ, ``"B"`` projects by a 1×1 convolution, and ``"A"`` subsamples
        and pads with zero channels, as in the paper on CIFAR-10. ``"none"``: a plain network.
    output_stride: Largest stride of the output relative to the input (8, 16 or 32; at most 8
        for the CIFAR networks); further strides are replaced by dilation.
    antialias: Whether strided convolutions and pools are followed by a blur that subsamples.
    stochastic_depth: Probability in training that the residual branch of the last block is
        dropped; for earlier blocks it is proportional to their depth.
    dropout_rate: Dropout before the classifier.
    zero_init_residual: Whether each block starts as the identity: the last gamma of its
        branch is initialized with zeros, or with ``"v2"`` the last kernel.
    norm: ``"batch"``, ``"sync_batch"`` (statistics over all devices) or ``"group"``.
    batch_norm_momentum: Keras's momentum, 1 − PyTorch's.
    batch_norm_epsilon: ``None`` for the architecture's own.
    data_format: ``"channels_last"`` or ``"channels_first"``; Keras's setting by default.
    include_preprocessing: Whether the graph normalizes; its input is then raw pixels 0–255.
    contract: Normalization, labels and resize rule that are saved with the model; those of the
        weights by default.

Returns:
    A functional ``keras.Model``. The classifier computes in float32 under any dtype policy.

Raises:
    ValueError: An argument is out of range, or the weights are not available or do not fit. The
        message says what was received and what is allowed.
"""

ResNet18 = Constructor(ARCHITECTURES["ResNet18"])
ResNet34 = Constructor(ARCHITECTURES["ResNet34"])
ResNet50 = Constructor(ARCHITECTURES["ResNet50"])
ResNet101 = Constructor(ARCHITECTURES["ResNet101"])
ResNet152 = Constructor(ARCHITECTURES["ResNet152"])
ResNet200 = Constructor(ARCHITECTURES["ResNet200"])
ResNet18V2 = Constructor(ARCHITECTURES["ResNet18V2"])
ResNet34V2 = Constructor(ARCHITECTURES["ResNet34V2"])
ResNet50V2 = Constructor(ARCHITECTURES["ResNet50V2"])
ResNet101V2 = Constructor(ARCHITECTURES["ResNet101V2"])
ResNet152V2 = Constructor(ARCHITECTURES["ResNet152V2"])
ResNet200V2 = Constructor(ARCHITECTURES["ResNet200V2"])
SEResNet18 = Constructor(ARCHITECTURES["SEResNet18"])
SEResNet34 = Constructor(ARCHITECTURES["SEResNet34"])
SEResNet50 = Constructor(ARCHITECTURES["SEResNet50"])
SEResNet101 = Constructor(ARCHITECTURES["SEResNet101"])
SEResNet152 = Constructor(ARCHITECTURES["SEResNet152"])
ResNeXt50_32x4d = Constructor(ARCHITECTURES["ResNeXt50_32x4d"])
ResNeXt101_32x8d = Constructor(ARCHITECTURES["ResNeXt101_32x8d"])
ResNeXt101_64x4d = Constructor(ARCHITECTURES["ResNeXt101_64x4d"])
WideResNet50_2 = Constructor(ARCHITECTURES["WideResNet50_2"])
WideResNet101_2 = Constructor(ARCHITECTURES["WideResNet101_2"])
ResNetRS50 = Constructor(ARCHITECTURES["ResNetRS50"])
ResNetRS101 = Constructor(ARCHITECTURES["ResNetRS101"])
ResNetRS152 = Constructor(ARCHITECTURES["ResNetRS152"])
ResNetRS200 = Constructor(ARCHITECTURES["ResNetRS200"])
ResNetRS270 = Constructor(ARCHITECTURES["ResNetRS270"])
ResNetRS350 = Constructor(ARCHITECTURES["ResNetRS350"])
ResNetRS420 = Constructor(ARCHITECTURES["ResNetRS420"])
ResNet20 = Constructor(ARCHITECTURES["ResNet20"])
ResNet32 = Constructor(ARCHITECTURES["ResNet32"])
ResNet44 = Constructor(ARCHITECTURES["ResNet44"])
ResNet56 = Constructor(ARCHITECTURES["ResNet56"])
ResNet110 = Constructor(ARCHITECTURES["ResNet110"])
ResNet1202 = Constructor(ARCHITECTURES["ResNet1202"])
ResNet20V2 = Constructor(ARCHITECTURES["ResNet20V2"])
ResNet32V2 = Constructor(ARCHITECTURES["ResNet32V2"])
ResNet44V2 = Constructor(ARCHITECTURES["ResNet44V2"])
ResNet56V2 = Constructor(ARCHITECTURES["ResNet56V2"])
ResNet110V2 = Constructor(ARCHITECTURES["ResNet110V2"])
ResNet1202V2 = Constructor(ARCHITECTURES["ResNet1202V2"])
CifarResNet18 = Constructor(ARCHITECTURES["CifarResNet18"])
WideResNet28_10 = Constructor(ARCHITECTURES["WideResNet28_10"])
WideResNet40_2 = Constructor(ARCHITECTURES["WideResNet40_2"])
WideResNet16_8 = Constructor(ARCHITECTURES["WideResNet16_8"])
ResNet8 = Constructor(ARCHITECTURES["ResNet8"])


def list_models() -> list[str]:
    """Names of all networks, for ``create_model``."""
    return list(ARCHITECTURES)


def create_model(name: str, /, **kwargs: Any) -> ImageClassifier:
    """Builds a network by name: ``create_model("resnet50", classes=10)``.

    Args:
        name: One of ``list_models()``; case is ignored.
        **kwargs: The arguments of the constructor of that name.

    Raises:
        ValueError: There is no such network; the message suggests the nearest name.
    """
    return Constructor(find(name))(**kwargs)

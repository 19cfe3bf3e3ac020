"""Builds a functional ``keras.Model`` from a ``BlockConfig``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_resnet.block_config import BlockConfig, block_specs
from keras_resnet.blocks import (
    BLOCKS,
    cifar_stem,
    deep_stem,
    imagenet_stem,
    norm,
    stem_pool,
    stem_pool_conv,
)
from keras_resnet.classifier import HEAD, ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.inputs import input_size


def build(
    config: BlockConfig,
    inputs: Any,
    *,
    include_top: bool,
    pooling: str | None,
    classes: int,
    classifier_activation: str | Callable | None,
    dropout_rate: float,
    name: str | None,
    contract: Contract,
) -> ImageClassifier:
    """Builds the graph on ``make_input``'s tensor; the constructors document the arguments.

    With ``contract.normalization == "inside"``, the graph begins with the normalization.
    """
    x = inputs
    if contract.normalization == "inside":
        x = normalize(x, contract, config.data_format)
    x = _body(x, config)
    if include_top or pooling == "avg":
        x = layers.GlobalAveragePooling2D(config.data_format, name="pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(config.data_format, name="pool")(x)
    if include_top:
        if dropout_rate:
            x = layers.Dropout(dropout_rate, name="dropout")(x)
        # float32 under any policy: softmax in half precision loses small probabilities.
        head = layers.Dense(classes, classifier_activation, dtype="float32", name=HEAD)
        x = head(x)
    model = ImageClassifier(keras.utils.get_source_inputs(inputs), x, name=name)
    model.contract, model.block_config = _of_source(contract, model, config), config
    return model


def _of_source(contract: Contract, model: ImageClassifier, config: BlockConfig) -> Contract:
    """The contract of the whole graph; ``input_tensor`` need not be its first tensor."""
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        return contract
    height, width, channels = input_size(model.inputs[0], config.data_format)
    if channels == contract.channels:
        return contract.replace(height=height, width=width)
    mean, std = ((sum(values) / len(values),) for values in (contract.mean, contract.std))
    size = {"height": height, "width": width, "channels": channels}
    return contract.replace(**size, mean=mean, std=std, order="rgb")


def _body(x: Any, config: BlockConfig) -> Any:
    x = _stem(x, config)
    block = BLOCKS[config.architecture.block, config.variant.preactivation]
    for width, spec in block_specs(config):
        x = block(x, width, spec, config)
    if config.variant.preactivation:
        x = layers.ReLU(name="post_relu")(norm(x, config, "post_norm"))
    return x


def _stem(x: Any, config: BlockConfig) -> Any:
    row = config.architecture
    if row.family != "imagenet":
        return cifar_stem(x, config)
    x = deep_stem(x, config) if config.variant.deep_stem else imagenet_stem(x, config)
    return stem_pool_conv(x, config) if row.convolved_pool else stem_pool(x, config)


def normalize(x: Any, contract: Contract, data_format: str = "channels_last") -> Any:
    """The contract's normalization of raw RGB pixels 0–255, as a layer of the graph."""
    scale: list = [1 / std for std in contract.std]
    offset: list = [-mean / std for mean, std in zip(contract.mean, contract.std)]
    if data_format == "channels_first":
        scale, offset = ([[[value]] for value in values] for values in (scale, offset))
    # Raw pixels are exact in float32, but not in bfloat16.
    return layers.Rescaling(scale, offset, dtype="float32", name="normalize")(x)

"""Feature pyramids for detection and segmentation: outputs of a network at several strides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_resnet.architectures import VARIANTS, Architecture
from keras_resnet.classifier import ImageClassifier, ImageModel
from keras_resnet.layers import PACKAGE
from keras_resnet.models import create_model

FIRST_LEVEL = 2  # of the first stage, whose stride is 2² in an ImageNet network


@keras.saving.register_keras_serializable(package=PACKAGE)
class FeaturePyramid(ImageModel):
    """An ``ImageModel`` whose output is a dictionary of feature maps, ``"P2"`` to ``"P5"``."""

    @property
    def pyramid_outputs(self) -> dict[str, Any]:
        """Symbolic output of each level; KerasHub's interface of image encoders."""
        return dict(self.output)

    @property
    def strides(self) -> dict[str, int]:
        """The stride of each level relative to the input."""
        return {level: _stride(output) for level, output in self.output.items()}


def features(
    model: ImageClassifier | str, levels: Sequence[int] | None = None, **kwargs: Any
) -> FeaturePyramid:
    """The outputs of a network's stages, for detection and segmentation.

    Level 2 is the first stage, level 3 the second, and so on. Level ``n`` has stride 2ⁿ in an
    ImageNet network, unless ``output_stride`` limits it, and 2ⁿ⁻² in a CIFAR network; see
    ``strides`` of the result. In a v2 network, each level includes the norm and the ReLU that
    follow its stage.

    Args:
        model: A network of this package, whose layers are then shared; or a name for
            ``create_model``, which is called with ``include_top=False``.
        levels: Any of 2 to 5 (2 to 4 for networks of three stages); all by default.
        **kwargs: The constructor's arguments, if ``model`` is a name.

    Returns:
        A model with the output ``{"P2": (batch, height, width, channels), …}``, and the
        network's contract and ``load_report``.

    Raises:
        ValueError: A level does not exist, or ``kwargs`` are passed with a model.
    """
    if isinstance(model, str):
        model = create_model(model, include_top=False, **kwargs)
    elif kwargs:
        raise ValueError(
            f"Arguments go with a name, such as features('ResNet50'). Received: {sorted(kwargs)} "
            f"and a {type(model).__name__}"
        )
    outputs = _stage_outputs(model)
    levels = tuple(outputs) if levels is None else levels
    if not isinstance(levels, Iterable) or not levels or not set(levels) <= set(outputs):
        raise ValueError(
            f"levels of {model.name} must be some of {', '.join(map(str, outputs))}. "
            f"Received: levels={levels!r}"
        )
    chosen = {f"P{level}": outputs[level] for level in sorted(levels)}
    pyramid = FeaturePyramid(model.inputs, chosen, name=f"{model.name}_features")
    pyramid.contract, pyramid.load_report = model.contract, model.load_report
    pyramid.block_config = model.block_config
    return pyramid


def _stage_outputs(model: ImageClassifier) -> dict[int, Any]:
    """The deepest output of each stage, by level."""
    if not isinstance(model, ImageModel) or model.block_config is None:
        raise ValueError(f"{model.name} has no stages: it is not a network of keras_resnet")
    row = model.block_config.architecture
    levels = range(FIRST_LEVEL, FIRST_LEVEL + len(row.depths))
    return {
        level: model.get_layer(_output_name(row, stage)).output
        for stage, level in enumerate(levels, start=1)
    }


def _output_name(row: Architecture, stage: int) -> str:
    last = f"stage{stage}_block{row.depths[stage - 1]}"
    if not VARIANTS[row.variant].preactivation:
        return f"{last}_out"
    # In a pre-activation network: the activation before the block with the next stride.
    if stage == len(row.depths):
        return "post_relu"
    return f"{last}_relu1" if row.strides_last else f"stage{stage + 1}_block1_relu1"


def _stride(output: Any) -> int:
    """The product of the strides between the input and a tensor."""
    stride = 1
    while output is not None:
        operation, node, _ = output._keras_history
        own = getattr(operation, "strides", 1)
        stride *= own[0] if isinstance(own, (tuple, list)) else own
        inputs = operation._inbound_nodes[node].input_tensors
        output = inputs[0] if inputs else None
    return stride

"""Freezing: training only some of the layers of a network."""

from __future__ import annotations

import re
from typing import Literal

import keras

from keras_resnet.contract import one_of


def freeze(
    model: keras.Model,
    through: str | None = "stage3",
    batch_norm: Literal["frozen", "train"] = "frozen",
) -> None:
    """Freezes the first layers of a network, and makes all others trainable.

    Compile the model afterwards: Keras reads ``trainable`` when it compiles. A second call with
    another ``through`` replaces the first.

    Args:
        model: A network of this package.
        through: The last frozen part: ``"stem"``, ``"stage1"`` … ``"stage4"``, or ``None`` to
            freeze nothing.
        batch_norm: The norms in the frozen part. ``"frozen"``: they run in inference mode, and
            their statistics are not updated; use it for few images or small batches.
            ``"train"``: they use the statistics of the batch and update the moving ones, and
            gamma and beta are trained.

    Raises:
        ValueError: The network has no such part.
    """
    one_of("batch_norm", batch_norm, ("frozen", "train"))
    model.trainable = True  # False would override the layers' own setting
    parts = [part(layer.name) for layer in model.layers]
    # The last norm of a pre-activation network belongs to the stage before it.
    last_stage = max(parts)
    parts = [last_stage if x.name.startswith("post_") else n for x, n in zip(model.layers, parts)]
    named = sorted({number for number in parts if number >= 0})
    allowed = (*("stem" if number == 0 else f"stage{number}" for number in named), None)
    one_of("through", through, allowed)
    last = -1 if through is None else allowed.index(through)
    for layer, number in zip(model.layers, parts):
        norm = isinstance(layer, (keras.layers.BatchNormalization, keras.layers.GroupNormalization))
        layer.trainable = not 0 <= number <= last or (norm and batch_norm == "train")


def part(name: str) -> int:
    """The part that a layer belongs to, by its name: 0 for the stem, or the number of its stage.

    −1 for layers before the stem and after the last stage.
    """
    if name.startswith("stem_"):
        return 0
    stage = re.match(r"stage(\d+)_", name)
    return int(stage[1]) if stage else -1

"""Freezing a part of a network, and the statistics of its frozen norms."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_resnet import ResNet18, ResNet20, create_model, freeze


def trained(model: keras.Model, rng: np.random.Generator) -> set[str]:
    """Paths of the weights that two steps on images of an odd distribution change."""
    before = {w.path: np.array(w) for w in model.weights}
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = rng.normal(5, 3, (8, 32, 32, 3)).astype("float32")
    for _ in range(2):
        model.train_on_batch(x, rng.integers(0, 10, 8))
    return {w.path for w in model.weights if np.any(np.array(w) != before[w.path])}


def frozen_part(path: str) -> bool:
    return path.startswith(("stem", "stage1", "stage2"))


def test_frozen_layers_stay_still_with_their_statistics(rng: np.random.Generator) -> None:
    model = ResNet20()
    freeze(model, through="stage2")
    moved = trained(model, rng)
    assert moved == {w.path for w in model.weights if not frozen_part(w.path)}


def test_the_last_norm_of_a_v2_network_freezes_with_its_last_stage(
    rng: np.random.Generator,
) -> None:
    model = create_model("ResNet20V2")
    model.trainable = False
    freeze(model, through="stage3")
    moved = trained(model, rng)
    assert {path.split("/")[0] for path in moved} == {"predictions"}


def test_frozen_norms_run_in_inference_mode(rng: np.random.Generator) -> None:
    model = ResNet20(include_top=False)
    x = rng.normal(5, 3, (4, 32, 32, 3)).astype("float32")
    freeze(model, through="stage3")
    np.testing.assert_allclose(model(x, training=True), model(x, training=False), atol=1e-5)
    freeze(model, through="stage3", batch_norm="train")
    assert not np.allclose(model(x, training=True), model(x, training=False), atol=1e-2)


def test_norms_go_on_learning_where_asked(rng: np.random.Generator) -> None:
    model = ResNet20()
    freeze(model, through="stage2", batch_norm="train")
    moved = trained(model, rng)
    still = {w.path for w in model.weights} - moved
    assert still == {w.path for w in model.weights if frozen_part(w.path) and "conv" in w.path}


def test_none_sets_everything_free() -> None:
    model = ResNet20()
    every = len(model.trainable_weights)
    freeze(model, through="stem")
    assert len(model.trainable_weights) == every - 3
    model.trainable = False
    freeze(model, through=None)
    assert len(model.trainable_weights) == every


@pytest.mark.parametrize("arguments", [{"through": "stage4"}, {"batch_norm": "still"}], ids=str)
def test_parts_that_are_not_there(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be one of.*Received"):
        freeze(ResNet20(), **arguments)
    freeze(ResNet18(input_shape=(32, 32, 3)), through="stage4")

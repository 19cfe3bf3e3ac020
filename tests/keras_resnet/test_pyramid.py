"""Networks as encoders of detectors and segmenters, KerasHub's among them."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_resnet import ResNet18, ResNet50, create_model, features


@pytest.mark.parametrize(
    ("name", "options", "strides"),
    [
        ("ResNet18", {}, (4, 8, 16, 32)),
        ("ResNet50", {"output_stride": 16}, (4, 8, 16, 16)),
        ("ResNet50", {"variant": "d", "output_stride": 8}, (4, 8, 8, 8)),
        ("ResNet50V2", {}, (4, 8, 16, 32)),
        ("SEResNet18", {"antialias": True}, (4, 8, 16, 32)),
        ("ResNetRS50", {"variant": "v2"}, (4, 8, 16, 32)),
        ("ResNet20V2", {}, (1, 2, 4)),
        ("ResNet20", {}, (1, 2, 4)),
    ],
    ids=str,
)
def test_levels_and_their_strides(
    name: str, options: dict[str, Any], strides: tuple[int, ...]
) -> None:
    levels = tuple(range(2, 2 + len(strides)))
    model = features(name, levels, input_shape=(96, 64, 3), **options)
    assert model.strides == {f"P{level}": stride for level, stride in zip(levels, strides)}
    outputs = model(np.zeros((1, 96, 64, 3), "float32"))
    assert list(outputs) == list(model.pyramid_outputs) == list(model.strides)
    for level, stride in model.strides.items():
        assert outputs[level].shape[1:3] == (96 // stride, 64 // stride)


def test_the_deepest_level_is_what_the_classifier_sees(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 64, 64, 3)).astype("float32")
    for name in ("ResNet18", "ResNet50V2"):
        model = create_model(name, input_shape=(64, 64, 3), include_top=False)
        np.testing.assert_array_equal(features(model)(x)["P5"], model(x))


def test_a_model_shares_its_layers_and_a_name_takes_arguments() -> None:
    model = ResNet18(input_shape=(64, 64, 3))
    pyramid = features(model, levels=(5, 3))
    assert list(pyramid.output) == ["P3", "P5"]
    assert pyramid.get_layer("stem_conv") is model.get_layer("stem_conv")
    with pytest.raises(ValueError, match=r"go with a name.*classes"):
        features(model, classes=3)


def test_a_pyramid_is_saved_and_loaded(tmp_path: Any, rng: np.random.Generator) -> None:
    model = features("ResNet18", (3, 4), input_shape=(64, 64, 3))
    model.save(tmp_path / "pyramid.keras")
    loaded = keras.saving.load_model(tmp_path / "pyramid.keras")
    assert loaded.contract == model.contract and loaded.contract.height == 64
    x = rng.normal(size=(1, 64, 64, 3)).astype("float32")
    assert loaded.strides == model.strides
    for level, output in model(x).items():
        np.testing.assert_array_equal(loaded(x)[level], output)


@pytest.mark.parametrize("levels", [(1,), (2, 6), (), 3])
def test_levels_that_are_not_there(levels: Any) -> None:
    with pytest.raises(ValueError, match=r"resnet20 must be some of 2, 3, 4\. Received: levels="):
        features("ResNet20", levels)


def test_all_levels_are_the_default() -> None:
    assert list(features("ResNet20").output) == ["P2", "P3", "P4"]
    assert list(features("ResNet18", input_shape=(32, 32, 3)).output) == ["P2", "P3", "P4", "P5"]


def test_a_model_of_another_kind_is_refused() -> None:
    x = keras.Input((32, 32, 3))
    with pytest.raises(ValueError, match="no stages"):
        features(keras.Model(x, keras.layers.Conv2D(1, 1)(x)))  # type: ignore[arg-type]


def finite_and_moved(model: keras.Model, x: Any, y: Any) -> bool:
    kernel = next(w for w in model.trainable_weights if "stage4" in w.path and w.name == "kernel")
    before = np.array(kernel)
    losses = model.fit(x, y, batch_size=2, verbose=0).history["loss"]
    return bool(np.all(np.isfinite(losses)) and np.any(np.array(kernel) != before))


@pytest.mark.slow
def test_kerashubs_deeplab_trains_on_it(rng: np.random.Generator) -> None:
    hub = pytest.importorskip("keras_hub").models
    encoder = features("ResNet18", input_shape=(None, None, 3))
    backbone = hub.DeepLabV3Backbone(
        image_encoder=encoder,
        projection_filters=48,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        upsampling_size=encoder.strides["P5"] // encoder.strides["P2"],
        dilation_rates=[6, 12, 18],
    )
    model = hub.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=3, activation="softmax")
    model.compile("sgd", "categorical_crossentropy", metrics=[])
    x = rng.normal(size=(2, 64, 64, 3)).astype("float32")
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, (2, 64, 64))]
    assert finite_and_moved(model, x, y)


@pytest.mark.slow
def test_kerashubs_retinanet_trains_on_it(rng: np.random.Generator) -> None:
    hub = pytest.importorskip("keras_hub")
    size, boxes_as = 128, "yxyx"
    backbone = hub.models.RetinaNetBackbone(
        image_encoder=features(ResNet50(input_shape=(size, size, 3), include_top=False)),
        min_level=3,
        max_level=5,
        use_p5=False,
    )
    preprocessor = hub.models.RetinaNetObjectDetectorPreprocessor(
        image_converter=hub.layers.RetinaNetImageConverter(
            image_size=(size, size),
            bounding_box_format=boxes_as,
            crop_to_aspect_ratio=False,
            pad_to_aspect_ratio=True,
        )
    )
    model = hub.models.RetinaNetObjectDetector(
        backbone=backbone,
        num_classes=4,
        bounding_box_format=boxes_as,
        preprocessor=preprocessor,
    )
    model.compile(
        "sgd", box_loss="huber", classification_loss=keras.losses.BinaryFocalCrossentropy()
    )
    boxes = np.array([[[10, 10, 60, 70], [30, 40, 90, 100]]] * 2, "float32")
    labels = {"boxes": boxes, "labels": np.array([[0, 2], [1, 3]], "float32")}
    x = rng.uniform(0, 255, (2, size, size, 3)).astype("float32")
    assert finite_and_moved(model, x, labels)

"""Weights of keras.applications.

From ``keras/src/applications/resnet.py`` 3.15 are the MD5 hashes, which Keras itself checks; from
the README of keras-team/keras-applications the accuracies (100 minus the top-1 error); from
download logs of Keras the sizes. How the images of the accuracies were resized is not published;
the README says "224×224, single center crop", and the usual resize to 256 is assumed here.
"""

from __future__ import annotations

from typing import Any

from keras_resnet.weights.catalog.records import HALF, Evaluation, Published

CAFFE_MEAN = (123.68, 116.779, 103.939)
# How keras.applications prepares images for each variant of its networks.
PREPROCESSING: dict[str, dict[str, Any]] = {
    "v1": {"mean": CAFFE_MEAN, "std": (1.0, 1.0, 1.0), "order": "bgr"},
    "v2": {"mean": HALF, "std": HALF, "order": "rgb"},
}

# Architecture, variant, file's first word, top-1, MD5 and bytes with and without classifier.
_FILES: tuple[tuple[str, str, str, float, str, int | None, str, int | None], ...] = (
    (
        *("ResNet50", "v1", "resnet50", 74.928),
        *("2cb95161c43110f7111970584f804107", 102_967_424),
        *("4d473c1dd8becc155b73f8504c6f6626", 94_765_736),
    ),
    (
        *("ResNet101", "v1", "resnet101", 76.420),
        *("f1aeb4b969a6efcfb50fad2f0c20cfc5", 179_648_224),
        *("88cf7a10940856eca736dc7b7e228a21", 171_446_536),
    ),
    (
        *("ResNet152", "v1", "resnet152", 76.604),
        *("100835be76be38e30d865e96f2aaae62", None),
        *("ee4c566cf9a93f14d82f913c2dc6dd0c", 234_698_864),
    ),
    (
        *("ResNet50V2", "v2", "resnet50v2", 75.960),
        *("3ef43a0b657b3be2300d5770ece849e0", None),
        *("fac2f116257151a9d068a22e544a4917", 94_668_760),
    ),
    (
        *("ResNet101V2", "v2", "resnet101v2", 77.234),
        *("6343647c601c52e1368623803854d971", None),
        *("c0ed64b8031c3730f411d2eb4eea35b5", 171_317_808),
    ),
    (
        *("ResNet152V2", "v2", "resnet152v2", 78.032),
        *("a49b44d1979771252814e80f8ec446f9", None),
        *("ed17cf2e0169df9d443503ef94b23b33", 234_545_216),
    ),
)


def _row(
    architecture: str,
    variant: str,
    word: str,
    top1: float | None,
    md5: str,
    size: int | None,
    include_top: bool = True,
) -> Published:
    ending = "" if include_top else "_notop"
    return Published(
        architecture=architecture,
        variant=variant,
        tag="keras",
        urls=(
            "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
            f"{word}_weights_tf_dim_ordering_tf_kernels{ending}.h5",
        ),
        evaluations=(Evaluation(224, 0.875, top1),),
        interpolation="bilinear",
        licence="MIT",
        source="https://github.com/keras-team/keras-applications/blob/master/README.md",
        md5=md5,
        size=size,
        include_top=include_top,
        **PREPROCESSING[variant],
    )


ROWS: tuple[Published, ...] = tuple(
    _row(architecture, variant, word, top1, md5, size)
    for architecture, variant, word, top1, md5, size, _, _ in _FILES
)
WITHOUT_CLASSIFIER: tuple[Published, ...] = tuple(
    _row(architecture, variant, word, None, md5, size, include_top=False)
    for architecture, variant, word, _, _, _, md5, size in _FILES
)

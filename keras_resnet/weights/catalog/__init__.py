"""The catalog of published weights: records, a module of rows for each publisher, and lookup.

How far each file's hash is known:

- The full SHA-256: the CIFAR-10 files of ResNet-8 to 56, and some of torchvision and timm.
- Its first 8 hex digits, which are in the file's name: the other files of torchvision, and
  CIFAR-10's ResNet-110 and 1202.
- The MD5 that Keras itself checks: keras.applications.
- Nothing here: the other timm files, whose SHA-256 the hub states at the download.
"""

from keras_resnet.weights.catalog.keras_applications import (
    PREPROCESSING as APPLICATIONS_PREPROCESSING,
)
from keras_resnet.weights.catalog.lookup import CATALOG, at, digests, find, identify, published
from keras_resnet.weights.catalog.records import (
    CIFAR10_LABELS,
    Evaluation,
    LabelSet,
    Published,
    class_names,
)

__all__ = [
    "APPLICATIONS_PREPROCESSING",
    "CATALOG",
    "CIFAR10_LABELS",
    "Evaluation",
    "LabelSet",
    "Published",
    "at",
    "class_names",
    "digests",
    "find",
    "identify",
    "published",
]

"""Metadata and dependencies, each with what it is for.

Every package that the code imports by itself is declared, also where another one brings it along
(`tests/test_packaging.py` compares this list with the imports). A lower bound is the oldest
release that the tests were run with.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "keras_resnet/__init__.py").read_text("utf-8"), re.M
).group(1)

MODELS = [
    "keras>=3.15",  # the models
    "numpy>=2.0",  # images and weights
    "pillow>=11.0",  # reads images; imported as PIL
    "h5py>=3.13",  # weights in HDF5
    "ml_dtypes>=0.5.1",  # weights in bfloat16
    "safetensors>=0.6.1",  # pretrained weights, checkpoints
]
TRAINING = [
    "tensorflow>=2.21",  # trains, serves, converts
    "tensorflow-datasets>=4.9.9",  # tfds:NAME sources
    "importlib_resources>=6.4",  # tensorflow-datasets 4.9.10 imports it and does not declare it
    "protobuf>=6.31.1",  # errors of damaged TFRecords; imported as google.protobuf
    "scikit-learn>=1.6",  # the digits, stratified splits, importance of hyperparameters
    "scipy>=1.14",  # confidence intervals and tests of proportions
    "pyyaml>=6.0.2",  # experiments, recipes and search spaces; imported as yaml
    "keras-tuner>=1.4.8,<1.5",  # hyperparameter search
    "grpcio>=1.74",  # workers of a search; imported as grpc
    "tensorboard>=2.20",  # curves of a run; keras-tuner 1.4.8 imports it and does not declare it
    "jinja2>=3.1.5",  # reports
    "markupsafe>=3.0",  # HTML inside reports
    "matplotlib>=3.10",  # charts of a report
    "cleanlab>=2.9",  # doubtful labels of `audit`; brings pandas
]
TFLITE = [
    "ai-edge-litert>=2.3",  # runs TFLite files
    "flatbuffers>=25.9.23",  # reads and writes TFLite files
    "litert-quantizer>=0.11",  # makes the `dynamic` kind
]
COMMAND = [
    "tyro>=1.0",  # the command line
    "rich>=14.0",  # tables and progress
]
TEST = ["pytest>=8.3", "pytest-xdist>=3.8", "pillow-heif"]

setup(
    name="keras-resnet",
    version=VERSION,
    description="Residual networks for Keras, from images to a phone",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["keras_resnet*", "training*", "tflite*"]),
    package_data={
        "keras_resnet": ["weights/imagenet_labels.txt"],
        "training": ["recipes/*.yaml", "tuning/spaces/*.yaml", "report/templates/*"],
        # The page of `keras-resnet demo`, where it is built: `make wheel` builds it first.
        "tflite": [
            "devices/web/dist/*.html",
            "devices/web/dist/assets/*",
            "devices/web/dist/wasm/*",
        ],
    },
    entry_points={"console_scripts": ["keras-resnet=keras_resnet.cli:main"]},
    install_requires=MODELS + TRAINING + TFLITE + COMMAND,
    extras_require={
        "jax": ["jax"],  # trains on GPUs, TPUs and several machines
        "torch": ["torch"],  # reads .pth files; the peer that networks are compared with
        "heif": ["pillow-heif"],  # reads HEIC, the format of iPhones; imported as pillow_heif
        "mediapipe": ["mediapipe"],  # a client of TFLite files that `inspect` tries
        "micro": ["tflite-micro"],  # the runtime of microcontrollers, which `inspect` tries
        "test": TEST,
        # keras-hub: the peer of detectors built on the feature pyramid. imagehash and cleanvision:
        # the peers of `audit`.
        "dev": [
            *TEST,
            "ruff",
            "mypy",
            "types-PyYAML",
            "keras-hub",
            "imagehash>=4.3.2",
            "cleanvision>=0.3.7",
        ],
    },
)

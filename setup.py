"""Metadata and dependencies. What each dependency is for stands in the README."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "keras_resnet/__init__.py").read_text("utf-8"), re.M
).group(1)

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
        # The demo page, where `make web` has built it.
        "tflite": [
            "devices/web/dist/*.html",
            "devices/web/dist/assets/*",
            "devices/web/dist/wasm/*",
        ],
    },
    entry_points={"console_scripts": ["keras-resnet=keras_resnet.cli:main"]},
    install_requires=[
        "tensorflow>=2.21",
        "keras>=3.15",
        "tensorflow-datasets",
        "keras-tuner>=1.4.8,<1.5",
        "grpcio",
        "ai-edge-litert",
        "flatbuffers",
        "ai-edge-quantizer",
        "tyro",
        "rich",
        "pyyaml",
        "jinja2",
        "matplotlib",
        "pillow",
        "scikit-learn",
        "scipy",
        "safetensors",
        "h5py",
        "ml_dtypes",
        "tensorboard",
        "importlib_resources",
    ],
    extras_require={
        "jax": ["jax"],
        "torch": ["torch"],
        "mediapipe": ["mediapipe"],
        "test": ["pytest"],
        "dev": ["pytest", "ruff", "mypy", "types-PyYAML", "keras-hub"],
    },
)

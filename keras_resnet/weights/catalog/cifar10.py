"""CIFAR-10 weights, by Yerlan Idelbayev (akamaster) and by MLPerf Tiny.

Hashes, sizes and accuracies are those of the files themselves, but for ResNet110 and ResNet1202:
their accuracies are from the README, and of their hashes only the digits in the names are known.
"""

from __future__ import annotations

from keras_resnet.weights.catalog.records import Evaluation, Published

_AKAMASTER = (
    ("ResNet20", "resnet20-12fca82f.th", 91.73, 1_099_231),
    ("ResNet32", "resnet32-d509ac18.th", 92.63, 1_890_043),
    ("ResNet44", "resnet44-014dd654.th", 93.10, 2_680_855),
    ("ResNet56", "resnet56-4bfd9763.th", 93.39, 3_471_733),
    ("ResNet110", "resnet110-1d1ed7c2.th", 93.68, None),
    ("ResNet1202", "resnet1202-f3b1deed.th", 93.82, None),
)
_AKAMASTER_SHA256 = {
    "resnet20-12fca82f.th": "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    "resnet32-d509ac18.th": "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
    "resnet44-014dd654.th": "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4",
    "resnet56-4bfd9763.th": "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
}


def _akamaster(architecture: str, file: str, top1: float, size: int | None) -> Published:
    repository = "https://github.com/akamaster/pytorch_resnet_cifar10"
    digits = file.removesuffix(".th").rpartition("-")[2]
    return Published(
        architecture=architecture,
        variant="v1.5",
        tag="akamaster",
        urls=(f"{repository}/raw/master/pretrained_models/{file}",),
        evaluations=(Evaluation(32, 1.0, top1),),
        interpolation="bilinear",
        licence="BSD-2-Clause",
        source=repository,
        sha256=_AKAMASTER_SHA256.get(file, digits),
        size=size,
        resize="stretch",
        label_set="cifar10",
        shortcut="A",
    )


_MLPERF_FOLDER = "benchmark/training/image_classification"
_MLPERF_FILE = f"{_MLPERF_FOLDER}/trained_models/pretrainedResnet.h5"
_MLPERF_RAW = "https://raw.githubusercontent.com/mlcommons/tiny"
_MLPERF_TINY = Published(
    architecture="ResNet8",
    variant="v1.5",
    tag="mlperf-tiny",
    # The file under this name was another one, of wider layers, in some revisions.
    urls=(
        f"{_MLPERF_RAW}/master/{_MLPERF_FILE}",
        f"{_MLPERF_RAW}/4addd0fa08d216e20637637874e084895f289da4/{_MLPERF_FILE}",
    ),
    evaluations=(Evaluation(32, 1.0, 87.19),),
    interpolation="bilinear",
    licence="Apache-2.0",
    source=f"https://github.com/mlcommons/tiny/tree/master/{_MLPERF_FOLDER}",
    sha256="5f938a8eea605438cc7360aa13c987bc6d7bd0c8d931b2917361ae7ae4eeda2f",
    size=1_116_712,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    resize="stretch",
    label_set="cifar10",
)

ROWS: tuple[Published, ...] = (*(_akamaster(*file) for file in _AKAMASTER), _MLPERF_TINY)

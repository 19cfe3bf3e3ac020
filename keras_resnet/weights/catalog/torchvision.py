"""torchvision's weights: ``torchvision/models/resnet.py`` 0.29.

The first 8 hex digits of each file's SHA-256 are in its name. The full hashes were computed by
others from the files and agree in several public repositories; each starts with the published
digits.
"""

from __future__ import annotations

from keras_resnet.weights.catalog.records import Evaluation, Published

_FULL_SHA256 = {
    "resnet18-f37072fd.pth": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "resnet34-b627a593.pth": "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    "resnet50-0676ba61.pth": "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    "resnet50-11ad3fa6.pth": "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    "resnet101-63fe2227.pth": "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    "resnet101-cd907fc2.pth": "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
    "resnet152-394f9c45.pth": "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
    "wide_resnet50_2-95faca4d.pth": (
        "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8"
    ),
}
_SIZES = {
    "resnet18-f37072fd.pth": 46_830_571,
    "resnet50-0676ba61.pth": 102_530_333,
    "resnet50-11ad3fa6.pth": 102_540_417,
}
# Architecture, generation of the training recipe, file, resize (for a crop of 224), top-1.
_FILES = (
    ("ResNet18", 1, "resnet18-f37072fd.pth", 256, 69.758),
    ("ResNet34", 1, "resnet34-b627a593.pth", 256, 73.314),
    ("ResNet50", 1, "resnet50-0676ba61.pth", 256, 76.130),
    ("ResNet50", 2, "resnet50-11ad3fa6.pth", 232, 80.858),
    ("ResNet101", 1, "resnet101-63fe2227.pth", 256, 77.374),
    ("ResNet101", 2, "resnet101-cd907fc2.pth", 232, 81.886),
    ("ResNet152", 1, "resnet152-394f9c45.pth", 256, 78.312),
    ("ResNet152", 2, "resnet152-f82ba261.pth", 232, 82.284),
    ("ResNeXt50_32x4d", 1, "resnext50_32x4d-7cdf4587.pth", 256, 77.618),
    ("ResNeXt50_32x4d", 2, "resnext50_32x4d-1a0047aa.pth", 232, 81.198),
    ("ResNeXt101_32x8d", 1, "resnext101_32x8d-8ba56ff5.pth", 256, 79.312),
    ("ResNeXt101_32x8d", 2, "resnext101_32x8d-110c445d.pth", 232, 82.834),
    ("ResNeXt101_64x4d", 1, "resnext101_64x4d-173b62eb.pth", 232, 83.246),
    ("WideResNet50_2", 1, "wide_resnet50_2-95faca4d.pth", 256, 78.468),
    ("WideResNet50_2", 2, "wide_resnet50_2-9ba9bcbe.pth", 232, 81.602),
    ("WideResNet101_2", 1, "wide_resnet101_2-32ee1156.pth", 256, 78.848),
    ("WideResNet101_2", 2, "wide_resnet101_2-d733dc28.pth", 232, 82.510),
)


def _row(architecture: str, generation: int, file: str, resize: int, top1: float) -> Published:
    digits = file.removesuffix(".pth").rpartition("-")[2]
    return Published(
        architecture=architecture,
        variant="v1.5",
        tag=f"torchvision-v{generation}",
        urls=(f"https://download.pytorch.org/models/{file}",),
        evaluations=(Evaluation(224, 224 / resize, top1),),
        interpolation="bilinear",
        licence="BSD-3-Clause",
        source="https://github.com/pytorch/vision/blob/v0.29.1/torchvision/models/resnet.py",
        sha256=_FULL_SHA256.get(file, digits),
        size=_SIZES.get(file),
    )


ROWS: tuple[Published, ...] = tuple(_row(*file) for file in _FILES)

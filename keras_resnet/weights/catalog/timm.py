"""timm's weights on the Hugging Face hub.

From ``timm/models/resnet.py`` 1.0.31 are names, licences and preprocessing; from
``results/results-imagenet.csv`` (commit 0173a139) the first accuracy; from the table in the model
cards of timm's ResNets on the hub, which has two decimals, the second.

Hashes are known here only for the files of ``_PINNED``. For the others the hub states the SHA-256
at the download, and ``download.fetch`` checks the file against it; ``identify`` does not know it.
"""

from __future__ import annotations

from keras_resnet.contract import IMAGENET_MEAN, IMAGENET_STD
from keras_resnet.weights.catalog.records import HALF, Evaluation, Published

# What timm's presets evaluate at: (input size, crop fraction), the reported one first.
_STRIKES_BACK = ((288, 1.0), (224, 0.95))  # _rcfg
_STRIKES_BACK_160 = ((224, 0.95), (160, 0.95))  # _r3cfg
_TIMM_TRAINED = ((288, 0.95), (224, 0.875))  # _ttcfg
_TIMM_256 = ((320, 1.0), (256, 0.95))
_PLAIN = ((224, 0.875),)  # _cfg, _gcfg
_TORCHVISION_2 = ((224, 0.965), (176, 0.875))

_NC = "CC-BY-NC-4.0"
_BSD = "BSD-3-Clause"

_Sizes = tuple[tuple[int, float], ...]
# Architecture, variant, name on the hub, evaluated at, top-1 there.
_FILES: tuple[tuple[str, str, str, _Sizes, tuple[float, ...]], ...] = (
    ("ResNet18", "v1.5", "resnet18.a1_in1k", _STRIKES_BACK, (73.158, 71.49)),
    ("ResNet18", "v1.5", "resnet18.a2_in1k", _STRIKES_BACK, (72.372, 70.64)),
    ("ResNet18", "v1.5", "resnet18.a3_in1k", _STRIKES_BACK_160, (68.254, 65.66)),
    ("ResNet18", "v1.5", "resnet18.gluon_in1k", _PLAIN, (70.838,)),
    ("ResNet18", "v1.5", "resnet18.tv_in1k", _PLAIN, (69.760,)),
    ("ResNet18", "v1.5", "resnet18.fb_ssl_yfcc100m_ft_in1k", _PLAIN, (72.594,)),
    ("ResNet18", "v1.5", "resnet18.fb_swsl_ig1b_ft_in1k", _PLAIN, (73.282,)),
    ("ResNet18", "d", "resnet18d.ra2_in1k", _TIMM_TRAINED, (73.794, 72.26)),
    ("ResNet34", "v1.5", "resnet34.a1_in1k", _STRIKES_BACK, (77.918, 76.42)),
    ("ResNet34", "v1.5", "resnet34.a2_in1k", _STRIKES_BACK, (77.158, 75.52)),
    ("ResNet34", "v1.5", "resnet34.a3_in1k", _STRIKES_BACK_160, (72.970, 70.56)),
    ("ResNet34", "v1.5", "resnet34.bt_in1k", _TIMM_TRAINED, (76.480, 75.16)),
    ("ResNet34", "v1.5", "resnet34.gluon_in1k", _PLAIN, (74.578,)),
    ("ResNet34", "v1.5", "resnet34.tv_in1k", _PLAIN, (73.32,)),
    ("ResNet34", "d", "resnet34d.ra2_in1k", _TIMM_TRAINED, (78.436, 77.10)),
    ("ResNet50", "v1.5", "resnet50.a1_in1k", _STRIKES_BACK, (81.214, 80.38)),
    ("ResNet50", "v1.5", "resnet50.a1h_in1k", ((224, 1.0), (176, 0.9)), (80.676, 79.27)),
    ("ResNet50", "v1.5", "resnet50.a2_in1k", _STRIKES_BACK, (80.772, 79.85)),
    ("ResNet50", "v1.5", "resnet50.a3_in1k", _STRIKES_BACK_160, (78.048, 75.96)),
    ("ResNet50", "v1.5", "resnet50.b1k_in1k", _STRIKES_BACK, (80.706, 79.52)),
    ("ResNet50", "v1.5", "resnet50.b2k_in1k", _STRIKES_BACK, (80.454, 79.38)),
    ("ResNet50", "v1.5", "resnet50.c1_in1k", _STRIKES_BACK, (80.912, 79.74)),
    ("ResNet50", "v1.5", "resnet50.c2_in1k", _STRIKES_BACK, (80.870, 79.88)),
    ("ResNet50", "v1.5", "resnet50.d_in1k", _STRIKES_BACK, (80.972, 79.91)),
    ("ResNet50", "v1.5", "resnet50.ram_in1k", _TIMM_TRAINED, (79.976, 79.03)),
    ("ResNet50", "v1.5", "resnet50.ra_in1k", _TIMM_TRAINED, (79.836, 78.81)),
    ("ResNet50", "v1.5", "resnet50.bt_in1k", _TIMM_TRAINED, (79.640, 78.46)),
    ("ResNet50", "v1.5", "resnet50.am_in1k", _PLAIN, (78.998,)),
    ("ResNet50", "v1.5", "resnet50.gluon_in1k", _PLAIN, (77.580,)),
    ("ResNet50", "v1.5", "resnet50.tv_in1k", _PLAIN, (76.130,)),
    ("ResNet50", "v1.5", "resnet50.tv2_in1k", _TORCHVISION_2, (80.850, 79.42)),
    ("ResNet50", "v1.5", "resnet50.fb_ssl_yfcc100m_ft_in1k", _PLAIN, (79.234,)),
    ("ResNet50", "v1.5", "resnet50.fb_swsl_ig1b_ft_in1k", _PLAIN, (81.182,)),
    ("ResNet50", "c", "resnet50c.gluon_in1k", _PLAIN, (78.012,)),
    ("ResNet50", "s", "resnet50s.gluon_in1k", _PLAIN, (78.718,)),
    ("ResNet50", "d", "resnet50d.ra4_e3600_r224_in1k", _STRIKES_BACK, (81.838, 80.952)),
    ("ResNet50", "d", "resnet50d.ra2_in1k", _TIMM_TRAINED, (81.356, 80.53)),
    ("ResNet50", "d", "resnet50d.a1_in1k", _STRIKES_BACK, (81.450, 80.68)),
    ("ResNet50", "d", "resnet50d.a2_in1k", _STRIKES_BACK, (81.164, 80.22)),
    ("ResNet50", "d", "resnet50d.a3_in1k", _STRIKES_BACK_160, (78.722, 77.22)),
    ("ResNet50", "d", "resnet50d.gluon_in1k", _PLAIN, (79.078,)),
    ("ResNet101", "v1.5", "resnet101.a1h_in1k", _STRIKES_BACK, (82.778, 81.93)),
    ("ResNet101", "v1.5", "resnet101.a1_in1k", _STRIKES_BACK, (82.322, 81.50)),
    ("ResNet101", "v1.5", "resnet101.a2_in1k", _STRIKES_BACK, (82.236, 81.32)),
    ("ResNet101", "v1.5", "resnet101.a3_in1k", _STRIKES_BACK_160, (79.814, 77.88)),
    ("ResNet101", "v1.5", "resnet101.gluon_in1k", _PLAIN, (79.310,)),
    ("ResNet101", "v1.5", "resnet101.tv_in1k", _PLAIN, (77.376,)),
    ("ResNet101", "v1.5", "resnet101.tv2_in1k", _TORCHVISION_2, (81.890, 79.90)),
    ("ResNet101", "c", "resnet101c.gluon_in1k", _PLAIN, (79.542,)),
    ("ResNet101", "s", "resnet101s.gluon_in1k", _PLAIN, (80.302,)),
    ("ResNet101", "d", "resnet101d.ra2_in1k", _TIMM_256, (83.016, 82.26)),
    ("ResNet101", "d", "resnet101d.gluon_in1k", _PLAIN, (80.426,)),
    ("ResNet152", "v1.5", "resnet152.a1h_in1k", _STRIKES_BACK, (83.450, 82.80)),
    ("ResNet152", "v1.5", "resnet152.a1_in1k", _STRIKES_BACK, (82.732, 81.97)),
    ("ResNet152", "v1.5", "resnet152.a2_in1k", _STRIKES_BACK, (82.608, 81.77)),
    ("ResNet152", "v1.5", "resnet152.a3_in1k", _STRIKES_BACK_160, (80.546, 78.89)),
    ("ResNet152", "v1.5", "resnet152.gluon_in1k", _PLAIN, (79.694,)),
    ("ResNet152", "v1.5", "resnet152.tv_in1k", _PLAIN, (78.322,)),
    ("ResNet152", "v1.5", "resnet152.tv2_in1k", _TORCHVISION_2, (82.288, 80.20)),
    ("ResNet152", "c", "resnet152c.gluon_in1k", _PLAIN, (79.910,)),
    ("ResNet152", "s", "resnet152s.gluon_in1k", _PLAIN, (81.002,)),
    ("ResNet152", "d", "resnet152d.ra2_in1k", _TIMM_256, (83.684, 83.14)),
    ("ResNet152", "d", "resnet152d.gluon_in1k", _PLAIN, (80.476,)),
    ("ResNet200", "d", "resnet200d.ra2_in1k", _TIMM_256, (83.964, 83.23)),
    ("SEResNet50", "v1.5", "seresnet50.ra2_in1k", _TIMM_TRAINED, (81.284, 80.26)),
    ("SEResNet50", "v1.5", "seresnet50.a1_in1k", _STRIKES_BACK, (81.102, 80.02)),
    ("SEResNet50", "v1.5", "seresnet50.a2_in1k", _STRIKES_BACK, (81.106, 80.08)),
    ("SEResNet50", "v1.5", "seresnet50.a3_in1k", _STRIKES_BACK_160, (77.028, 75.10)),
    ("SEResNet152", "d", "seresnet152d.ra2_in1k", _TIMM_256, (84.360, 83.69)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.a1h_in1k", _STRIKES_BACK, (82.014, 81.10)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.a1_in1k", _STRIKES_BACK, (81.466, 80.53)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.a2_in1k", _STRIKES_BACK, (81.304, 80.45)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.a3_in1k", _STRIKES_BACK_160, (79.268, 77.73)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.ra_in1k", _TIMM_TRAINED, (80.698, 79.76)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.gluon_in1k", _PLAIN, (79.360,)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.tv_in1k", _PLAIN, (77.618,)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.tv2_in1k", _TORCHVISION_2, (81.182, 79.37)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.fb_ssl_yfcc100m_ft_in1k", _PLAIN, (80.338,)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.fb_swsl_ig1b_ft_in1k", _PLAIN, (82.174,)),
    ("ResNeXt50_32x4d", "d", "resnext50d_32x4d.bt_in1k", _TIMM_TRAINED, (80.664, 79.67)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.tv_in1k", _PLAIN, (79.310,)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.tv2_in1k", _TORCHVISION_2, (82.832, 81.98)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.fb_ssl_yfcc100m_ft_in1k", _PLAIN, (81.606,)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.fb_swsl_ig1b_ft_in1k", _PLAIN, (84.302,)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", _PLAIN, (82.698,)),
    ("ResNeXt101_64x4d", "v1.5", "resnext101_64x4d.c1_in1k", _STRIKES_BACK, (83.156, 82.46)),
    ("ResNeXt101_64x4d", "v1.5", "resnext101_64x4d.gluon_in1k", _PLAIN, (80.600,)),
    ("ResNeXt101_64x4d", "v1.5", "resnext101_64x4d.tv_in1k", _PLAIN, (82.992,)),
    ("WideResNet50_2", "v1.5", "wide_resnet50_2.racm_in1k", _TIMM_TRAINED, (82.280, 81.45)),
    ("WideResNet50_2", "v1.5", "wide_resnet50_2.tv_in1k", _PLAIN, (78.480,)),
    ("WideResNet50_2", "v1.5", "wide_resnet50_2.tv2_in1k", _TORCHVISION_2, (81.606, 80.43)),
    ("WideResNet101_2", "v1.5", "wide_resnet101_2.tv_in1k", _PLAIN, (78.838,)),
    ("WideResNet101_2", "v1.5", "wide_resnet101_2.tv2_in1k", _TORCHVISION_2, (82.498, 80.48)),
    ("ResNetRS50", "d", "resnetrs50.tf_in1k", ((224, 0.91), (160, 0.91)), (79.896, 77.82)),
    ("ResNetRS101", "d", "resnetrs101.tf_in1k", ((288, 0.94), (192, 0.94)), (82.284, 80.69)),
    ("ResNetRS152", "d", "resnetrs152.tf_in1k", ((320, 1.0), (256, 1.0)), (83.702, 82.86)),
    ("ResNetRS200", "d", "resnetrs200.tf_in1k", ((320, 1.0), (256, 1.0)), (84.444, 83.87)),
    ("ResNetRS270", "d", "resnetrs270.tf_in1k", ((352, 1.0), (256, 1.0)), (84.428, 83.59)),
    ("ResNetRS350", "d", "resnetrs350.tf_in1k", ((384, 1.0), (288, 1.0)), (84.714, 84.30)),
    ("ResNetRS420", "d", "resnetrs420.tf_in1k", ((416, 1.0), (320, 1.0)), (85.006, 84.24)),
)
# Commit on the hub, SHA-256 and bytes of model.safetensors, where several public repositories
# state the same ones.
_PINNED: dict[str, tuple[str, str, int]] = {
    "resnet18.a1_in1k": (
        "491b427b45c94c7fb0e78b5474cc919aff584bbf",
        "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
        46_807_446,
    ),
    "resnet18.tv_in1k": (
        "bbd144b3e5565108aad885f145491d11bc6ce807",
        "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
        46_807_446,
    ),
    "resnet50.tv_in1k": (
        "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
        "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
        102_469_840,
    ),
    "wide_resnet50_2.racm_in1k": (
        "30f73aceaaa1911830a9795b83ab1908dba18719",
        "03b71d65fb2c73bb0de079a1781009f27a782ec481d2f64ab3bde9b1cdec3000",
        275_835_296,
    ),
    "resnet50.a1_in1k": (
        "767268603ca0cb0bfe326fa87277f19c419566ef",
        "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
        102_469_840,
    ),
}


def _row(
    architecture: str, variant: str, name: str, sizes: _Sizes, top1: tuple[float, ...]
) -> Published:
    tag = name.partition(".")[2].removesuffix("_in1k").removesuffix("_ft")
    by_others = {"tv": _BSD, "tv2": _BSD}.get(tag, _NC if tag.startswith("fb_") else None)
    commit, sha256, size = _PINNED.get(name, ("", "", None))
    half = "ra4_" in tag
    return Published(
        architecture=architecture,
        variant=variant,
        tag=f"timm-{tag}",
        urls=(f"hf://timm/{name}" + (f"@{commit}" if commit else ""),),
        evaluations=tuple(Evaluation(*at, accuracy) for at, accuracy in zip(sizes, top1)),
        interpolation="bilinear" if by_others else "bicubic",
        licence=by_others or "Apache-2.0",
        source=f"https://huggingface.co/timm/{name}",
        sha256=sha256,
        size=size,
        mean=HALF if half else IMAGENET_MEAN,
        std=HALF if half else IMAGENET_STD,
    )


ROWS: tuple[Published, ...] = tuple(_row(*file) for file in _FILES)

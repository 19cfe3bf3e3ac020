"""Writes docs/models.md from the tables of networks and of published weights.

    python docs/make_models_page.py

A test holds the page to what this writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from keras_resnet.architectures import ARCHITECTURES, VARIANTS
from keras_resnet.weights.catalog import CATALOG, Published, find, published

PAGE = Path(__file__).parent / "models.md"
INTRODUCTION = """\
# Networks and weights

This page is written by `python docs/make_models_page.py` from the two tables that the library
itself uses; `keras-resnet models` and `keras-resnet weights` print them.

## Choosing one

- **A phone, few classes, pictures of your own**: `ResNet18` or `ResNet50` with
  `weights="imagenet"`, fine-tuned. An int8 file has about a byte for each parameter of the
  table below.
- **Accuracy first**: compare the top-1 column of the published weights with the multiply-adds.
  `variant="d"` adds 6 % of them to a ResNet-50.
- **Latency first**: `ResNet18` at 128 or 160 pixels. Multiply-adds do not tell how fast a
  network is on a processor, least of all for grouped convolutions (`ResNeXt…`): time the files
  with `keras-resnet benchmark` on yours, and check int8 with `keras-resnet verify`.
- **32×32 pictures**: `ResNet20` to `ResNet110` with `shortcut="A"` as in the paper, or a
  `WideResNet…`; `ResNet8` where kilobytes count.
- **Detection, segmentation**: `keras_resnet.features("ResNet50", output_stride=16)` gives the
  outputs `P2` … `P5`, states their strides, and is an image encoder for KerasHub.
- **Small batches**: `norm="group"`, or `freeze(model, batch_norm="frozen")` over pretrained
  weights.

```python
model = keras_resnet.ResNet50(weights="imagenet", classes=5)  # the classifier starts anew
print(model.load_report)
keras_resnet.freeze(model, through="stage3")  # then compile and fit
```

## Weights

`weights=` takes `"imagenet"` (the best published file, at the size of the input, whose licence
allows commercial use), a
tag of the table below, `"hf://owner/name"` of the Hugging Face hub, or a path: `.keras`,
`.weights.h5`, keras.applications' `.h5`, `.safetensors`, and PyTorch's `.pth` and `.th` where
PyTorch is installed.
Nothing that is downloaded or opened can run code: no pickle is read but by PyTorch's restricted
reader, `.keras` files are opened in safe mode, HDF5 is read in a process of its own, and hashes are
checked before use. How images were prepared (mean, standard deviation, order of channels, crop,
interpolation, labels) follows the weights into `model.contract`. Files go to `KERAS_RESNET_CACHE`
(`~/.cache/keras-resnet` by default); `KERAS_RESNET_OFFLINE=1` downloads nothing and says which
file it wants where.

Networks of v1 and v1.5 have weights of the same shapes, and answer wrongly with each other's.
Where a file's origin tells which it is, the wrong one is refused.

The hash of a file is known here in full, or by the digits that its publisher prints, or is asked of
the hub at the download; nothing in this repository has downloaded one of them, because it was built
without access to those hosts: the loader is proven on random weights of the same networks made by
torchvision, timm and keras.applications, and on the CIFAR files.

**Top-1** is the publisher's figure, at the size and crop beside it. Some files are best at a size
above the network's default: a timm `a1` file evaluated at 288 pixels loses about a point at 224.
"""


def networks() -> Iterator[str]:
    yield "## Networks\n"
    yield (
        "Parameters are the trainable ones, of a network for 1,000 classes (10 for CIFAR); "
        "multiply-adds are those of convolutions and the classifier, for one image of the size "
        "given. "
        'A CIFAR network\'s are with `shortcut="B"`, the default.\n'
    )
    yield "| network | variant | size | parameters | multiply-adds | paper |"
    yield "|---|---|---|---|---|---|"
    for row in ARCHITECTURES.values():
        height, width, _ = row.input_shape
        yield (
            f"| `{row.name}` | {row.variant} | {height}×{width} | {row.parameters / 1e6:.2f} M "
            f"| {row.multiply_adds / 1e9:.2f} G | {row.paper} |"
        )
    yield "\nVariants, for any of them (`c`, `s` and `d` for the ImageNet networks):\n"
    for name, variant in VARIANTS.items():
        yield f"- `{name}`: {variant.description}"


def weights() -> Iterator[str]:
    yield "\n## Published weights\n"
    yield '★ is what `"imagenet"` (or `"cifar10"`) takes.\n'
    columns = ("network", "variant", "tag", "top-1", "at", "crop", "interpolation", "licence")
    columns += ("hash", "source")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in CATALOG:
        if row.include_top:
            yield _weights_row(row)
    yield (
        "\nkeras.applications' files without the classifier are in the catalog too; "
        "`include_top=False` takes any file."
    )


def _weights_row(row: Published) -> str:
    best = find(row.architecture, row.variant, row.label_set) if _has_best(row) else None
    star = " ★" if row is best else ""
    top1 = "–" if row.top1 is None else f"{row.top1:.2f}"
    evaluation = row.evaluations[0]
    cells = (
        f"`{row.architecture}`",
        row.variant,
        f"`{row.tag}`{star}",
        top1,
        f"{evaluation.resolution}",
        f"{evaluation.crop_fraction:g}",
        row.interpolation,
        row.licence,
        _hash(row),
        row.source,
    )
    return f"| {' | '.join(cells)} |"


def _has_best(row: Published) -> bool:
    rows = published(row.architecture, row.variant)
    return any(r.commercial and r.include_top and r.label_set == row.label_set for r in rows)


def _hash(row: Published) -> str:
    if len(row.sha256) == 64:
        return "SHA-256"
    if row.sha256:
        return f"SHA-256, first {len(row.sha256)} digits"
    return "MD5" if row.md5 else "the hub's"


def page() -> str:
    """The whole text."""
    return "\n".join([INTRODUCTION, *networks(), *weights(), ""])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

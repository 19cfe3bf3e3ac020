"""The HDF5 files of Keras: legacy ``.h5``, Keras 3 ``.weights.h5``, and the one inside ``.keras``.

A file may contain external links and storage, virtual datasets, or cyclic groups; Keras writes
none of them, and none is followed.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import zipfile
from collections.abc import Iterator
from typing import Any, Literal

import h5py
import ml_dtypes
import numpy as np

from keras_resnet.weights.formats.limits import check_count, check_size

Format = Literal["keras-h5", "keras-weights-h5"]

MAX_DEPTH = 64
MAX_ATTRIBUTE_BYTES = 16 << 20
# Groups that contain layers and are not layers themselves; the second is Keras 2.13's.
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
# Weights of a model outside its layers, in the legacy format.
OWN_WEIGHTS = "top_level_model_weights"
# Keras 3 numbers a layer's variables, in the order in which the layer creates them. Which
# ones there are depends on its arguments; where the count leaves a doubt, numbers stay.
KERNEL = (("kernel",), ("kernel", "bias"))
VARIABLES = {
    "conv2d": KERNEL,
    "depthwise_conv2d": KERNEL,
    "dense": KERNEL,
    "batch_normalization": (("gamma", "beta", "moving_mean", "moving_variance"),),
    "group_normalization": (("gamma", "beta"),),
}


def read_hdf5(
    path: str | os.PathLike[str], member: str | None = None
) -> tuple[tuple[Format, str | None], dict[str, np.ndarray]]:
    """The arrays of an HDF5 file, or of one inside a zip archive, named as in ``Tensors``.

    Returns:
        The format with the model's configuration, JSON, if the file holds a whole model; and the
        arrays.

    The HDF5 library does not validate files: on damaged ones it may crash or hang. Other
    modules call it through ``sandbox.read_hdf5_sandboxed``.

    Raises:
        ValueError: The file is not one of Keras's, or not safe to read.
        OSError, RuntimeError, KeyError: The file is damaged.
    """
    if member is None:
        with h5py.File(os.fspath(path), "r", locking=False) as file:
            return _read(file, os.path.getsize(path))
    with zipfile.ZipFile(path) as archive:
        content = archive.read(member)
    with h5py.File.in_memory(file_image=content) as file:
        return _read(file, len(content))


def _read(file: h5py.File, size: int) -> tuple[tuple[Format, str | None], dict[str, np.ndarray]]:
    root = file if _link_type(file, "model_weights") is None else _group(file, "model_weights")
    legacy = "layer_names" in root.attrs or "layer_names0" in root.attrs
    datasets: dict[str, h5py.Dataset] = {}
    for name, dataset in _legacy(root) if legacy else _keras3(file):
        if name in datasets:
            raise ValueError(f"the file holds two arrays named {name!r}")
        _check_dataset(name, dataset)
        datasets[name] = dataset
        check_count(len(datasets))
    check_size(sum(map(_declared_bytes, datasets.values())), size)
    arrays = {name: _array(dataset) for name, dataset in datasets.items()}
    config = _attribute(file, "model_config")
    form: Format = "keras-h5" if legacy else "keras-weights-h5"
    return (form, None if config is None else _text(config)), arrays


def _legacy(root: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    layers = _strings(root, "layer_names")
    check_count(len(layers))
    if _link_type(root, OWN_WEIGHTS) is not None:
        layers.append(OWN_WEIGHTS)
    for layer in layers:
        group = _group(root, layer)
        for weight in _strings(group, "weight_names"):
            # Keras 2 writes conv/kernel:0, Keras 3 conv/kernel or sequential/conv/kernel.
            path = "/" + re.sub(r":\d+$", "", weight)
            _, found, variable = path.partition(f"/{layer}/")
            yield f"{layer}/{variable}" if found else f"{layer}{path}", _descend(group, weight)


def _keras3(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    # (keys down to a group, names of the layers down to it, the group); the next one last.
    pending: list[tuple[tuple[str, ...], tuple[str, ...], h5py.Group]] = [((), (), file)]
    seen = set()
    while pending:
        path, names, group = pending.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen or len(path) > MAX_DEPTH:
            raise ValueError(f"its groups are cyclic, or nested deeper than {MAX_DEPTH} levels")
        seen.add(address)
        check_count(len(seen) + len(pending))
        inner = sorted(group, key=_natural, reverse=True)
        if "vars" in inner:
            inner.remove("vars")
            variables = _group(group, "vars")
            if path:
                names = (*names, str(_attribute(variables, "name") or path[-1]))
            for variable, dataset in _variables(path, variables):
                yield "/".join((*names, variable)), dataset
        elif path and path[-1] not in CONTAINERS:
            names = (*names, path[-1])
        for key in inner:
            if (*path, key) != ("optimizer",):
                pending.append(((*path, key), names, _group(group, key)))


def _variables(path: tuple[str, ...], group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    keys = sorted(group, key=_natural)
    datasets = [_descend(group, key) for key in keys]
    layer_class = re.sub(r"_\d+$", "", path[-1]) if path else ""
    layouts = {len(layout): layout for layout in VARIABLES.get(layer_class, ())}
    # Integers are a quantized layer's, which has its scales among the variables.
    plain = all(getattr(dataset, "dtype", np.dtype(int)).kind in "fV" for dataset in datasets)
    if plain and keys == [str(i) for i in range(len(keys))]:
        keys = list(layouts.get(len(keys), keys))
    yield from zip(keys, datasets)


def _natural(key: str) -> tuple[str, int]:
    """Sorts ``conv2d, conv2d_1, conv2d_2, conv2d_10`` in this order."""
    match = re.fullmatch(r"(.*?)_?(\d{1,9})", key)
    return (match[1], int(match[2])) if match else (key, -1)


def _group(parent: h5py.Group, path: str) -> h5py.Group:
    group = _descend(parent, path)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{path[:80]!r} is no group")
    return group


def _descend(parent: h5py.Group, path: str) -> Any:
    """The item at a path; soft and external links are refused."""
    parts = path.split("/")
    if not all(parts) or {".", ".."} & set(parts) or len(parts) > MAX_DEPTH:
        raise ValueError(f"it refers to {path[:80]!r}, which is no path inside the file")
    item = parent
    for part in parts:
        link = _link_type(item, part)
        if link is None:
            raise ValueError(f"it refers to {path[:80]!r}, which it does not hold")
        if link != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{path[:80]!r} is a soft or external link, which is not followed")
        item = item[part]
    return item


def _link_type(parent: Any, name: str) -> int | None:
    """The kind of link, without following it: ``in`` and ``get`` would open other files."""
    if not isinstance(parent, h5py.Group):
        return None
    encoded = name.encode("utf-8", "surrogateescape")
    return parent.id.links.get_info(encoded).type if parent.id.links.exists(encoded) else None


def _check_dataset(name: str, dataset: h5py.Dataset) -> None:
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name!r} is no dataset")
    if dataset.shape is None or not (dataset.dtype.kind in "fiu" or _is_bfloat16(dataset)):
        raise ValueError(f"{name!r} holds {dataset.dtype}, not numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name!r} keeps its data in another file, which is not opened")
    if dataset.id.get_create_plist().get_nfilters():
        # Filters can be stacked, and then expand a millionfold in the middle of a chunk.
        raise ValueError(f"{name!r} is compressed; h5repack -f NONE writes it plain")


def _declared_bytes(dataset: h5py.Dataset) -> int:
    elements = max(math.prod(dataset.shape), math.prod(dataset.chunks or ()))
    return elements * dataset.dtype.itemsize


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    return dataset.dtype == np.dtype("V2") and _attribute(dataset, "dtype") == "bfloat16"


def _array(dataset: h5py.Dataset) -> np.ndarray:
    array = np.asarray(dataset[()])
    return array.view(ml_dtypes.bfloat16).astype("float32") if array.dtype.kind == "V" else array


def _attribute(item: h5py.HLObject, name: str) -> Any:
    if name not in item.attrs:
        return None
    stored = item.attrs.get_id(name)
    if math.prod(stored.shape) * stored.dtype.itemsize > MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"the attribute {name!r} claims more than {MAX_ATTRIBUTE_BYTES:,} bytes")
    return item.attrs[name]


def _strings(group: h5py.Group, name: str) -> list[str]:
    """A list of names, which Keras cuts into numbered attributes where one would be too long."""
    numbered = itertools.takewhile(
        lambda key: key in group.attrs, (f"{name}{i}" for i in itertools.count())
    )
    keys = [name] if name in group.attrs else numbered
    values = [value for key in keys for value in np.ravel(_attribute(group, key)).tolist()]
    return [_text(value) for value in values]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if not isinstance(value, str):
        raise ValueError(f"it has {type(value).__name__} where a name should be")
    return value

"""What a network is beyond the shapes of its weights, which do not tell graphs apart.

Weights of v1 fit into v1.5, those of a network without blur into one with it, and answer
wrongly. Where a file's origin tells how its network was built, that is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GRAPH = "graph"  # the key in the metadata of our safetensors
FACTS = ("variant", "shortcut", "antialias", "epsilon")


def graph_of(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of one of our networks, from its configuration.

    Args:
        layers: ``model.get_config()["layers"]``, or the same out of a ``.keras`` file.

    Returns:
        ``variant``, ``shortcut`` and ``antialias`` as the constructors take them (basic blocks,
        which are the same in v1 and v1.5, are called v1.5), and the ``epsilon`` of the norms.
    """
    configs = {layer["config"]["name"]: layer["config"] for layer in layers}
    kinds = {layer["class_name"] for layer in layers}
    epsilons = [c["epsilon"] for name, c in configs.items() if "norm" in name and "epsilon" in c]
    return {
        "variant": _variant(configs),
        "shortcut": _shortcut(configs, kinds),
        "antialias": "BlurPool" in kinds,
        "epsilon": epsilons[0] if epsilons else None,
    }


def _variant(configs: Mapping[str, Mapping[str, Any]]) -> str:
    if "post_norm" in configs:
        return "v2"
    if "stem_conv1" in configs:
        if any(name.endswith("_shortcut_pool") for name in configs):
            return "d"
        return "s" if configs["stem_conv1"]["filters"] > 32 else "c"
    first = configs.get("stage2_block1_conv1", {"strides": (1, 1)})
    bottleneck = "stage1_block1_conv3" in configs
    return "v1" if bottleneck and 2 in first["strides"] else "v1.5"


def _shortcut(configs: Mapping[str, Any], kinds: set[str]) -> str:
    if "Add" not in kinds:
        return "none"
    return "A" if any(name.endswith("_shortcut_pad") for name in configs) else "B"

"""The model file: what goes in comes out, contract included."""

import copy
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import classifier
from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.models import Constructor, ResNet8, ResNet20, ResNet110
from keras_resnet.saving import load_model

CONTRACT = Contract(
    None,
    None,
    mean=(1, 2, 3),
    std=(4, 5, 6),
    labels=tuple("abcdefg"),
    resize="stretch",
    crop_fraction=0.9,
    interpolation="bicubic",
)
# One of each kind of block, stem and shortcut.
SAVED = (
    "ResNet18",
    "ResNet50",
    "ResNet50V2",
    "SEResNet18",
    "ResNeXt50_32x4d",
    "ResNetRS50",
    "ResNet20",
    "ResNet20V2",
    "WideResNet16_8",
    "ResNet8",
)
DEEP = ("ResNet101", "ResNet152")
PREDICT_IN_A_FRESH_PROGRAM = """
import sys
import {imports}
import numpy as np
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], keras.ops.convert_to_numpy(model(np.load(sys.argv[2]))))
print(type(model).__name__, model.contract)
"""


def small(name: str | Constructor, **arguments: Any) -> ImageClassifier:
    build = getattr(keras_resnet, name) if isinstance(name, str) else name
    return build(input_shape=(32, 32, 3), classes=7, contract=CONTRACT, **arguments)


def plain(config: dict[str, Any]) -> Any:
    """As in a file: tuples become lists."""
    return json.loads(json.dumps(config))


def assert_same(ours: ImageClassifier, theirs: ImageClassifier, x: np.ndarray) -> None:
    assert type(ours) is ImageClassifier
    assert ours.contract == theirs.contract
    assert (ours.name, ours.input_shape) == (theirs.name, theirs.input_shape)
    np.testing.assert_array_equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", SAVED)
def test_model_file_round_trip(
    tmp_path: Path, rng: np.random.Generator, name: str, reduced: Callable[[str], Constructor]
) -> None:
    x = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    model = small(reduced(name))
    assert model.contract == CONTRACT.replace(height=32, width=32)
    model.save(tmp_path / "model.keras")
    assert_same(load_model(tmp_path / "model.keras"), model, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_configuration_of_a_deep_model_round_trip(name: str) -> None:
    model = small(name)
    copied = ImageClassifier.from_config(plain(model.get_config()))
    assert plain(copied.get_config()) == plain(model.get_config())
    assert copied.contract == model.contract


@pytest.mark.parametrize(
    "options",
    [
        {"shortcut": "A"},
        {"include_preprocessing": True},
        {"zero_init_residual": True, "batch_norm_epsilon": 1e-4},
        {"include_top": False, "pooling": "max"},
    ],
    ids=str,
)
def test_options_survive(tmp_path: Path, rng: np.random.Generator, options: dict[str, Any]) -> None:
    x = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    model = small("ResNet8", **options)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert_same(loaded, model, x)
    assert plain(loaded.get_config()) == plain(model.get_config())


def test_mixed_precision_survives(tmp_path: Path, policy: Any) -> None:
    policy("mixed_bfloat16")
    model = small("ResNet8")
    model.save(tmp_path / "model.keras")
    policy("float32")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.get_layer("stem_norm").compute_dtype == "bfloat16"
    assert loaded.get_layer("predictions").compute_dtype == "float32"


@pytest.mark.parametrize("imports", ["keras, keras_resnet", "keras_resnet, keras"])
def test_loads_where_only_keras_and_keras_resnet_are_imported(
    tmp_path: Path, rng: np.random.Generator, python: Any, imports: str
) -> None:
    x = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    model = small("ResNet20", shortcut="A")  # with every layer of ours
    paths = [tmp_path / name for name in ("model.keras", "x.npy", "y.npy")]
    model.save(paths[0])
    np.save(paths[1], x)
    printed = python(PREDICT_IN_A_FRESH_PROGRAM.format(imports=imports), *paths)
    assert printed.strip() == f"ImageClassifier {model.contract}"
    np.testing.assert_allclose(np.load(paths[2]), model(x), atol=1e-6)


def test_config_and_deepcopy_keep_the_contract(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    model = small("ResNet8")
    assert ImageClassifier.from_config(model.get_config()).contract == model.contract
    assert_same(copy.deepcopy(model), model, x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"variant": "v1", "antialias": True, "output_stride": 8, "width": 0.5},
        {"variant": "v2", "stochastic_depth": 0.1, "norm": "group", "batch_norm_epsilon": 1e-4},
        {"shortcut": "A", "zero_init_residual": True, "batch_norm_momentum": 0.95},
    ],
    ids=str,
)
def test_what_was_chosen_travels_with_the_model(
    tmp_path: Path, options: dict[str, Any], reduced: Callable[[str], Constructor]
) -> None:
    model = reduced("ResNet50")(input_shape=(32, 32, 3), classes=2, **options)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.block_config == model.block_config == copy.deepcopy(model).block_config
    chosen = vars(loaded.block_config) | {
        "variant": loaded.block_config.architecture.variant,
        "width": loaded.block_config.architecture.width,
    }
    assert {name: chosen[name] for name in options} == options


def test_clone_model_gives_a_classifier_without_the_contract() -> None:
    clone = keras.models.clone_model(small("ResNet8"))
    assert type(clone) is ImageClassifier
    assert clone.contract == Contract(None, None)


def test_a_contract_belongs_to_one_model() -> None:
    first, second = ResNet8(), ResNet8()
    first.contract = first.contract.replace(labels=("x",))
    assert second.contract.labels == ()


def test_recursion_limit_suffices_for_resnet1202(monkeypatch: pytest.MonkeyPatch) -> None:
    """By ResNet110, an eleventh as deep, under an eleventh of the limit."""
    before = sys.getrecursionlimit()
    monkeypatch.setattr(classifier, "RECURSION_LIMIT", classifier.RECURSION_LIMIT * 110 // 1202)
    try:
        sys.setrecursionlimit(400)  # less than the layers, and some are spent on pytest
        copied = ImageClassifier.from_config(ResNet110().get_config())
        assert sys.getrecursionlimit() == 400
    finally:
        sys.setrecursionlimit(before)
    assert len(copied.layers) > 380


def test_load_model_refuses_what_is_no_model(tmp_path: Path) -> None:
    text = tmp_path / "text.keras"
    text.write_text("no zip")
    archive = tmp_path / "zip.keras"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", "{}")
    cut = tmp_path / "cut.keras"
    small("ResNet8").save(cut)
    cut.write_bytes(cut.read_bytes()[:-1000])
    for path in (text, archive, cut):
        with pytest.raises(ValueError, match=rf"{path.name} is not a readable \.keras file"):
            load_model(path)
    with pytest.raises(ValueError, match="no model file"):
        load_model(tmp_path / "missing.keras")


@pytest.fixture(scope="module")
def resnet8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resnet8") / "model.keras"
    small("ResNet8").save(path)
    return path


def rewritten(path: Path, changed: Path, change: Any) -> Path:
    """A copy of a model file with another configuration."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    tree = json.loads(members["config.json"])
    change(tree["config"])
    members["config.json"] = json.dumps(tree).encode()
    with zipfile.ZipFile(changed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return changed


@pytest.mark.parametrize(
    ("record", "key", "value", "message"),
    [
        ("contract", None, [1, 2], "set of keys and values"),
        ("contract", None, "text", "set of keys and values"),
        ("contract", "labels", {"a": 1}, "labels must be names"),
        ("contract", "labels", ["a"] * 6 + [None], "labels must be names"),
        ("contract", "labels", ["a"] * 6, "6 labels for 7 outputs"),
        ("contract", "mean", [float("nan")] * 3, "one finite number a channel"),
        ("contract", "std", [float("inf")] * 3, "one finite number a channel"),
        ("contract", "std", ["a", "b", "c"], "one finite number a channel"),
        ("contract", "height", 10**9, "from 1 to 16384"),
        ("contract", "height", 31, "is about images"),
        ("contract", "channels", 10**9, "from 1 to 1024"),
        ("contract", "channels", 1, "is about images"),
        ("contract", "crop_fraction", "0.875", "crop_fraction must be"),
        ("contract", "crop_fraction", float("nan"), "crop_fraction must be"),
        ("contract", "resize", ["crop"], "resize must be one of"),
        ("block_config", None, [], "is described by"),
        ("block_config", "name", "ResNet9", "No architecture is called"),
        ("block_config", "name", 7, "has a name"),
        ("block_config", "variant", "v9", "variant must be one of"),
        ("block_config", "width", float("nan"), "width must be between"),
        ("block_config", "antialias", "yes", "antialias must be one of"),
        ("block_config", "batch_norm_epsilon", [1], "batch_norm_epsilon must be"),
        ("block_config", "batch_norm_momentum", float("nan"), "batch_norm_momentum must be"),
        ("block_config", "output_stride", 10**9, "output_stride of ResNet8 must be one of"),
    ],
    ids=str,
)
def test_what_a_model_file_says_of_itself_is_checked(
    resnet8: Path, tmp_path: Path, record: str, key: str | None, value: Any, message: str
) -> None:
    def change(config: dict[str, Any]) -> None:
        if key is None:
            config[record] = value
        else:
            config[record][key] = value

    path = rewritten(resnet8, tmp_path / "changed.keras", change)
    with pytest.raises(ValueError, match=message) as error:
        load_model(path)
    assert "changed.keras" in str(error.value) and "\n" not in str(error.value)


def test_load_model_refuses_a_model_without_a_contract(tmp_path: Path) -> None:
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Dense(2)(x)).save(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match="Functional without a contract"):
        load_model(tmp_path / "plain.keras")


@pytest.mark.parametrize("name", ["w.keras", "w.weights.h5"])
def test_weights_argument_reads_what_the_same_network_saved(name: str, tmp_path: Path) -> None:
    model = ResNet8()
    path = tmp_path / name
    model.save(path) if name.endswith(".keras") else model.save_weights(path)
    loaded = ResNet8(weights=path)
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("other", ["network", "truncated", "empty", "missing"])
def test_weights_that_do_not_fit_are_an_error_of_one_line(other: str, tmp_path: Path) -> None:
    path = tmp_path / "w.weights.h5"
    ResNet8().save_weights(path)
    content = path.read_bytes()
    if other == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif other == "empty":
        path.write_bytes(b"")
    elif other == "missing":
        path.unlink()
    build = ResNet20 if other == "network" else ResNet8
    with pytest.raises(ValueError, match=r"w\.weights\.h5") as error:
        build(weights=path)
    assert "\n" not in str(error.value)

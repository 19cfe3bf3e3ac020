"""``weights=``: files of keras.applications and our own, what is adapted, what is refused."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_resnet
from keras_resnet import Contract, ResNet8, ResNet18, ResNet20, ResNet50, create_model
from keras_resnet.weights import catalog, load

# The three ways in which people have these weights; deeper networks repeat the blocks of these.
APPLICATIONS = [("ResNet50", ".h5"), ("ResNet50V2", ".keras"), ("ResNet50", ".weights.h5")]
APPLICATIONS += [
    pytest.param(f"ResNet{depth}{version}", ".weights.h5", marks=pytest.mark.slow)
    for depth in (101, 152)
    for version in ("", "V2")
]
SHAPE = (65, 70, 3)


def randomize(model: keras.Model, rng: np.random.Generator) -> None:
    """Random biases and batch-norm statistics; kernels are random from the start."""
    for weight in model.weights:
        if weight.name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("moving_mean", "beta", "bias"):
            weight.assign(rng.normal(0, 0.2, weight.shape))


def images(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(0, 255, shape).astype("float32")


def assert_alike(ours: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def of_applications(name: str) -> Any:
    if name.endswith("V2"):
        return getattr(keras_resnet, name), keras.applications.resnet_v2
    return lambda **kw: create_model(name, variant="v1", **kw), keras.applications.resnet


@pytest.mark.parametrize(("name", "suffix"), APPLICATIONS)
def test_outputs_are_those_of_keras_applications(
    tmp_path: Path, rng: np.random.Generator, name: str, suffix: str
) -> None:
    build, their_module = of_applications(name)
    theirs = getattr(keras.applications, name)(
        weights=None, input_shape=SHAPE, classifier_activation=None
    )
    randomize(theirs, rng)
    path = tmp_path / f"theirs{suffix}"
    theirs.save_weights(path) if suffix == ".weights.h5" else theirs.save(path)
    pixels = images(rng, 2, *SHAPE)
    expected = theirs(their_module.preprocess_input(pixels.copy()))

    ours = build(weights=path, input_shape=SHAPE, classifier_activation=None)
    assert_alike(ours(their_module.preprocess_input(pixels.copy())), expected)
    assert_alike(ours(keras_resnet.preprocess_input(pixels, ours.contract)), expected)
    if name.startswith("ResNet50"):
        raw = build(
            weights=path, input_shape=SHAPE, classifier_activation=None, include_preprocessing=True
        )
        assert_alike(raw(pixels), expected)
        assert_alike(keras_resnet.deployable(ours)(pixels), expected)


def test_keras_applications_weights_are_v1_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    keras.applications.ResNet50(weights=None, input_shape=SHAPE).save(path)
    with pytest.raises(ValueError, match=r"variant='v1', and this network has variant='v1\.5'"):
        ResNet50(weights=path)


def test_folding_makes_up_for_another_epsilon(tmp_path: Path, rng: np.random.Generator) -> None:
    theirs = keras.applications.ResNet50(
        weights=None, input_shape=SHAPE, classifier_activation=None
    )
    randomize(theirs, rng)
    theirs.save(tmp_path / "theirs.h5")
    ours = ResNet50(
        weights=tmp_path / "theirs.h5",
        variant="v1",
        input_shape=SHAPE,
        classifier_activation=None,
        batch_norm_epsilon=1e-2,
    )
    x = rng.normal(size=(1, *SHAPE)).astype("float32")
    assert_alike(ours(x), theirs(x))
    assert ours.load_report.adapted["stem_norm/moving_mean"].endswith("folded in")


CIFAR = {
    "ResNet20": ("cifar10-torch/resnet20-12fca82f.th", 9173),
    "ResNet32": ("cifar10-torch/resnet32-d509ac18.th", 9263),
    "ResNet44": ("cifar10-torch/resnet44-014dd654.th", 9310),
    "ResNet56": ("cifar10-torch/resnet56-4bfd9763.th", 9339),
    "ResNet8": ("mlperf-tiny/pretrainedResnet.h5", 8719),
}


@pytest.fixture(scope="session")
def cifar10(test_data: Path) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds

    loaded = tfds.load(
        "cifar10",
        split="test",
        data_dir=test_data / "tensorflow_datasets",
        download=False,
        batch_size=-1,
        as_supervised=True,
    )
    return tfds.as_numpy(loaded)


@pytest.mark.parametrize(
    "name",
    [
        "ResNet8",
        *(pytest.param(f"ResNet{depth}", marks=pytest.mark.slow) for depth in (20, 32, 44, 56)),
    ],
)
def test_published_accuracy_on_cifar10_to_the_image(
    test_data: Path, cifar10: tuple[np.ndarray, np.ndarray], name: str
) -> None:
    if name != "ResNet8":
        pytest.importorskip("torch")
    file, right = CIFAR[name]
    pictures, classes = cifar10
    shortcut: Any = "B" if name == "ResNet8" else "A"
    path = test_data / "checkpoints" / file
    model = create_model(name, weights=path, shortcut=shortcut)
    assert model.contract.labels == catalog.class_names("cifar10")
    x = keras_resnet.preprocess_input(pictures, model.contract)
    answers = model.predict(x, batch_size=500, verbose=0).argmax(1)
    assert int(np.sum(answers == classes)) == right


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a ResNet-18 for 1000 classes."""
    path = tmp_path_factory.mktemp("saved") / "resnet18.safetensors"
    return keras_resnet.save_weights(ResNet18(input_shape=(32, 32, 3)), path)


def test_another_number_of_classes_reinitialises_the_classifier(saved: Path) -> None:
    model = ResNet18(weights=saved, input_shape=(32, 32, 3), classes=7)
    assert model.output_shape == (None, 7)
    report = model.load_report
    assert report.reinitialised == ("predictions/kernel", "predictions/bias")
    assert len(report.loaded) == len(model.weights) - 2
    assert "reinitialised  2" in str(report) and "predictions/kernel" in str(report)


def test_without_the_top_the_classifier_is_unused(saved: Path) -> None:
    report = ResNet18(weights=saved, input_shape=(32, 32, 3), include_top=False).load_report
    assert set(report.unused) == {"fc.weight", "fc.bias"}
    assert not report.missing


def test_a_file_without_classifier_leaves_it_missing(tmp_path: Path) -> None:
    headless = ResNet20(include_top=False)
    keras_resnet.save_weights(headless, tmp_path / "w.safetensors")
    report = ResNet20(weights=tmp_path / "w.safetensors").load_report
    assert report.missing == ("predictions/kernel", "predictions/bias")


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_another_number_of_channels_adapts_the_stem(
    saved: Path, rng: np.random.Generator, channels: int
) -> None:
    gray = images(rng, 2, 32, 32, 1)
    rgb = ResNet18(weights=saved, input_shape=(32, 32, 3))
    model = ResNet18(weights=saved, input_shape=(32, 32, channels))
    kernel = np.asarray(model.get_layer("stem_conv").kernel)
    before = np.asarray(rgb.get_layer("stem_conv").kernel)
    if channels == 1:  # the gray image in red, green and blue
        np.testing.assert_allclose(kernel, before.sum(2, keepdims=True), rtol=1e-6)
        assert_alike(model(gray), rgb(np.repeat(gray, 3, axis=-1)))
    else:
        expected = before[:, :, [i % 3 for i in range(channels)]] * 3 / channels
        np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    assert list(model.load_report.adapted) == ["stem_conv/kernel"]


def test_preprocessing_follows_the_weights_of_a_model_file(tmp_path: Path) -> None:
    contract = Contract(32, 32, mean=(1, 2, 3), std=(4, 5, 6), labels=tuple("abcdefghij"))
    model = ResNet20(contract=contract)
    model.save(tmp_path / "w.keras")
    keras_resnet.save_weights(model, tmp_path / "w.safetensors")
    for name in ("w.keras", "w.safetensors"):
        loaded = ResNet20(weights=tmp_path / name)
        assert loaded.contract == model.contract
        fewer = ResNet20(weights=tmp_path / name, classes=3)
        assert (fewer.contract.mean, fewer.contract.labels) == ((1, 2, 3), ())
    mine = Contract(32, 32, mean=(9, 9, 9))
    assert ResNet20(weights=tmp_path / "w.keras", contract=mine).contract.mean == (9, 9, 9)


def test_a_catalog_tag_loads_what_the_cache_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    published = catalog.find("ResNet18", "v1.5", "timm-a1")
    monkeypatch.setattr(load, "fetch", lambda row: {published: saved}[row])
    model = ResNet18(weights="timm-a1", variant="v1")  # of basic blocks: the same as v1.5
    assert model.contract.labels == catalog.class_names("imagenet")
    assert model.contract.interpolation == published.interpolation
    assert model.contract.crop_fraction == published.contract_fields(224)["crop_fraction"]


def test_an_unknown_tag_says_which_there_are() -> None:
    with pytest.raises(ValueError, match=r"'torchvision-v9'.*ResNet50.*torchvision-v2"):
        ResNet50(weights="torchvision-v9")


def test_offline_says_which_file_goes_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "1")
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(tmp_path))
    for weights in ("imagenet", "hf://timm/resnet50.a1_in1k"):
        with pytest.raises(OSError, match="huggingface") as error:
            ResNet50(weights=weights)
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def altered(path: Path, tmp_path: Path, change: Any) -> Path:
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, tmp_path / "altered.safetensors")
    return tmp_path / "altered.safetensors"


REFUSED = [
    (lambda a: a.pop("layer2.0.conv1.weight"), {}, r"nothing for stage2_block1_conv1/kernel"),
    (lambda a: a.update(extra=np.zeros(3, "float32")), {}, r"its extra \(3,\) is not a weight"),
    (
        lambda a: a.update({"bn1.weight": np.zeros(3, "float32")}),
        {},
        r"its bn1\.weight is \(3,\), and stem_norm/gamma is \(64,\)",
    ),
    (lambda a: None, {"norm": "group"}, r"bn1\.running_mean \(64,\) is not a weight"),
    (lambda a: None, {"variant": "d"}, r"nothing for stem_conv1.*weights of ResNet18\."),
]


@pytest.mark.parametrize(("change", "options", "message"), REFUSED)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    saved: Path, tmp_path: Path, change: Any, options: dict[str, Any], message: str
) -> None:
    path = altered(saved, tmp_path, change)
    model = ResNet18(input_shape=(32, 32, 3), **options)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as error:
        keras_resnet.load_weights(model, path)
    assert "\n" not in str(error.value)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("saved_as", "loaded_as", "guess"),
    [
        (("ResNet34", {}), ("ResNet18", {}), r"weights of ResNet34\."),
        (("ResNet18", {"variant": "d"}), ("ResNet18", {}), r"ith variant='d'"),
        (("SEResNet18", {}), ("ResNet18", {}), r"weights of SEResNet18\."),
        (("ResNet20", {"shortcut": "A"}), ("ResNet20", {}), r"ith shortcut='A'"),
        (("ResNet20V2", {}), ("ResNet20", {}), r"weights of ResNet20V2\.|variant='v2'"),
    ],
    ids=str,
)
def test_a_network_of_another_kind_is_guessed(
    tmp_path: Path, saved_as: Any, loaded_as: Any, guess: str
) -> None:
    name, options = saved_as
    model = create_model(name, input_shape=(32, 32, 3), **options)
    model.save(tmp_path / "w.keras")
    keras_resnet.save_weights(model, tmp_path / "w.safetensors")
    # A file of PyTorch does not say what network it is of.
    foreign = altered(tmp_path / "w.safetensors", tmp_path, lambda a: None)
    name, options = loaded_as
    for path in (tmp_path / "w.keras", foreign):
        with pytest.raises(ValueError, match=guess):
            create_model(name, weights=path, input_shape=(32, 32, 3), **options)


@pytest.mark.parametrize(
    "suffix",
    ["w.safetensors", *(pytest.param(f"w{s}", marks=pytest.mark.slow) for s in (".keras", ".h5"))],
)
@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({"variant": "v1"}, {}, r"variant='v1', and this network has variant='v1\.5'"),
        (
            {"variant": "v1", "antialias": True},
            {"antialias": True},
            r"variant='v1', and this network has variant='v1\.5'",
        ),
        (
            {"variant": "v1", "output_stride": 4},
            {"output_stride": 4},
            r"variant='v1', and this network has variant='v1\.5'",
        ),
        ({"antialias": True}, {}, r"antialias=True, and this network has antialias=False"),
        ({"shortcut": "A"}, {"shortcut": "none"}, r"shortcut='A'.*has shortcut='none'"),
    ],
    ids=str,
)
def test_what_shapes_do_not_tell_is_compared(
    tmp_path: Path, suffix: str, theirs: dict[str, Any], ours: dict[str, Any], message: str
) -> None:
    build: Any = ResNet50 if "variant" in theirs else ResNet20
    model = build(input_shape=(32, 32, 3), **theirs)
    path = tmp_path / suffix
    if suffix == "w.safetensors":
        keras_resnet.save_weights(model, path)
    else:
        model.save(path)
    with pytest.raises(ValueError, match=message):
        build(weights=path, input_shape=(32, 32, 3), **ours)
    assert build(weights=path, input_shape=(32, 32, 3), **theirs).load_report


@pytest.mark.parametrize("options", [{"shortcut": "none"}, {"variant": "v2"}], ids=str)
def test_checkpoints_fit_no_other_graph(test_data: Path, options: dict[str, Any]) -> None:
    path = test_data / "checkpoints/mlperf-tiny/pretrainedResnet.h5"
    with pytest.raises(ValueError, match="predictions would be wrong"):
        ResNet8(weights=path, **options)


@pytest.mark.parametrize("suffix", ["w.keras", "w.safetensors"])
@pytest.mark.parametrize(("saved_with", "loaded_with"), [(1e-3, 1e-3), (1e-3, 1e-5), (1e-5, 1e-2)])
def test_the_same_answers_with_any_epsilon(
    tmp_path: Path, rng: np.random.Generator, suffix: str, saved_with: float, loaded_with: float
) -> None:
    model = ResNet20(batch_norm_epsilon=saved_with, classifier_activation=None)
    randomize(model, rng)
    model.get_layer("stem_norm").moving_variance.assign(np.full(16, 5e-4))
    path = tmp_path / suffix
    model.save(path) if suffix.endswith(".keras") else keras_resnet.save_weights(model, path)
    loaded = ResNet20(weights=path, batch_norm_epsilon=loaded_with, classifier_activation=None)
    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    assert_alike(loaded(x), model(x))


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_files_for_other_channels_come_back(tmp_path: Path, channels: int) -> None:
    shape = (32, 32, channels)
    model = ResNet20(input_shape=shape)
    model.save(tmp_path / "w.keras")
    keras_resnet.save_weights(model, tmp_path / "w.safetensors")
    for name in ("w.keras", "w.safetensors"):
        assert ResNet20(weights=tmp_path / name, input_shape=shape).contract == model.contract


def test_half_a_classifier_is_none(saved: Path, tmp_path: Path) -> None:
    wrong = altered(saved, tmp_path, lambda a: a.update({"fc.weight": np.zeros((10, 99), "f")}))
    with pytest.raises(ValueError, match=r"fc\.weight is \(99, 10\)"):
        ResNet18(weights=wrong, input_shape=(32, 32, 3))
    half = altered(saved, tmp_path, lambda a: a.pop("fc.bias"))
    with pytest.raises(ValueError, match="nothing for predictions/bias"):
        ResNet18(weights=half, input_shape=(32, 32, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update({"bn1.running_var": -a["bn1.running_var"]}), "stem_norm is negative"),
        (lambda a: a.update({"bn1.weight": np.full(64, 1e39)}), "too large for float32"),
        (lambda a: a.update({"conv1.weight": np.zeros((64, 0, 7, 7), "f")}), r"\(7, 7, 0, 64\)"),
    ],
    ids=["variance", "overflow", "empty"],
)
def test_numbers_that_cannot_be(saved: Path, tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet18(weights=altered(saved, tmp_path, change), input_shape=(32, 32, 3))


@pytest.mark.parametrize("weights", [3, True, "", b"w.keras"], ids=repr)
def test_weights_that_are_no_weights(weights: Any) -> None:
    with pytest.raises(ValueError, match="weights must be None, a tag"):
        ResNet8(weights=weights)


def test_a_folder_of_the_name_of_a_tag_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imagenet").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "1")
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="huggingface"):
        ResNet50(weights="imagenet")


def test_only_networks_of_ours_take_and_give_weights(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a Sequential that they did not build"):
        keras_resnet.load_weights(keras.Sequential([keras.layers.Dense(1)]), saved)
    with pytest.raises(ValueError, match="goes to the constructor"):
        keras_resnet.load_weights(ResNet8(), "imagenet")
    with pytest.raises(ValueError, match="no layer that the constructors"):
        keras_resnet.save_weights(keras_resnet.deployable(ResNet8()), tmp_path / "w.safetensors")


def test_names_of_nobody_are_refused(tmp_path: Path) -> None:
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Dense(2, name="dense")(x)).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"does not name its weights as.*'dense/kernel'"):
        ResNet8(weights=tmp_path / "other.keras")


def test_pooled_shortcuts_tell_d_from_c(tmp_path: Path) -> None:
    for variant in "cd":
        model = ResNet18(input_shape=(32, 32, 3), variant=variant)
        keras_resnet.save_weights(model, tmp_path / "w.safetensors")
        foreign = altered(tmp_path / "w.safetensors", tmp_path, lambda a: None)
        with pytest.raises(ValueError, match=f"ResNet18 with variant='{variant}'"):
            ResNet18(weights=foreign)


def test_load_weights_takes_over_the_preprocessing(tmp_path: Path) -> None:
    labels = tuple("abcdefghij")
    model = ResNet20(contract=Contract(32, 32, mean=(1, 2, 3), labels=labels))
    model.save(tmp_path / "w.keras")
    outside, inside = ResNet20(), ResNet20(include_preprocessing=True)
    keras_resnet.load_weights(outside, tmp_path / "w.keras")
    assert (outside.contract.mean, outside.contract.labels) == ((1, 2, 3), labels)
    three = ResNet20(classes=3)
    keras_resnet.load_weights(three, tmp_path / "w.keras")
    assert (three.contract.mean, three.contract.labels) == ((1, 2, 3), ())
    with pytest.raises(ValueError, match=r"mean \(1\.0, 2\.0, 3\.0\).*normalizes inside"):
        keras_resnet.load_weights(inside, tmp_path / "w.keras")
    built = ResNet20(weights=tmp_path / "w.keras", include_preprocessing=True)
    assert built.contract.mean == (1, 2, 3)
    keras_resnet.load_weights(built, tmp_path / "w.keras")


@pytest.mark.parametrize("path", ["w.txt", "nowhere/w.safetensors"])
def test_save_weights_says_what_path_would_do(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors|no folder"):
        keras_resnet.save_weights(ResNet8(), tmp_path / path)
    assert not list(tmp_path.iterdir())

"""Damaged and hostile weights files: an error of one line, and no other effect."""

import errno
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import misbehaving
import numpy as np
import pytest
import safetensors.numpy

from keras_resnet.models import ResNet8
from keras_resnet.saving import load_model
from keras_resnet.weights.formats import limits, sandbox
from keras_resnet.weights.formats.hdf5 import read_hdf5
from keras_resnet.weights.formats.readers import read_tensors

FUZZ = Path(__file__).with_name("fuzz_weights.py")
ARRAYS = {
    "conv.weight": np.arange(54, dtype="float32").reshape(3, 2, 3, 3),
    "bn.weight": np.ones(3, "float32"),
}
KINDS = ["m.safetensors", "m.pth", "legacy.pth", "m.h5", "m.weights.h5", "m.keras"]
SUFFIXES = [".pth", ".th", ".pt", ".safetensors", ".h5", ".weights.h5", ".keras", ".bin"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small sound file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, name="conv"),
            keras.layers.BatchNormalization(name="bn"),
        ]
    )
    model.save(folder / "m.h5")
    model.save(folder / "m.keras")
    model.save_weights(folder / "m.weights.h5")
    safetensors.numpy.save_file(ARRAYS, folder / "m.safetensors")
    if torch := installed_torch():
        state = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
        torch.save(state, folder / "m.pth")
        torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return folder


def installed_torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def content(sound: Path, kind: str) -> bytes:
    if kind.endswith(".pth"):
        pytest.importorskip("torch")
    return (sound / kind).read_bytes()


def assert_refused(path: Path, why: str, read: Callable[[Path], Any] = read_tensors) -> None:
    start = processor_seconds()
    with pytest.raises(ValueError, match=why) as error:
        read(path)
    assert len(str(error.value).splitlines()) == 1
    assert path.name in str(error.value)
    assert processor_seconds() - start < 20


def processor_seconds() -> float:
    """Of this process and of the children that it has waited for."""
    return sum(os.times()[:4])


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (str(self.marker), "w")


# What is no file


def test_what_is_no_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "missing.h5", "No such file")
    folder = tmp_path / "folder.keras"
    folder.mkdir()
    assert_refused(folder, "a folder")
    fifo = tmp_path / "fifo.safetensors"
    os.mkfifo(fifo)
    assert_refused(fifo, "not a regular file")
    assert_refused(Path("/dev/zero"), "not a regular file")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("text", [b"", b"<html>404 Not Found</html>", bytes(4096), b"PK\3\4"])
def test_what_is_no_weights_file(suffix: str, text: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(text)
    assert_refused(path, "it is")


def test_the_error_is_one_line_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines.h5"
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError) as error:
        read_tensors(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_contradicts_the_content(kind: str, sound: Path, tmp_path: Path) -> None:
    wrong = ".h5" if kind in ("m.safetensors", "m.keras") else ".safetensors"
    path = tmp_path / f"m{wrong}"
    path.write_bytes(content(sound, kind))
    assert_refused(path, f"while {wrong} means .* rename it")


# Damage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tenth", range(10))
def test_truncated(kind: str, tenth: int, sound: Path, tmp_path: Path) -> None:
    whole = content(sound, kind)
    path = tmp_path / kind
    path.write_bytes(whole[: len(whole) * tenth // 10])
    assert_refused(path, "it is (empty|damaged)")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "m.keras"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_not_a_number(kind: str, number: float, sound: Path, tmp_path: Path) -> None:
    """The first tensor in the file that holds one is named."""
    whole = bytearray(content(sound, kind))
    last = np.ones(3, "float32").tobytes()  # gamma, or bn.weight
    place = whole.rindex(last) if kind != "m.pth" else whole.rindex(last, 0, whole.rindex(b"PK\1"))
    whole[place : place + 4] = np.float32(number).tobytes()
    path = tmp_path / kind
    path.write_bytes(resealed(bytes(whole)) if kind == "m.pth" else whole)
    assert_refused(path, r"'bn[./]\w+' holds NaN or infinite values")


def resealed(archive: bytes) -> bytes:
    """The members of a zip archive with checksums that are right, whatever they are now."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            member.CRC = None  # type: ignore[assignment]  # not compared, by zipfile's own account
            with old.open(member) as file:
                file._expected_crc = None  # type: ignore[attr-defined]
                new.writestr(member.filename, file.read())
    return out.getvalue()


def test_wrong_checksum(sound: Path, tmp_path: Path) -> None:
    whole = bytearray(content(sound, "m.keras"))
    whole[whole.rindex(np.ones(3, "float32").tobytes())] ^= 1
    (tmp_path / "m.keras").write_bytes(whole)
    for read in (read_tensors, load_model):
        assert_refused(tmp_path / "m.keras", "checksum of 'model.weights.h5'", read)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (misbehaving.loop, "the HDF5 library used more than 1 s of processor time on it"),
        (misbehaving.segfault, r"the HDF5 library crashed on it \(SIGSEGV\)"),
        (misbehaving.no_room, r"there is no room left in TMPDIR \("),
        (misbehaving.all_memory, "there is not enough memory for the HDF5 library"),
        (misbehaving.killed, "was killed"),
        (misbehaving.unexpected, "failed with exit code 1: KeyError"),
    ],
)
def test_a_failure_that_is_no_damage_is_not_called_damage(
    function: Any, why: str, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "read", function)
    if function is misbehaving.loop:
        monkeypatch.setattr(sandbox, "START_SECONDS", 0)
    for path, read in ((sound / "m.h5", read_tensors), (sound / "m.keras", load_model)):
        with pytest.raises((ValueError, OSError), match=why) as error:
            read(path)
        assert len(str(error.value).splitlines()) == 1
        assert "damage" not in str(error.value)
        # An OSError leaves open whether the file is good; a ValueError says that it is not.
        blamed = function in (misbehaving.loop, misbehaving.segfault)
        assert ("is not a readable" in str(error.value)) == (blamed and read is load_model)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ENOSPC])
def test_an_error_of_the_disk_is_not_called_damage(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(sandbox, "read_hdf5", fails)
    by_number, in_words = (
        OSError(number, os.strerror(number)),
        OSError(
            f"Can't synchronously read data (file read failed: errno = {number}, "
            f"error message = '{os.strerror(number)}')"
        ),
    )
    for error in (by_number, in_words):
        with pytest.raises(OSError) as raised:
            sandbox.read("m.h5")
        assert raised.value is error
    error = OSError("Unable to synchronously open file (truncated file)")
    with pytest.raises(ValueError, match="it is damaged or not supported"):
        sandbox.read("m.h5")


def test_too_little_memory_for_pytorch_is_not_called_damage() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 50)
    assert not limits.blames_the_file(error.value)
    assert limits.reason(error.value) == "there is not enough memory to read it"
    assert limits.blames_the_file(RuntimeError("PytorchStreamReader failed"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with less room than an array of the file takes."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("there_is", ["room for little", "no such folder"])
def test_models_are_read_without_room_in_tmpdir(
    there_is: str,
    full_disk: Path,
    resnet8: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No temporary file is needed, so that a full TMPDIR cannot be taken for damage."""
    folder = full_disk if there_is == "room for little" else tmp_path / "missing"
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((500, 500), "float32")
    assert read_tensors(tmp_path / "m.weights.h5").arrays["dense/kernel"].sum() == 250_000
    write_archive(tmp_path / "m.keras", resnet8)
    assert load_model(tmp_path / "m.keras").name == "resnet8"


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_fuzz(sound: Path, tmp_path: Path, count: int) -> None:
    """Random damage gives finite arrays or an error of one line. In a process: it may crash."""
    result = subprocess.run(
        [sys.executable, FUZZ, sound, tmp_path, str(count)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stdout[-300:] + result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == sorted(p.name for p in sound.iterdir())


# Code


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_never_run(suffix: str, protocol: int, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / f"m{suffix}"
    path.write_bytes(pickle.dumps({"state_dict": Payload(marker)}, protocol))
    assert_refused(path, "it is")
    assert not marker.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_torch_file_with_code_is_never_run(suffix: str, zipped: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    marker, path = tmp_path / "marker", tmp_path / f"m{suffix}"
    content = {"state_dict": {"a": torch.ones(2)}, "extra": Payload(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_refused(path, "could run code|rename it")
    assert not marker.exists()


def test_torch_files_of_other_things(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.pth"
    module = torch.nn.Linear(2, 2)
    torch.save(module, path)
    assert_refused(path, r"state_dict\(\)")
    torch.jit.script(module).save(path)
    assert_refused(path, "TorchScript")
    wrong: list[tuple[Any, str]] = [
        (torch.ones(2), "Tensor, not a state dict"),
        ({"a": {"b": torch.ones(2)}}, "'a' in it is a dict"),
        ({1: torch.ones(2)}, "1 in it is a Tensor, not a named tensor"),
        ({"a": torch.ones(2, 2).to_sparse()}, "'a' is not an ordinary dense tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "'a' holds complex64, not numbers"),
        ({"a": torch.ones(1).expand(2**38)}, "claims to hold"),
        ({}, "no weights"),
    ]
    for content, why in wrong:
        torch.save(content, path)
        assert_refused(path, why)


def test_a_torch_file_whose_pickle_claims_more_than_its_storage(tmp_path: Path) -> None:
    """Some versions of torch would read past the end of the record."""
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(1000)}, tmp_path / "honest.pth")
    for claim in (1001, 1_000_000, 1 << 29):
        with zipfile.ZipFile(tmp_path / "honest.pth") as honest:
            members = {name: honest.read(name) for name in honest.namelist()}
        old = b"M" + struct.pack("<H", 1000)  # BININT2
        assert members["honest/data.pkl"].count(old) == 2  # of the storage, and of the tensor
        lie = members["honest/data.pkl"].replace(old, b"J" + struct.pack("<i", claim))
        write_archive(tmp_path / "m.pth", {**members, "honest/data.pkl": lie})
        assert_refused(tmp_path / "m.pth", "it is damaged|a storage that the archive does not hold")


@pytest.fixture(scope="module")
def resnet8(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of a model file."""
    path = tmp_path_factory.mktemp("resnet8") / "m.keras"
    ResNet8().save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_lambda_in_the_configuration(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    image = keras.Input((4,))
    run = keras.layers.Lambda(lambda x, path=str(marker): [x, Path(path).touch()][0])
    path = tmp_path / "m.keras"
    keras.Model(image, keras.layers.Dense(2, name="fc")(run(image))).save(path)
    marker.unlink(missing_ok=True)
    assert set(read_tensors(path).arrays) == {"fc/kernel", "fc/bias"}
    assert_refused(path, "is not a readable .keras file: .*(Lambda|lambda)", load_model)
    assert not marker.exists()


@pytest.mark.parametrize(
    "config",
    [
        "[" * 300 + "]" * 300,
        "[" * 100_000 + "]" * 100_000,
        '{"config":' * 900 + "1" + "}" * 900,
        '{"config":' * 100_000 + "1" + "}" * 100_000,
        '{"module": "os", "class_name": "system", "config": "true", "registered_name": null}',
        '{"module": "subprocess", "class_name": "Popen", "config": {"args": "true"}}',
        "null",
        "",
        "\x00",
    ],
    ids=lambda config: f"{config[:24]!r} {len(config)}",
)
def test_hostile_configurations(config: str, resnet8: dict[str, bytes], tmp_path: Path) -> None:
    path = write_archive(tmp_path / "m.keras", {**resnet8, "config.json": config.encode()})
    assert_refused(path, "is not a readable .keras file", load_model)
    if "Popen" in config or len(config) == 9_901:  # plain data, of which nothing is built
        assert read_tensors(path).arrays
    else:
        assert_refused(path, r"config\.json is damaged, or not that of a model", read_tensors)


# Archives


def bomb(path: Path, member: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "model.weights.h5"):
            size = 256 << 20 if name == member else 4
            archive.writestr(name, bytes(size))


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
@pytest.mark.parametrize("read", [read_tensors, load_model])
def test_zip_bomb(member: str, read: Any, tmp_path: Path) -> None:
    bomb(tmp_path / "m.keras", member)
    assert_refused(tmp_path / "m.keras", "claims to hold", read)


@pytest.mark.parametrize("read", [read_tensors, load_model])
@pytest.mark.parametrize(
    "name", ["../up.txt", "assets/../../up.txt", "/etc/up.txt", "a\\..\\up.txt", "C:/up.txt"]
)
def test_members_named_outside_the_archive(
    name: str, read: Any, resnet8: dict[str, bytes], tmp_path: Path
) -> None:
    path = write_archive(tmp_path / "m.keras", {**resnet8, name: b"x"})
    assert_refused(path, "unsafe name|outside of itself", read)
    assert not list(tmp_path.parent.rglob("up.txt"))


@pytest.mark.parametrize("read", [read_tensors, load_model])
def test_encrypted_and_duplicated_members(
    read: Any, resnet8: dict[str, bytes], tmp_path: Path
) -> None:
    path = write_archive(tmp_path / "m.keras", resnet8)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\1\2") + 8] |= 1  # the flags in the table of contents
    path.write_bytes(whole)
    assert_refused(path, "encrypted", read)
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_archive(path, resnet8)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("model.weights.h5", b"another")
    assert_refused(path, "the same name", read)


# Headers that claim the absurd


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        '{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"BOOL","shape":[8],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"OBJECT","shape":[1],"data_offsets":[0,8]}}',
        '{"a":' * 100_000,
        "{" + "[" * 100_000,
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        "{}",
    ],
    ids=lambda header: header[:60],
)
def test_safetensors_headers(header: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8))
    assert_refused(path, "damaged or not supported|same name|not numbers|no weights")
    path.write_bytes(struct.pack("<Q", 1 << 60) + header.encode() + bytes(8))
    assert_refused(path, "damaged")


@pytest.mark.parametrize("key", ["block_config", "contract"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1, 2]", "is a list, not a JSON object"),
        ("7", "is a int, not a JSON object"),
        ('"v1"', "is a str, not a JSON object"),
        ("null", "is a NoneType, not a JSON object"),
        ("true", "is a bool, not a JSON object"),
        ("", "is not valid JSON with finite numbers"),
        ("{", "is not valid JSON with finite numbers"),
        ('{"epsilon": NaN}', "is not valid JSON with finite numbers"),
        ('{"epsilon": -Infinity}', "is not valid JSON with finite numbers"),
        ('{"epsilon": [{"a": 1e999}]}', "is not valid JSON with finite numbers"),
        ('{"epsilon": ' + "9" * 5000 + "}", "is not valid JSON with finite numbers"),
        ("[" * 100_000, "is not valid JSON with finite numbers"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "is not valid JSON with finite numbers"),
    ],
    ids=lambda text: text[:24],
)
def test_safetensors_metadata(key: str, text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, {key: text})
    assert_refused(path, f"its '{key}' {why}")


def test_a_contract_with_numbers_that_are_none(resnet8: dict[str, bytes], tmp_path: Path) -> None:
    config = json.loads(resnet8["config.json"])
    for value, why in ((float("nan"), "not valid JSON"), (float("inf"), "not valid JSON")):
        config["config"]["contract"]["mean"] = [value] * 3
        members = {**resnet8, "config.json": json.dumps(config).encode()}
        assert_refused(write_archive(tmp_path / "m.keras", members), f"'contract' is {why}")
    for contract in ([], 7, "[]"):
        config["config"]["contract"] = contract
        members = {**resnet8, "config.json": json.dumps(config).encode()}
        assert_refused(write_archive(tmp_path / "m.keras", members), "'contract' is a|contract")


def test_more_tensors_than_any_network_has(tmp_path: Path) -> None:
    """A million empty ones took minutes."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = tmp_path / "m.safetensors"
    header = json.dumps({f"t{i}": entry for i in range(50_001)}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert_refused(path, "more than 50,000 entries")
    path.write_bytes(struct.pack("<Q", 60_000_000) + header)  # as long as a million's is
    os.truncate(path, 60_000_008)
    assert_refused(path, "at most 16,777,216")


def test_archives_of_more_members_than_any_network_has(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(50_001):
            archive.writestr(f"m{i}", b"")
        archive.writestr("model.weights.h5", b"")
    for read in (read_tensors, load_model):
        assert_refused(path, "more than 50,000 entries", read)


def test_torch_files_of_more_tensors_than_any_network_has(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    one = torch.ones(1)
    torch.save({f"t{i}": one for i in range(50_001)}, tmp_path / "m.pth")
    assert_refused(tmp_path / "m.pth", "more than 50,000 entries")


@pytest.mark.parametrize("kind", ["legacy", "groups", "arrays"])
def test_hdf5_of_more_entries_than_are_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_TENSORS", 100)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        if kind == "legacy":
            file.attrs["layer_names"] = [f"layer{i}".encode() for i in range(101)]
        for i in range(101):
            if kind == "groups":
                file.create_group(f"layers/g{i}")
            elif kind == "arrays":
                file[f"layers/dense/vars/{i}"] = 1.0
    with pytest.raises(ValueError, match="more than 100 entries"):
        read_hdf5(tmp_path / "m.h5")


def test_more_than_a_machine_holds(tmp_path: Path) -> None:
    """Sparse files: long, and empty."""
    header = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (1 << 32, 1 << 34)
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + (1 << 34))
    assert_refused(path, "8 GiB")


def test_hostile_hdf5_inside_an_archive(resnet8: dict[str, bytes], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "inner.h5", "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
    members = {**resnet8, "model.weights.h5": (tmp_path / "inner.h5").read_bytes()}
    path = write_archive(tmp_path / "m.keras", members)
    for read in (read_tensors, load_model):
        assert_refused(path, "soft or external link", read)


# HDF5 that points elsewhere, or claims the absurd


@pytest.fixture(params=["m.h5", "m.weights.h5"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Writes a file of one layer with one array, which the argument makes in a group."""

    def build(make: Callable[[h5py.Group, str], Any]) -> Path:
        path = tmp_path / request.param
        with h5py.File(path, "w") as file:
            if request.param == "m.h5":
                file.attrs["layer_names"] = [b"dense"]
                layer = file.create_group("dense")
                layer.attrs["weight_names"] = [b"kernel:0"]
                make(layer, "kernel:0")
            else:
                make(file.create_group("layers/dense/vars"), "0")
        return path

    yield build


def test_the_builder_builds_what_is_read(build: Any) -> None:
    path = build(lambda group, name: group.create_dataset(name, data=np.ones((2, 3))))
    assert {name: a.shape for name, a in read_tensors(path).arrays.items()} == {
        "dense/kernel": (2, 3)
    }


def virtual(group: h5py.Group, name: str) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    group.create_virtual_dataset(name, layout)


def external(group: h5py.Group, name: str) -> None:
    group.create_dataset(name, (4,), "u1", external=[("/etc/passwd", 0, 4)])


def link(target: Any) -> Any:
    return lambda group, name: group.__setitem__(name, target)


def chunked_in_one(group: h5py.Group, name: str) -> None:
    """A chunk of gigabytes for an array of one number."""
    group.create_dataset(name, (1,), "f4", chunks=(1 << 29,), maxshape=(None,))


def dataset(**arguments: Any) -> Any:
    return lambda group, name: group.create_dataset(name, **arguments)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (link(h5py.ExternalLink("/etc/passwd", "/x")), "soft or external link"),
        (link(h5py.SoftLink("/layers/dense")), "soft or external link"),
        (link(h5py.SoftLink("kernel:0")), "soft or external link"),
        (external, "another file"),
        (virtual, "another file"),
        (dataset(shape=(1 << 28,), dtype="f4", chunks=(1 << 20,), compression=9), "compressed"),
        (dataset(shape=(10**12,), dtype="f4", chunks=(1 << 20,)), "claims to hold"),
        (dataset(shape=(2**60, 2**60), dtype="f8", chunks=(1, 1)), "claims to hold"),
        (chunked_in_one, "claims to hold"),
        (dataset(data=["text"], dtype=h5py.string_dtype()), "holds object"),
        (dataset(data=np.array([b"text"])), "not numbers"),
        (dataset(shape=(1,), dtype=h5py.ref_dtype), "not numbers"),
        (dataset(shape=(1,), dtype=h5py.vlen_dtype("f4")), "not numbers"),
        (dataset(shape=(1,), dtype=[("a", "f4")]), "not numbers"),
        (dataset(shape=(1,), dtype="c8"), "not numbers"),
        (dataset(data=h5py.Empty("f4")), "not numbers"),
        (lambda group, name: group.create_group(name), "no dataset"),
    ],
)
def test_hostile_datasets(build: Any, make: Any, why: str) -> None:
    assert_refused(build(make), why)


@pytest.mark.parametrize("target", ["fifo", "/dev/zero"])
def test_an_external_link_is_not_even_opened(build: Any, tmp_path: Path, target: str) -> None:
    """Opening a FIFO would wait for ever."""
    os.mkfifo(tmp_path / "fifo")
    path = build(link(h5py.ExternalLink(str(tmp_path / target), "/x")))
    assert_refused(path, "soft or external link")


@pytest.mark.parametrize("name", ["model_weights", "layers", "vars"])
def test_links_instead_of_groups(name: str, tmp_path: Path) -> None:
    for target in (h5py.SoftLink("/"), h5py.SoftLink(f"/{name}"), h5py.ExternalLink("x.h5", "/")):
        with h5py.File(tmp_path / "m.h5", "w") as file:
            file[name] = target
        assert_refused(tmp_path / "m.h5", "soft or external link")


@pytest.mark.parametrize("name", ["../m", "/layers", "a//b", ".", "a/" * 100 + "a", "missing", ""])
def test_layer_names_that_are_no_names(name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = [name]
    assert_refused(tmp_path / "m.h5", "it refers to")


def test_layer_names_that_are_no_text(tmp_path: Path) -> None:
    for names in (np.arange(3), h5py.Empty("f4"), np.array([b"\xff\xfe"]), np.zeros(8)):
        with h5py.File(tmp_path / "m.h5", "w") as file:
            file.attrs["layer_names"] = names
        assert_refused(tmp_path / "m.h5", "where a name should be|UnicodeDecodeError|NoneType")


def test_duplicated_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = [b"a", b"a"]
        file.create_group("a").attrs["weight_names"] = [b"kernel:0"]
        file["a/kernel:0"] = np.ones(3)
    assert_refused(tmp_path / "m.h5", "two arrays named 'a/kernel'")
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for layer in ("dense", "dense_1"):
            file[f"layers/{layer}/vars/0"] = np.ones(3)
            file[f"layers/{layer}/vars"].attrs["name"] = "a"
    assert_refused(tmp_path / "m.weights.h5", "two arrays named 'a/kernel'")


@pytest.mark.parametrize("depth", [300, 100_000])
def test_groups_in_groups(depth: int, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w", libver="latest") as file:
        group = file.id
        for _ in range(depth):
            group = h5py.h5g.create(group, b"g")
    assert_refused(tmp_path / "m.weights.h5", "deeper than")


def test_groups_in_circles(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        group = file.create_group("layers/a")
        group["b"] = file["layers"]
    assert_refused(tmp_path / "m.weights.h5", "cyclic")


def test_groups_with_two_ways_to_each(tmp_path: Path) -> None:
    """Thirty groups, and a thousand million paths."""
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        group = file.create_group("layers")
        for _ in range(30):
            group["b"] = group["a"] = inner = group.create_group("c")
            group = inner
    assert_refused(tmp_path / "m.weights.h5", "cyclic")


def test_hdf5_of_other_things(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["images"] = np.ones(3)
    assert_refused(tmp_path / "m.h5", "no group|no weights")

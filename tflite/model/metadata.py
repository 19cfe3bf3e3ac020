"""What a .tflite file says about itself: TFLite's model metadata, the contract and the labels.

The metadata is a buffer of the model, named ``TFLITE_METADATA``. Contract and labels are in a zip
archive appended to the flatbuffer, as TFLite's own metadata populator appends the files that it
associates with a model: ``unzip model.tflite`` extracts them, and interpreters ignore them.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from keras_resnet import __version__
from keras_resnet.contract import Contract
from keras_resnet.subprocess_call import is_of_machine
from tflite.model.flatbuffer import pack, read_graph
from tflite.model.graph import Graph, Signature, replace_tensors
from tflite.model.interpreter import check_is_tflite, check_runs
from tflite.model.io_spec import IMAGE, UNIVERSAL, IOSpec
from tflite.model.metadata_schema import model_metadata

METADATA = "TFLITE_METADATA"
CONTRACT = "contract.json"
LABELS = "labels.txt"

# A thousand labels take 20 kB; a file that claims more than this is not one of ours.
MAX_CONTRACT_BYTES = 10_000_000
# zipfile limits what it decompresses at once only for these.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def attach_contract(graph: Graph, contract: Contract, io_spec: IOSpec = UNIVERSAL) -> bytes:
    """A whole .tflite file: the graph, model metadata, the contract, and the labels if known.

    Of the task ``binary``, the file of labels has one line, the second label, whose probability the
    output is: MediaPipe refuses a file with another number of lines than outputs. The contract has
    both.

    The tensors and the signature are named ``image`` and ``probabilities``, or as the io_spec
    names its outputs. This is the last step: quantizers drop whatever is appended.

    Args:
        graph: The model.
        contract: What it expects of an image.
        io_spec: Its input and outputs.

    Returns:
        The file; the same arguments give the same bytes.
    """
    labels = LABELS if contract.labels else None
    graph = _with_names(graph, (IMAGE,), io_spec.outputs)
    metadata = {**graph.metadata, METADATA: model_metadata(contract, labels, __version__, io_spec)}
    file = io.BytesIO(pack(dataclasses.replace(graph, metadata=metadata)))
    with zipfile.ZipFile(file, "a") as archive:
        _add(archive, CONTRACT, json.dumps(contract.to_dict(), indent=1, ensure_ascii=False))
        if contract.labels:
            # One line an output, or those after a label with a line break would be shifted.
            named = contract.labels[1:] if contract.task == "binary" else contract.labels
            _add(archive, LABELS, "".join(f"{' '.join(x.split())}\n" for x in named))
    return file.getvalue()


def read_contract(path: str | os.PathLike[str]) -> Contract:
    """The contract that ``attach_contract`` put into a file, checked against its graph.

    Nothing is allocated by what the contract says before it agrees with the graph.

    Raises:
        ValueError: The file is missing or damaged, holds no contract or one that is not
            readable, or the contract belongs to a model of another size or other classes.
        OSError: It could not be read here.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no model file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            contract = Contract.from_dict(_parsed(_content(archive)))
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"{path} holds no contract, or was cut short. Make it with keras-resnet convert."
        ) from None
    except Exception as error:  # a damaged archive raises a dozen types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if is_of_machine(error):
            raise OSError(f"{path} could not be read here: {reason}") from error
        raise ValueError(f"The contract in {path} is not readable: {reason}") from error
    check_is_tflite(path)
    check_runs(path)
    _check_fits(path, contract, read_graph(path))
    return contract


def _content(archive: zipfile.ZipFile) -> bytes:
    entry = archive.getinfo(CONTRACT)
    if archive.namelist().count(CONTRACT) > 1:
        raise ValueError(f"the archive has more than one {CONTRACT}")
    if entry.file_size > MAX_CONTRACT_BYTES:
        raise ValueError(f"it is larger than {MAX_CONTRACT_BYTES:,} bytes")
    if entry.compress_type not in COMPRESSIONS:
        raise ValueError(f"it is compressed by method {entry.compress_type}, not deflate")
    with archive.open(entry) as file:
        return file.read(MAX_CONTRACT_BYTES)


def _parsed(content: bytes) -> Any:
    """JSON of finite numbers, in which no key occurs twice."""
    return json.loads(
        content.decode(),
        object_pairs_hook=_unique,
        parse_float=_finite,
        parse_constant=_finite,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in it")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"its numbers must be finite. Received: {text[:20]}")
    return value


def _check_fits(path: Path, contract: Contract, graph: Graph) -> None:
    inputs, outputs = (
        [graph.tensors[i].shape for i in numbers] for numbers in (graph.inputs, graph.outputs)
    )
    if len(inputs) != 1 or len(inputs[0]) != 4 or not outputs or len(outputs[0]) != 2:
        _refuse(path, contract, f"from {inputs} to {outputs}")
    shape = (contract.height, contract.width, contract.channels)
    classes, known = outputs[0][1], contract.outputs
    # Of two outputs, the first are the probabilities of the k most likely classes.
    agrees = known >= classes if len(outputs) == 2 else known == classes
    if shape != inputs[0][1:] or (known and not agrees):
        _refuse(path, contract, f"images {inputs[0][1:]} and {classes} classes")


def _refuse(path: Path, contract: Contract, found: str) -> NoReturn:
    shape = (contract.height, contract.width, contract.channels)
    raise ValueError(
        f"The contract in {path} is of another model: it says images {shape} and "
        f"{len(contract.labels)} labels of task={contract.task!r}. Received a graph: {found}"
    )


def _with_names(graph: Graph, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
    """The graph with other names for its inputs and outputs, in the signatures too."""
    names = dict(zip(graph.inputs, inputs)) | dict(zip(graph.outputs, outputs))

    def renamed(entries: Mapping[str, int]) -> dict[str, int]:
        return {names.get(number, name): number for name, number in entries.items()}

    tensors = {i: dataclasses.replace(graph.tensors[i], name=name) for i, name in names.items()}
    return dataclasses.replace(
        replace_tensors(graph, tensors),
        signatures=tuple(
            Signature(s.key, renamed(s.inputs), renamed(s.outputs)) for s in graph.signatures
        ),
    )


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    # Without a fixed date and system the same model would give other bytes elsewhere.
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    # Stored, not deflated: MediaPipe maps these files straight from the model.
    archive.writestr(entry, text.encode(), compress_type=zipfile.ZIP_STORED)

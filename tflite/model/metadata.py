"""What a .tflite file tells of itself: TFLite's model metadata, the contract and the labels.

The metadata is a buffer of the model, named ``TFLITE_METADATA``. Contract and labels stand in
a zip archive behind the flatbuffer, as the files that TFLite's own metadata populator
associates with a model do: ``unzip model.tflite`` gets them out, and interpreters do not look
there.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

from keras_resnet import __version__
from keras_resnet.contract import Contract
from tflite.model.flatbuffer import with_metadata, with_names
from tflite.model.io_spec import IMAGE, UNIVERSAL, IOSpec
from tflite.model.metadata_schema import model_metadata
from tflite.model.sandbox import trust

METADATA = "TFLITE_METADATA"
CONTRACT = "contract.json"
LABELS = "labels.txt"

# A thousand labels take 20 kB; a file that claims more than this is not one of ours.
MAX_CONTRACT_BYTES = 10_000_000


def attach_contract(model: bytes, contract: Contract, io_spec: IOSpec = UNIVERSAL) -> bytes:
    """Adds model metadata, the contract, and the labels where they are known.

    The tensors and the signature are named ``image`` and ``probabilities``, or as the io_spec
    names its outputs. This comes last: ai-edge-quantizer drops whatever is appended.

    Args:
        model: A TFLite flatbuffer with nothing appended.
        contract: That of the model in it.
        io_spec: What the model takes and answers.

    Returns:
        The whole file; the same arguments give the same bytes.
    """
    labels = LABELS if contract.labels else None
    metadata = model_metadata(contract, labels, __version__, io_spec)
    named = with_names(model, {0: IMAGE}, dict(enumerate(io_spec.outputs)))
    file = io.BytesIO(with_metadata(named, METADATA, metadata))
    with zipfile.ZipFile(file, "a") as archive:
        _add(archive, CONTRACT, json.dumps(contract.to_dict(), indent=1, ensure_ascii=False))
        if contract.labels:
            # One line a class, or those after a label with a line break would be shifted.
            _add(archive, LABELS, "".join(f"{' '.join(x.split())}\n" for x in contract.labels))
    trust(file.getvalue())
    return file.getvalue()


def read_contract(path: str | os.PathLike[str]) -> Contract:
    """The contract that ``attach_contract`` put into a file.

    Raises:
        ValueError: The file is missing, or holds no contract or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no model file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(CONTRACT).file_size > MAX_CONTRACT_BYTES:
                raise ValueError(f"it is larger than {MAX_CONTRACT_BYTES:,} bytes")
            return Contract.from_dict(json.loads(archive.read(CONTRACT)))
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"{path} holds no contract, or was cut short. Make it with keras-resnet convert."
        ) from None
    except Exception as error:  # a damaged archive raises a dozen types
        raise ValueError(f"The contract in {path} is not readable: {error}") from error


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    # Without a fixed date and system the same model would give other bytes elsewhere.
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    # Stored, not deflated: MediaPipe maps these files straight from the model.
    archive.writestr(entry, text.encode(), compress_type=zipfile.ZIP_STORED)

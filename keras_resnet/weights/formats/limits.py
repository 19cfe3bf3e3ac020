"""Size limits and error messages of the readers.

A header of a few bytes can claim terabytes, and a compressed file can expand a
thousandfold. Weights hardly compress, so the content of a valid file is about as large as the
file.
"""

from __future__ import annotations

from keras_resnet.subprocess_call import NO_ROOM, SubprocessError, is_of_machine, no_room

MAX_BYTES = 8 << 30
MAX_EXPANSION = 4
# Small files of mostly padding or text do compress well; this size is harmless.
HARMLESS_BYTES = 16 << 20
# ResNet1202 has 7,212 tensors. Each costs time however small it is: a million, a minute and more.
MAX_TENSORS = 50_000
# What PyTorch's RuntimeError says if it is out of memory, on any operating system and device.
OUT_OF_MEMORY = ("allocate memory", "not enough memory", "out of memory", "bad_alloc")
MAX_HEADER_BYTES = 16 << 20  # of safetensors: 300 for each tensor, and more than any contract


def check_size(declared: int, file_size: int) -> None:
    """Refuses content of ``declared`` bytes in a file of ``file_size`` bytes, before it is read.

    Raises:
        ValueError: The content exceeds 8 GiB, or four times the file (and 16 MiB).
    """
    if declared > MAX_BYTES or declared > max(HARMLESS_BYTES, MAX_EXPANSION * file_size):
        raise ValueError(
            f"the file is {file_size:,} bytes long and claims to hold {declared:,}; "
            f"at most {MAX_EXPANSION} times its size and {MAX_BYTES >> 30} GiB are read"
        )


def check_count(count: int) -> None:
    """Refuses a file of too many tensors, groups or members.

    Raises:
        ValueError: There are more than ``MAX_TENSORS``.
    """
    if count > MAX_TENSORS:
        raise ValueError(
            f"it has more than {MAX_TENSORS:,} entries, and is not read: no network of this "
            "package has as many tensors"
        )


def check_length(header: int) -> None:
    """Refuses a header of more than ``MAX_HEADER_BYTES``, before it is read.

    Raises:
        ValueError: It is longer.
    """
    if header > MAX_HEADER_BYTES:
        raise ValueError(
            f"it is damaged or not supported: its header claims {header:,} bytes, and at most "
            f"{MAX_HEADER_BYTES:,} are read"
        )


def blames_the_file(error: Exception) -> bool:
    """Whether an exception means an invalid file, and not a failure of the machine."""
    machine = is_of_machine(error) or _lacks_memory(error)
    return not machine and not (isinstance(error, OSError) and error.errno)


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


def reason(error: Exception) -> str:
    """What an exception means for the file, in one line: libraries add advice and listings.

    The message of a plain ``ValueError`` is ours and used unchanged. A lack of memory or disk space
    is not reported as damage.
    """
    line = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, SubprocessError):
        return line
    if _lacks_memory(error):
        return "there is not enough memory to read it"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return no_room()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error) is ValueError and line:
        return line
    return f"it is damaged or not supported ({type(error).__name__}{': ' * bool(line)}{line})"

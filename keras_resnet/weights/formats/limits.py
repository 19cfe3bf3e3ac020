"""How much memory a file may ask for, and how it is refused.

A header of a few bytes can claim terabytes, and a compressed file can unfold a
thousandfold. Weights hardly compress, so an honest file holds about what it is long.
"""

from __future__ import annotations

MAX_BYTES = 8 << 30
MAX_EXPANSION = 4
# Small files of mostly padding or text do compress well, and this much harms nobody.
HARMLESS_BYTES = 16 << 20


def check_size(declared: int, file_size: int) -> None:
    """Refuses content of ``declared`` bytes in a file of ``file_size`` bytes, before it is read.

    Raises:
        ValueError: The content passes 8 GiB, or four times the file (and 16 MiB).
    """
    if declared > MAX_BYTES or declared > max(HARMLESS_BYTES, MAX_EXPANSION * file_size):
        raise ValueError(
            f"the file is {file_size:,} bytes long and claims to hold {declared:,}; "
            f"at most {MAX_EXPANSION} times its size and {MAX_BYTES >> 30} GiB are read"
        )


def reason(error: Exception) -> str:
    """What an exception says, in one line: those of libraries go on with advice and listings.

    A plain ``ValueError`` is one of ours, and says all; others are told by their type.
    """
    line = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error) is ValueError and line:
        return line
    return f"it is damaged or not supported ({type(error).__name__}{': ' * bool(line)}{line})"

"""``keras-resnet audit``: what is wrong with a set of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from keras_resnet.cli.app import Failed, command
from keras_resnet.cli.arguments import SOURCES, DataFolderOption, JsonOption, check_output
from keras_resnet.console import say, show_json, show_table
from keras_resnet.contract import Task

if TYPE_CHECKING:
    from training.audit.audit import Audit


@command
def audit(
    data: Positional[Annotated[str, arg(metavar="DATA")]],
    /,
    model: Annotated[Path | None, arg(metavar="RUN|FILE")] = None,
    data_dir: DataFolderOption = None,
    task: Task = "single",
    out: Annotated[Path, arg(metavar="FILE")] = Path("audit.html"),
    fail_on: Annotated[tuple[str, ...], arg(metavar="KIND ...")] = (),
    json: JsonOption = False,
) -> None:
    """Look for duplicates, doubtful labels, unreadable and poor pictures in a set of images.

    Writes a page with thumbnails, and prints the number of findings of each kind: unreadable,
    leaks (test pictures with a copy in training), conflicts (copies with different labels),
    duplicates, near-duplicates, labels, dark, bright, plain, blurred, tiny, odd-shaped.

    Args:
        data: A folder of images, or as --data of train: SOURCES.
        model: A run folder, a .keras file or a file of weights, such as ImageNet's, by whose
            features labels are judged; without it, they are not.
        task: What a label is: multi for several a picture, of csv:FILE.
        out: The page.
        fail_on: Kinds; exits with 1 if any of them is found.
    """
    check_output("--out", out, (".html",))
    spec = spec_of(data)
    kinds = _checked_kinds(fail_on)
    result = _run(spec, data_dir, task, model, out)
    if json:
        show_json(result.to_dict())
    else:
        show_audit(result)
    say(f"page: {out}")
    counts = result.counts()
    if missing := [kind for kind in kinds if counts[kind] is None]:
        raise ValueError(f"--fail-on {missing[0]}: {result.not_done[missing[0]]}")
    if found := [f"{kind} {counts[kind]:,}" for kind in kinds if counts[kind]]:
        raise Failed(f"{spec} has {', '.join(found)}")


audit.__doc__ = (audit.__doc__ or "").replace("SOURCES", SOURCES)


def spec_of(data: str) -> str:
    """The spec of a source; a folder's path may be given as it is."""
    return f"folder:{data}" if Path(data).expanduser().is_dir() else data


def show_audit(result: Audit) -> None:
    """Prints the number of findings of each kind."""
    from training.audit.kinds import KINDS

    train, test = result.scan.training, len(result.scan.names) - result.scan.training
    show_table(
        ("kind", "found", "what it is"),
        [
            (kind, "–" if count is None else f"{count:,}", result.not_done.get(kind, KINDS[kind]))
            for kind, count in result.counts().items()
        ],
        title=f"{train:,} training images, {test:,} test images, {len(result.labels)} classes",
        prose=("what it is",),
    )


def _checked_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    if not kinds:
        return ()
    from training.audit.kinds import KINDS

    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"--fail-on must be of {', '.join(KINDS)}. Received: {kind}")
    return kinds


def _run(
    spec: str,
    data_dir: Path | None,
    task: Task,
    model: Path | None,
    out: Path,
) -> Audit:
    from keras_resnet.cli.backend import start_keras

    start_keras()
    from training.audit.audit import audit
    from training.audit.page import write_page
    from training.config import DataConfig
    from training.data.sources import open_source

    config = DataConfig(
        source=spec,
        data_dir="" if data_dir is None else str(data_dir),
        bad_images="skip",
        max_bad_images=10**9,
    )
    source = open_source(config, seed=0, task=task)
    result = audit(source, spec, model)
    write_page(result, source, out)
    return result

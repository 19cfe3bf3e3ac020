"""Lists of images with labels: rows, splits, several labels an image, and errors with lines."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import DataConfig, Task
from training.data.sources import Source, labels_of, open_source


def fill(folder: Path, count: int = 12) -> None:
    """Makes a/0.png to a/11.png of different shades of red."""
    (folder / "a").mkdir()
    for number in range(count):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / "a" / f"{number}.png")


def open_csv(
    folder: Path, text: str | bytes, task: Task = "single", seed: int = 0
) -> tuple[Source, list[str]]:
    file = folder / "list.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    said: list[str] = []
    data = DataConfig(source=f"csv:{file}", test_fraction=0.25)
    return open_source(data, seed, said.append, task), said


def rows(source: Source) -> tuple[list[tuple[int, object]], list[tuple[int, object]]]:
    """The shade of each training and test image with its label or labels, by name."""

    def of(split) -> list[tuple[int, object]]:  # type: ignore[no-untyped-def]
        found = []
        for (image, label), known in zip(split.examples.as_numpy_iterator(), labels_of(split)):
            assert (label == known).all() and label.dtype == known.dtype
            shade = Image.open(io.BytesIO(image)).getpixel((0, 0))[0]
            names = np.array(source.labels)
            found.append((shade, "|".join(names[label > 0]) if label.ndim else names[label]))
        return found

    return of(source.train), of(source.test)


SPLITS = (
    "path,label,split\na/0.png,cat,train\na/1.png,dog,train\na/2.png,cat,val\na/3.png,dog,val\n"
)
FOUND = [(0, "cat"), (1, "dog")], [(2, "cat"), (3, "dog")]


@pytest.mark.parametrize(
    "text",
    [
        SPLITS,
        SPLITS.replace(",", ";"),
        SPLITS.replace(",", "\t"),
        SPLITS.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + SPLITS.encode(),
        SPLITS.replace("path,label,split", " Path , LABEL,Split "),
        SPLITS.replace("a/", "a\\").replace("0.png", ".\\0.png"),
        SPLITS.replace("train", "Training").replace("val", "valid_set"),
        SPLITS.replace("a/0.png", '"a/0.png"').replace("cat", '"cat"') + "\n\n",
        "split,label,path\ntrain,cat,a/0.png\ntrain,dog,a/1.png\nval,cat,a/2.png\nval,dog,a/3.png",
    ],
    ids=range(10),
)
def test_a_list_with_splits_is_read(text: str | bytes, tmp_path: Path) -> None:
    fill(tmp_path)
    source, said = open_csv(tmp_path, text)
    assert source.labels == ("cat", "dog") and source.channels == 3
    assert rows(source) == FOUND and not said
    assert source.test.files == (f"{tmp_path}/a/2.png", f"{tmp_path}/a/3.png")


def test_paths_may_be_absolute_and_text_may_contain_the_separator(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "1, second.png")
    text = SPLITS.replace("a/0.png", f"{tmp_path}/a/0.png").replace("cat", '"cat, ""big"""')
    source, _ = open_csv(tmp_path, text.replace("a/1.png", '"a/1, second.png"'))
    assert source.labels == ('cat, "big"', "dog")
    assert [shade for shade, _ in rows(source)[0]] == [0, 1]


def test_without_splits_the_seed_holds_out_a_share_of_each_label(tmp_path: Path) -> None:
    fill(tmp_path)
    text = "path,label\n" + "".join(f"a/{i}.png,{'ab'[i % 3 > 0]}\n" for i in range(12))
    source, _ = open_csv(tmp_path, text)
    train, test = rows(source)
    assert [label for _, label in test].count("a") == 1 and len(test) == 3
    assert sorted(train + test) == [(i, "ab"[i % 3 > 0]) for i in range(12)]
    assert rows(open_csv(tmp_path, text)[0]) == (train, test)
    assert rows(open_csv(tmp_path, text, seed=1)[0]) != (train, test)


def test_other_columns_repeated_rows_and_unused_splits_are_said(tmp_path: Path) -> None:
    fill(tmp_path)
    text = "path,label,split,width\n" + "".join(
        f"a/{i}.png,{'ab'[i % 2]},{split},4\n"
        for i, split in enumerate(["train", "train", "val", "val", "test", "train"])
    )
    source, said = open_csv(tmp_path, text + "a/0.png,a,train,4\n")
    assert rows(source) == ([(0, "a"), (1, "b"), (5, "b")], [(2, "a"), (3, "b")])
    file = tmp_path / "list.csv"
    assert said == [
        f"columns of {file} that are not used: width",
        f"rows of {file} that repeat an image, which is read once: 1",
        f"val is the test split of {file}, so the rows of test are not used",
    ]


def test_a_split_without_labels_is_not_the_test_split(tmp_path: Path) -> None:
    fill(tmp_path)
    text = SPLITS.replace("a/2.png,cat,val", "a/2.png,,test").replace("a/3.png,dog", "a/3.png,")
    more = "".join(f"a/{i}.png,{'cat' if i % 2 else 'dog'},train\n" for i in range(4, 12))
    source, said = open_csv(tmp_path, text + more)
    assert [len(split) for split in rows(source)] == [7, 3]
    assert said == [
        f"the split {word} has no labels, so it is not used" for word in ("val", "test")
    ]


MULTI = (
    "path,label,split\n"
    "a/0.png,cat|dog,train\na/1.png,,train\na/2.png,dog | bird,train\na/3.png,|cat|cat,train\n"
    "a/4.png,dog,val\na/5.png,,val\n"
)


def test_several_labels_an_image(tmp_path: Path) -> None:
    fill(tmp_path)
    source, _ = open_csv(tmp_path, MULTI, "multi")
    assert source.labels == ("bird", "cat", "dog")
    assert rows(source) == (
        [(0, "cat|dog"), (1, ""), (2, "bird|dog"), (3, "cat")],
        [(4, "dog"), (5, "")],
    )
    labels = labels_of(source.train)
    assert labels.dtype == np.uint8 and labels.shape == (4, 3)
    one_row_a_label = MULTI.replace("cat|dog,train", "cat,train\na/0.png,dog,train")
    assert rows(open_csv(tmp_path, one_row_a_label, "multi")[0]) == rows(source)


def test_the_share_that_is_held_out_has_its_share_of_every_label(tmp_path: Path) -> None:
    fill(tmp_path, 200)
    drawn = np.random.default_rng(0).random((200, 4)) < (0.5, 0.3, 0.1, 0.02)
    drawn[:3, 3] = True
    lines = [f"a/{i}.png,{'|'.join(np.array(list('abcd'))[row])}" for i, row in enumerate(drawn)]
    source, _ = open_csv(tmp_path, "path,label\n" + "\n".join(lines), "multi")
    train, test = labels_of(source.train), labels_of(source.test)
    assert (train.sum(0) + test.sum(0) == drawn.sum(0)).all() and len(train) + len(test) == 200
    assert (np.abs(test.sum(0) - 0.25 * drawn.sum(0)) <= 2).all()
    assert (train.sum(0) > 0).all()
    empty = (drawn.sum(1) == 0).sum()
    assert abs((test.sum(1) == 0).sum() - 0.25 * empty) <= 1
    assert abs(len(test) - 50) <= 5


def test_a_label_of_one_image_is_left_for_training(tmp_path: Path) -> None:
    fill(tmp_path)
    lines = ["a/0.png,rare|common", *(f"a/{i}.png,common" for i in range(1, 12))]
    for seed in range(5):
        source, _ = open_csv(tmp_path, "path,label\n" + "\n".join(lines), "multi", seed)
        assert labels_of(source.train).sum(0).tolist() == [9, 1]


@pytest.mark.parametrize(
    ("text", "task", "says"),
    [
        ("", "single", "must begin with the names of its columns: path,label or path,label,split"),
        ("file,class\na/0.png,cat\n", "single", "Received in line 1: 'file,class'"),
        ("path,label,label\n", "single", "Received in line 1: 'path,label,label'"),
        ("path,label\n", "single", "has a header and no rows"),
        ("path,label\na/0.png,cat\na/99.png,dog\n", "single", "line 3: there is no file {}/a/99"),
        (
            "path,label\n" + "".join(f"b/{i}.png,x\n" for i in range(9)),
            "single",
            "line 2: there is no file {}/b/0.png; 8 other files are missing. Paths are relative",
        ),
        ("path,label\na/0.png,cat\n,dog\n", "single", "line 3 has no path"),
        ("path,label\na/0.png,cat\na/1.png,\n", "single", "line 3, has no label"),
        ("path,label\na/0.png,cat\na/1.png,cat\n", "single", "at least 2 different labels"),
        ("path,label\na/0.png,cat,x\n", "single", "line 2 has 3 columns, the header 2. Put text"),
        ("path,label\na/0.png,cat\na/1.png,cat|dog\n", "single", "line 3 has 2 labels, 'cat|dog'"),
        ("path,label\na/0.png,cat\na/1.png,cat|dog\n", "single", "Set task=multi, or keep one"),
        (
            "path,label\na/0.png,cat\na/1.png,dog\na/./0.png,dog\n",
            "single",
            "lines 2 and 4: {}/a/0.png has two labels, 'cat' and 'dog'",
        ),
        (
            SPLITS + "a/0.png,cat,val\n",
            "multi",
            "lines 2 and 6: {}/a/0.png is in train and in val. Keep one of them",
        ),
        (SPLITS + "a/5.png,cat,fold1\n", "single", "line 6: 'fold1' is no split"),
        (SPLITS + "a/5.png,cat,\n", "single", "line 6: '' is no split"),
        (SPLITS.replace("train", "test"), "single", "has no rows of the split train. Found: 2 of"),
        (SPLITS + "a/5.png,cow,val\n", "single", "line 6: no training image has the label 'cow'"),
        (SPLITS + "a/5.png,,val\n", "single", "line 6, has no label"),
        (SPLITS + 'a/5.png,"cow,val\n', "single", "line 6: unexpected end of data"),
        (SPLITS.encode() + b"a/5.png,\xff\xfe,val\n", "single", "line 6, is not UTF-8"),
        (SPLITS.encode("utf-16"), "single", "line 1, is not UTF-8. Save the file as UTF-8"),
        (SPLITS + "a/5.png,cow,train\n", "binary", "task=binary is for two classes"),
        ("path,label\na/0.png,\na/1.png,\n", "multi", "at least 1 different labels"),
    ],
)
def test_an_error_names_the_file_and_the_line(
    text: str | bytes, task: Task, says: str, tmp_path: Path
) -> None:
    fill(tmp_path)
    with pytest.raises(ValueError) as error:
        open_csv(tmp_path, text, task)
    message = str(error.value)
    assert says.replace("{}", str(tmp_path)) in message and "\n" not in message
    assert str(tmp_path / "list.csv") in message


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no file"):
        open_source(DataConfig(source=f"csv:{tmp_path}/none.csv"), 0)
    with pytest.raises(ValueError, match="There is no file"):
        open_source(DataConfig(source=f"csv:{tmp_path}"), 0)
    with pytest.raises(ValueError, match=r"data.test names the test images of a folder"):
        open_source(DataConfig(source="csv:list.csv", test="x"), 0)


@pytest.mark.parametrize("source", ["digits", "folder:x", "tfds:x", "tfrecord:x"])
def test_other_sources_have_one_label_an_image(source: str) -> None:
    with pytest.raises(ValueError, match=f"{source} gives each image one label. .* csv:FILE"):
        open_source(DataConfig(source=source), 0, task="multi")


def test_unreadable_pictures_of_a_list_are_named_or_left_out(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "a" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of 4 images cannot be read: .*a/0\.png is empty"):
        open_csv(tmp_path, SPLITS)
    said: list[str] = []
    data = DataConfig(source=f"csv:{tmp_path / 'list.csv'}", bad_images="skip")
    source = open_source(data, 0, said.append)
    assert rows(source) == (FOUND[0][1:], FOUND[1]) and "skipping 1 of 4" in said[0]

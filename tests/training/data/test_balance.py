"""What is said of the classes before the first step."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from training.data import balance
from training.data.balance import (
    always_largest,
    class_counts,
    describe_classes,
    small_test_split,
    table,
)
from training.data.sources import Source, Split, array_split


def split_of(sizes: Sequence[int]) -> Split:
    classes = np.repeat(np.arange(len(sizes)), sizes)
    return array_split(np.zeros((len(classes), 2, 2, 1), "uint8"), classes)


def source(train: Sequence[int], test: Sequence[int]) -> Source:
    labels = tuple(f"class{i}" for i in range(len(train)))
    return Source(labels, 1, split_of(train), split_of(test))


def warnings(*args: object, **kwargs: object) -> list[str]:
    lines = describe_classes(*args, **kwargs)  # type: ignore[arg-type]
    return [line for line in lines if line.startswith("warning: ")]


def test_balanced_classes_with_enough_images_give_a_table_and_no_warning() -> None:
    assert describe_classes(source([100, 1200], [500, 500]), weighted=True)[:3] == [
        "  class   training  test",
        "  class0       100   500",
        "  class1     1,200   500",
    ]
    assert len(describe_classes(source([100, 120], [500, 500]))) == 3


def test_100_images_against_6_are_called_imbalanced_with_the_accuracy_to_beat() -> None:
    (line, few) = warnings(source([100, 6], [21, 1]))[1:]
    assert line == (
        "warning: class0 has 100 training images and class1 6; always answering class0: 95.5% of "
        "the test images. Small classes get more weight by --set data.sampling=balanced or --set "
        "optimizer.class_weights=balanced"
    )
    assert few == (
        "warning: 22 test images are too few to tell: 91% right would be 72–97 % (95 % interval)"
    )
    (line, _) = warnings(source([100, 6], [21, 1]), weighted=True)[1:]
    assert line.endswith("95.5% of the test images")
    assert warnings(source([49, 10], [500, 500])) == []
    assert len(warnings(source([50, 10], [500, 500]))) == 1


def test_classes_that_one_split_lacks_are_named() -> None:
    assert warnings(source([20, 0, 20, 20], [300, 300, 0, 300])) == [
        "warning: there are no training images of class1",
        "warning: there are no test images of class2",
    ]
    assert warnings(source([20, 0, 20], [300, 0, 300])) == [
        "warning: there are no images of class1"
    ]
    (line,) = warnings(source([20] * 9, [300, 300, *[0] * 7]))
    assert line == (
        "warning: there are no test images of class2, class3, class4, class5, class6 and 2 more"
    )


def test_classes_of_a_few_images_are_named() -> None:
    assert "warning: 1 class has fewer than 10 training images: class1 (9)" in warnings(
        source([40, 9], [300, 300])
    )
    assert "warning: 2 classes have fewer than 10 training images: class0 (3), class1 (9)" in (
        warnings(source([3, 9], [300, 300]))
    )


@pytest.mark.parametrize(("classes", "lines"), [(20, 21), (21, 22), (1000, 22)])
def test_the_table_is_bounded_and_its_sum_is_that_of_all(classes: int, lines: int) -> None:
    sizes = 1 + np.arange(classes)
    shown = table([f"c{i}" for i in range(classes)], sizes, 2 * sizes)
    assert len(shown) == lines and len(set(map(len, shown))) == 1
    numbers = [int(line.split()[-2].replace(",", "")) for line in shown[1:]]
    assert sum(numbers) == sizes.sum()
    if classes > 20:
        assert "more" in shown[11] and shown[1].split()[0] == f"c{classes - 1}"


def test_few_test_images_are_called_too_few_and_many_are_not() -> None:
    said = [bool(small_test_split(n)) for n in (0, 1, 30, 100, 150, 360, 10_000)]
    assert said == [True, True, True, True, False, False, False]
    assert small_test_split(0) == ["warning: there are no test images"]


def test_of_several_labels_an_image_each_is_counted() -> None:
    labels = np.zeros((200, 3), "uint8")
    labels[:, 0], labels[:20, 1], labels[:11, 2] = 1, 1, 1
    split = array_split(np.zeros((200, 2, 2, 1), "uint8"), labels)
    assert (class_counts(split, 3) == [200, 20, 11]).all()
    (line,) = warnings(Source(("a", "b", "c"), 1, split, split))
    assert line == "warning: a has 200 training images and c 11"


def test_labels_that_are_costly_to_read_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    both = source([100, 6], [300, 300])
    unknown = dataclasses.replace(both.train, labels=None)
    assert (class_counts(unknown, 2) == [100, 6]).all()
    monkeypatch.setattr(balance, "COUNTED", 105)
    assert class_counts(unknown, 2) is None
    assert describe_classes(dataclasses.replace(both, train=unknown)) == []


def test_the_answer_that_needs_no_model() -> None:
    counts = np.array([3, 100]), np.array([30, 10])
    assert always_largest(["cat", "dog"], *counts) == (
        "always answering dog: 25.0% of the test images"
    )

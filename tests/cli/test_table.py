"""The layout of tables: no line wider than the terminal, and no number cut."""

import itertools

import pytest

from keras_resnet.table import Column, cell_width, fields, layout, plain, shortened

NAMES = ("a", "b" * 200, "日本語の名前" * 5)
NUMBERS = (("1.5", "100.00 %", "26.69 → 26.90"), ("+0.54", "–", "3"))
PROSE = ("asked", "it takes one RGB image; this model takes (1, 32, 32, 1)", "tensorflow/lite/a.cc")


def table(names: tuple[str, ...], numbers: int, prose: int) -> list[Column]:
    return [
        Column("class", names, "name"),
        *(Column(f"number {i}", NUMBERS[i % 2]) for i in range(numbers)),
        *(Column("because", PROSE, "prose") for _ in range(prose)),
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize(("numbers", "prose"), [(1, 0), (4, 0), (13, 0), (2, 2), (0, 1)])
def test_a_table_fits_the_terminal_and_numbers_stay_whole(
    width: int, numbers: int, prose: int
) -> None:
    lines = layout(table(NAMES, numbers, prose), width)
    assert max(map(cell_width, lines)) <= width
    text = "\n".join(lines)
    for i in range(numbers):
        assert all(number in text for number in NUMBERS[i % 2])
    if prose:
        words = {word for cell in PROSE[:2] for word in cell.split()}
        assert words <= set(text.split())


def test_in_a_pipe_each_row_is_one_line_and_nothing_is_cut() -> None:
    header, rule, *rows = layout(table(NAMES, 13, 2))
    assert set(rule) == {"─"} and header.startswith("class")
    assert len(rows) == len(NAMES)
    for i, row in enumerate(rows):
        assert NAMES[i] in row and PROSE[i] in row
        assert row.count(NUMBERS[0][i]) >= 7


def test_tables_below_each_other_repeat_the_names() -> None:
    names = ("float32", "int8")
    columns = [Column("kind", names, "name"), *(Column(f"f{i}", ("1" * 9,) * 2) for i in range(12))]
    lines = layout(columns, 80)
    assert [line.split()[0] for line in lines if line and "─" not in line] == [
        *("kind", *names),
        *("kind", *names),
    ]
    found = list(itertools.chain(*(line.split()[1:] for line in lines if line.startswith("kind"))))
    assert found == [f"f{i}" for i in range(12)]


def test_a_row_of_numbers_too_wide_for_any_table_becomes_a_block() -> None:
    columns = [Column("key", ("values",), "name"), Column("run", ("1" * 60,)), Column("b", ("2",))]
    lines = layout(columns, 40)
    assert max(map(len, lines)) <= 40
    assert [line.split() for line in lines] == [
        ["key", "values"],
        ["run", "1" * 35],
        ["1" * 25],
        ["b", "2"],
    ]


def test_a_long_name_is_shortened_in_its_middle() -> None:
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abc", 3) == "abc"
    assert cell_width(shortened("日本語の名前", 7)) <= 7


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r\nand\ttabs", "two lines  and tabs"),
        ("\x9b31m\x07\x00\u200b", "\\x9b31m\\x07\\x00\\u200b"),
        ("abc\u202e123\u2066", "abc\\u202e123\\u2066"),
        ("line\u2028separator", "line separator"),
        ("\udcff.png", "\\udcff.png"),
        ("Δ café 日本 × –", "Δ café 日本 × –"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_left(hostile: str, shown: str) -> None:
    assert plain(hostile) == shown


def test_every_control_character_is_escaped() -> None:
    controls = "".join(map(chr, [*range(32), *range(127, 160)]))
    assert plain(controls).isprintable()


def test_fields_wrap_below_their_text() -> None:
    lines = fields([("operations", "9 CONV_2D, 3 ADD"), ("size", "1 kB")], 22)
    assert lines == ["operations  9 CONV_2D,", "            3 ADD", "size        1 kB"]
    assert fields([("a", "x " * 50)]) == ["a  " + "x " * 49 + "x"]

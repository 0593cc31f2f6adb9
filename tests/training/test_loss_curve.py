"""The picture of the losses: where its line and its dots are, worked out by hand, and where there is none."""

import io

import pytest
from rich.console import Console

from minigpt.training.loss_curve import MAX_POINTS, LossCurve


def lines_of(curve, *, encoding="ascii", width=80, height=24):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width, height=height).print(curve)
    file.seek(0)
    return [line.rstrip("\n") for line in file]


@pytest.fixture
def curve():
    """Losses 4 and 2 at steps 50 and 100 of 200, and a validation at each."""
    curve = LossCurve(0, 200)
    curve.add(50, 4.0)
    curve.add_val(50, 3.0)
    curve.add(100, 2.0)
    curve.add_val(100, 2.5)
    return curve


def test_a_line_from_the_first_loss_to_the_last_and_a_dot_for_each_validation(curve):
    # 76 columns of steps 0 to 200; the line is on those of steps 50 to 100. 7 lines of losses 4 to 2.
    lines = lines_of(curve)
    rows = [line.partition("|")[2] for line in lines[:-1]]
    assert [line.partition("|")[0].strip() for line in lines[:-1]] == ["4", "", "", "", "", "", "2"]
    assert {column for row in rows for column, cell in enumerate(row) if cell == "*"} == set(range(19, 38))
    # A line is 1/3, a column 0.107: the first line has columns 19 and 20, and the one where the next line begins.
    assert rows[0].strip() == "***" and rows[6].rindex("*") == 37
    assert rows[3][19] == "o" and rows[4][38] == "o"
    assert lines[-1].split() == "0 train 2.000 o val 2.5000 200 steps".split() and max(map(len, lines)) == 79


def test_braille_has_eight_dots_for_each_character(curve):
    lines = lines_of(curve, encoding="utf-8")
    assert [len(line.rstrip()) <= 79 for line in lines] == [True] * 8
    picture = "".join(lines[:-1])
    assert picture.count("●") == 2 and "*" not in picture
    dots = [ord(cell) - 0x2800 for cell in picture if 0x2800 <= ord(cell) < 0x2900]
    columns = {
        2 * column + side
        for line in lines[:-1]
        for column, cell in enumerate(line.partition("│")[2])
        for side, mask in enumerate((0b01000111, 0b10111000))
        if 0x2800 <= ord(cell) < 0x2900 and (ord(cell) - 0x2800) & mask
    }
    assert sum(dot.bit_count() for dot in dots) > 40 and columns >= set(range(40, 74))


@pytest.mark.parametrize("size", [{"height": 15}, {"width": 39}], ids=str)
def test_nothing_is_drawn_where_there_is_no_room(curve, size):
    assert lines_of(curve, **size) == []


def test_nothing_is_drawn_of_one_loss():
    curve = LossCurve(0, 10)
    curve.add(1, 2.0)
    assert lines_of(curve) == []


def test_the_first_losses_do_not_flatten_the_others():
    curve = LossCurve(0, 100)
    for step, loss in ((1, 50.0), (9, 9.0), (10, 3.0), (50, 2.0), (100, 1.0)):
        curve.add(step, loss)
    assert lines_of(curve)[0].startswith("3 |")


def test_a_picture_is_drawn_once_for_each_new_loss(curve, monkeypatch):
    before = lines_of(curve)
    monkeypatch.setattr(LossCurve, "_draw", lambda self, *size: pytest.fail("drawn again"))
    assert lines_of(curve) == before
    monkeypatch.undo()
    curve.add(150, 1.0)
    assert lines_of(curve) != before


def test_what_is_no_loss_is_left_out(curve):
    before = [*curve.train], [*curve.val]
    for loss in (None, float("nan"), float("inf"), 2.0):  # the last is the one before
        curve.add(120, loss)
    curve.add_val(120, float("nan"))
    assert (curve.train, curve.val) == before


def test_a_long_run_keeps_means_of_neighbors():
    curve = LossCurve(0, 10_000)
    for step in range(10_000):
        curve.add(step, float(step))
    assert len(curve.train) < MAX_POINTS
    assert all(step == loss for step, loss in curve.train), "a mean of steps belongs to the mean of their losses"
    assert len(lines_of(curve)) == 8


def test_equal_losses_are_a_line():
    curve = LossCurve(3, 3)
    curve.train = [(3, 1.0), (4, 1.0)]
    assert "*" in lines_of(curve)[0]

"""The figures and tables of a model, by hand."""

import base64
import re
import struct
import zlib

import pytest

from minigpt.report.attention_maps import draw_labels, encode_png, map_heads
from minigpt.report.model_section import (
    bin_positions,
    position_curve,
    rank_tokens,
    shorten,
    token_bars,
    token_table,
    visible,
)

WEIGHTS = [[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.5, 0.2, 0.3]]


def test_positions_are_binned_with_the_mean_over_all_their_tokens():
    assert bin_positions([2.0, 3.0], [1, 2]) == [(1, 1, 2.0), (2, 2, 1.5)]
    bins = bin_positions([float(n) for n in range(1, 65)], [1] * 64)
    assert bins[:3] == [(1, 1, 1.0), (2, 2, 2.0), (3, 3, 3.0)]
    assert [start for start, _, _ in bins[1:]] == [stop + 1 for _, stop, _ in bins[:-1]], "without a gap"
    assert bins[-1][1] == 64 and all(loss == pytest.approx((start + stop) / 2) for start, stop, loss in bins)
    assert len(bin_positions([1.0] * 1024, [1] * 1024)) < 50
    assert bin_positions([0.0, 3.0], [0, 1]) == [(2, 2, 3.0)], "no mean of no tokens"


def test_tokens_are_ranked():
    tokens = rank_tokens([6.0, 0.0, 2.0], [2, 0, 4], ["a", "b", "c"])
    assert [(t.text, t.count, t.mean, t.share) for t in tokens] == [("c", 4, 0.5, 0.25), ("a", 2, 3.0, 0.75)]
    assert token_table(tokens, "character").rows == [["a", "2", "3.0000", "75.0%"], ["c", "4", "0.5000", "25.0%"]]
    figure = token_bars(tokens, "character")
    (values,) = figure.spec["datasets"].values()
    assert [value["token"] for value in values] == ["a", "c"], "the hardest first"
    assert "the hardest is a with 3.0000, the easiest c with 0.5000" in figure.description
    said = position_curve([2.0, 3.0, 1.0], [1, 1, 1], "token").description
    assert said.endswith("2.0000 with one, 1.0000 with 3."), "no range of one"


@pytest.mark.parametrize(
    ("token", "shown"), [(b" a\n", "␣a⏎"), (b"\xc3", "c3"), ("é".encode(), "é"), (b"\x1b", "\\x1b"), (b"\t", "⇥")]
)
def test_tokens_are_visible(token, shown):
    assert visible(token) == shown


def test_the_end_of_a_long_context_is_shown():
    assert shorten("First␣Citize") == "First␣Citize" and shorten("First␣Citizen") == "…rst␣Citizen"


def test_a_map_in_numbers_and_in_words():
    (((one,),)) = map_heads([[WEIGHTS]])
    assert (one.layer, one.head) == (1, 1)
    assert one.to_self == pytest.approx((0.75 + 0.3) / 2) and one.to_previous == pytest.approx((0.25 + 0.2) / 2)
    assert one.to_first == pytest.approx((0.25 + 0.5) / 2)
    assert one.distance == pytest.approx((0.25 * 1 + (0.5 * 2 + 0.2 * 1)) / 2)
    assert one.description.startswith("Layer 1, head 1: 22% on the token before, 52% on itself, 38% on the first")
    assert [[m.layer for m in heads] for heads in map_heads([[WEIGHTS] * 2] * 3)] == [[1, 1], [2, 2], [3, 3]]
    layers = [heads[0].layer for heads in map_heads([[WEIGHTS] * 48] * 12)]
    assert layers == [1, 5, 9], "a large model's are spread"
    assert map_heads([]) == [] and map_heads([[[[1.0]]]])[0][0].to_self == 1.0


def test_an_image_has_a_pixel_for_each_weight():
    png = encode_png(WEIGHTS)
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and struct.unpack(">II", png[16:24]) == (3, 3)
    chunks, place = {}, 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        name, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        assert struct.unpack(">I", png[place + 8 + length : place + 12 + length])[0] == zlib.crc32(name + data)
        chunks[name], place = data, place + 12 + length
    lines = zlib.decompress(chunks[b"IDAT"])
    assert [list(lines[n : n + 4]) for n in (0, 4, 8)] == [[0, 255, 0, 0], [0, 128, 221, 0], [0, 180, 114, 140]]
    assert list(chunks[b"tRNS"]) == list(range(256)) and len(chunks[b"PLTE"]) == 768
    (drawn,) = re.findall(r"base64,([^\"]*)", map_heads([[WEIGHTS]])[0][0].svg)
    assert base64.b64decode(drawn) == png


def test_labels_are_short_and_escaped():
    drawn = draw_labels(["<", "&", "citizen"])
    assert drawn.count("&lt;") == drawn.count("&amp;") == 2 and drawn.count("ci…") == 2 and "citizen" not in drawn

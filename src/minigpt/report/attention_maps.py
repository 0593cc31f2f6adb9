"""Attention maps as SVG: one square for each query and key, in an image that is light on light and dark pages."""

import base64
import html
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

Weights = Sequence[Sequence[float]]  # of one head: [query][key]
COLOR = (213, 94, 0)
CELL, MARGIN, GAP = 10, 22, 16  # units of the SVG; labels are in the margin
MAX_LABEL = 3  # characters
MAX_MAPS = 144


@dataclass(frozen=True)
class AttentionMap:
    """The map of one head.

    Attributes:
        layer, head: its place, counted from 1.
        svg: the map, without labels.
        to_self, to_previous, to_first: mean weights of these keys, over the queries with an earlier token.
        distance: mean distance of the keys [tokens].
    """

    layer: int
    head: int
    svg: str
    to_self: float
    to_previous: float
    to_first: float
    distance: float

    @property
    def description(self) -> str:
        """The map in words."""
        return (
            f"Layer {self.layer}, head {self.head}: {self.to_previous:.0%} on the token before, {self.to_self:.0%} on "
            f"itself, {self.to_first:.0%} on the first token; mean distance {self.distance:.1f} tokens"
        )


def map_heads(attention: Sequence[Sequence[Weights]]) -> list[list[AttentionMap]]:
    """Return the maps of each layer; of a large model, those of evenly spaced layers."""
    shown = max(2, MAX_MAPS // max(1, len(attention[0]))) if attention else 0
    stride = max(1, -(-len(attention) // max(1, shown)))
    return [
        [map_head(weights, layer + 1, head) for head, weights in enumerate(attention[layer], start=1)]
        for layer in range(0, len(attention), stride)
    ]


def map_head(weights: Weights, layer: int, head: int) -> AttentionMap:
    """Return the map of one head."""
    later = list(enumerate(weights))[1:] or [(0, weights[0])]
    number = len(later)
    return AttentionMap(
        layer=layer,
        head=head,
        svg=draw_map(weights),
        to_self=sum(row[query] for query, row in later) / number,
        to_previous=sum(row[max(0, query - 1)] for query, row in later) / number,
        to_first=sum(row[0] for _, row in later) / number,
        distance=sum(abs(query - key) * weight for query, row in later for key, weight in enumerate(row)) / number,
    )


def draw_map(weights: Weights) -> str:
    """Return the elements of a map: an image with one pixel for each weight, and its frame."""
    side = CELL * len(weights)
    data = base64.b64encode(encode_png(weights)).decode()
    place = f'x="{MARGIN}" y="{MARGIN}" width="{side}" height="{side}"'
    return (
        f'<image {place} style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
        f'<rect {place} fill="none" stroke="currentColor" stroke-opacity="0.35"/>'
    )


def draw_labels(tokens: Sequence[str]) -> str:
    """Return the labels of a map's rows and columns, which all maps share."""
    elements = []
    for number, token in enumerate(tokens):
        text = html.escape(token if len(token) <= MAX_LABEL else f"{token[: MAX_LABEL - 1]}…")
        middle = MARGIN + CELL * (number + 0.5)
        elements.append(f'<text x="{MARGIN - 4}" y="{middle + 3}" text-anchor="end">{text}</text>')
        turn = f' transform="rotate(-90 {middle + 3} {MARGIN - 4})"' if len(token) > 1 else ""
        anchor = "" if turn else ' text-anchor="middle"'
        elements.append(f'<text x="{middle + (3 if turn else 0)}" y="{MARGIN - 4}"{anchor}{turn}>{text}</text>')
    return f'<g font-size="9" font-family="ui-monospace, monospace" fill="currentColor">{"".join(elements)}</g>'


def draw_all(layers: Sequence[Sequence[AttentionMap]], tokens: Sequence[str]) -> str:
    """Return all maps as one SVG on white: a row for each layer."""
    side = map_side(tokens) + GAP
    labels, maps = draw_labels(tokens), []
    for row, heads in enumerate(layers):
        for column, shown in enumerate(heads):
            title = (
                f'<text x="{MARGIN}" y="-2" font-size="9" font-family="sans-serif">{shown.layer}.{shown.head}</text>'
            )
            maps.append(f'<g transform="translate({side * column} {side * row + GAP})">{title}{labels}{shown.svg}</g>')
    width, height = side * max(map(len, layers)), side * len(layers) + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return f'{head}<rect width="100%" height="100%" fill="white"/><g color="#333" fill="#333">{"".join(maps)}</g></svg>'


def map_side(tokens: Sequence[str]) -> int:
    """Return the width and height of one map with its labels."""
    return MARGIN + CELL * len(tokens) + 2


def encode_png(weights: Weights) -> bytes:
    """Return a PNG (W3C PNG, third edition) with a pixel for each weight in [0, 1].

    The opacity of the color is the square root of the weight: many keys share the weights of a row, which sum to 1.
    """
    lines = b"".join(b"\0" + bytes(round(255 * min(1.0, max(0.0, w)) ** 0.5) for w in row) for row in weights)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", len(weights[0]), len(weights), 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(COLOR) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    written = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)

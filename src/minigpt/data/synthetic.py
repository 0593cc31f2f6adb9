"""A synthetic play, generated from a seed without a network, with structure to learn at several scales.

Speakers alternate, each prefers some words, sentences follow a small grammar, and lines are wrapped like verse.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from minigpt.atomic_file import atomic_write
from minigpt.data.text_files import locked

SPEAKERS: Sequence[str] = "ALDO BRUNA CORVIN DELIA ESTER FABIAN GWENDA HUGO ISOLDE JORIS KATRIN LORENZ".split()
NOUNS = (
    "harbour lantern orchard winter letter river garden candle mountain sailor mirror bridge tower meadow "
    "miller daughter soldier kitchen market shadow thunder violin blanket village captain forest mother brother"
).split()
ADJECTIVES = "quiet golden bitter gentle broken silver weary honest crooked distant merry pale wicked faithful".split()
VERBS = "follow remember carry forgive question paint bury gather answer watch borrow mend leave praise".split()
ADVERBS = "slowly gladly never always twice alone tonight again softly hardly".split()
OPENINGS = "Listen, |Alas, |My friend, |Good sir, |No more, |So be it: |Tell me, |By this light, |||||".split("|")
PATTERNS = (
    "{O}the {a} {n} will {v} the {n2} {d}.",
    "{O}I {v} thee, {s}, as the {n} the {n2}.",
    "{O}who shall {v} a {a} {n} {d}?",
    "{O}let the {n} {v} what the {a} {n2} cannot {v2}!",
    "{O}if {s} {v}s the {n}, then the {n2} is {a}.",
    "{O}there is no {n} so {a} that a {n2} may {d} {v} it.",
)
LINE_WIDTH = 60


def write_play(path: Path, num_chars: int, seed: int) -> Path:
    """Write the play of a seed to `path` unless it exists, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if not path.is_file():
            with atomic_write(path) as temporary:
                temporary.write_text(make_play(num_chars, seed), encoding="utf-8", newline="\n")
    return path


def make_play(num_chars: int, seed: int) -> str:
    """Return the first `num_chars` characters of the play of a seed."""
    draw = random.Random(seed).random
    speeches: list[str] = []
    length = 0
    while length < num_chars:
        speaker = pick(SPEAKERS, draw)
        sentences = [make_sentence(speaker, draw) for _ in range(1 + int(4 * draw()))]
        speeches.append(f"{speaker}:\n{wrap(' '.join(sentences))}\n\n")
        length += len(speeches[-1])
    return "".join(speeches)[:num_chars]


def make_sentence(speaker: str, draw: Callable[[], float]) -> str:
    """Return a sentence of the grammar. Each speaker draws mostly from some of the nouns."""
    own = SPEAKERS.index(speaker) * 2
    favourites = NOUNS[own : own + 4]
    sentence = pick(PATTERNS, draw).format(
        O=pick(OPENINGS, draw),
        n=pick(favourites if draw() < 0.7 else NOUNS, draw),
        n2=pick(NOUNS, draw),
        a=pick(ADJECTIVES, draw),
        v=pick(VERBS, draw),
        v2=pick(VERBS, draw),
        d=pick(ADVERBS, draw),
        s=pick(SPEAKERS, draw).capitalize(),
    )
    return sentence[0].upper() + sentence[1:]


def pick(choices: Sequence[str], draw: Callable[[], float]) -> str:
    """Return one of the choices. (`random.choice` may change between Python versions, `random.random` may not.)"""
    return choices[int(draw() * len(choices))]


def wrap(text: str) -> str:
    """Wrap a text to lines of at most LINE_WIDTH characters, each starting with a capital letter as in verse."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > LINE_WIDTH:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word[0].upper() + word[1:]
    return "\n".join([*lines, line])

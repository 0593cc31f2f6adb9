"""Rows with other names: what counts as a name, that one name stays one name, and that it is a pure function."""

import numpy as np
import pytest

from minigpt.data.datamodule import PocketDataModule
from minigpt.data.renaming import Renaming, find_names
from minigpt.data.tokenizer import CharTokenizer

SPEECHES = [
    "ROMEO:\nO, my dear Juliet, my Ring, ring, is it you? God knows, the abc of jrz.\n\n",
    "JULIET:\nIt is, good Romeo; God be with you, king.\n\n",
    "KING:\nWhat King? In my God Abcdefg.\n\n",
]
TEXT = "".join(SPEECHES[i] for i in [0, 1, 2] * 3) + SPEECHES[2] * 40 + "to Molinorgate, of Molinorgate, by Molinorgate"


def renaming(probability=1.0, seed=1, text=TEXT):
    tokenizer = CharTokenizer(text)
    return Renaming(probability=probability, tokens=tokenizer.encode(text), tokenizer=tokenizer, seed=seed)


def test_names_have_capitals_and_are_not_everywhere():
    found = find_names(TEXT)
    assert "Romeo" in found and "Juliet" in found
    assert "God" not in found, "it is everywhere"
    assert "Ring" not in found, "it is a word too"
    assert "What" not in found and "It" not in found, "they begin sentences"


def test_a_name_becomes_one_other_throughout_a_row_and_keeps_its_case():
    part = renaming()
    text = part.rename("ROMEO:\nRomeo, romeo, JULIET, Romeo's Juliet God.\n", np.random.default_rng(3))
    speaker, _, line = text.partition(":\n")
    first, lower, second, again, last, rest = line.replace("'s", "").replace(",", "").split(" ")
    assert speaker == first.upper() == again.upper() and first == again == first.capitalize()
    assert lower == "romeo" and rest == "God.\n", "only names change"
    assert second == last.upper()


def test_rows_are_a_pure_function_of_seed_and_place():
    starts = np.array([0, 7, 70])
    rows = renaming().rows(starts, 60)
    assert rows.shape == (3, 60)
    assert np.array_equal(rows, renaming().rows(starts, 60))
    assert np.array_equal(rows[1:2], renaming().rows(starts[1:2], 60)), "whatever else is in the batch"
    assert not np.array_equal(rows, renaming(seed=2).rows(starts, 60))


def test_the_probability_is_that_of_a_row_to_change():
    starts = np.arange(0, 400)
    plain = renaming().tokens[starts[:, None] + np.arange(80)]
    changed = [(renaming(p).rows(starts, 80) != plain).any(axis=1).mean() for p in (0.3, 1.0)]
    assert changed[0] == pytest.approx(0.3 * changed[1], abs=0.08) and changed[1] > 0.7


def test_the_end_of_the_text_is_long_enough():
    part = renaming()
    starts = np.arange(len(TEXT) - 60, len(TEXT) - 50)
    assert part.rows(starts, 50).shape == (10, 50)


def test_a_text_without_names_is_refused():
    with pytest.raises(ValueError, match="finds no names"):
        renaming(text="to be or not to be. " * 20)


def test_only_rows_to_train_on_are_changed(tmp_path):
    def batches(augmentation):
        data = PocketDataModule(
            num_chars=20_000, text_seed=1, data_dir=str(tmp_path), block_size=64, batch_size=4, seed=1,
            augmentation=augmentation,
        )  # fmt: skip
        place = {"rank": 0, "world_size": 1, "micro_batches": 1, "first_step": 0, "last_step": 3, "batch_size": 4}
        return list(data.train_stream(**place)), list(data.val_stream())

    def renamed(**parts):
        return Renaming(probability=1.0, **parts)

    (train, val), (other, same) = batches(None), batches(renamed)
    assert any((x != z).any() for (x, _), (z, _) in zip(train, other, strict=True))
    assert all((x == z).all() and (y == w).all() for (x, y), (z, w) in zip(val, same, strict=True))
    assert all((x[:, 1:] == y[:, :-1]).all() for x, y in other), "targets are the next tokens of the changed rows"

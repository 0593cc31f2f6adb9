"""EntityRenaming: which words are names, and that the changes are consistent and repeatable."""

import numpy as np
import pytest

from minigpt.data.datamodule import SyntheticDataModule
from minigpt.data.renaming import EntityRenaming, find_names
from minigpt.data.tokenizer import CharTokenizer

SPEECHES = [
    "ROMEO:\nO, my dear Juliet, my Ring, ring, is it you? God knows, the abc of jrz.\n\n",
    "JULIET:\nIt is, good Romeo; God be with you, king.\n\n",
    "KING:\nWhat King? In my God Abcdefg.\n\n",
]
TEXT = "".join(SPEECHES[i] for i in [0, 1, 2] * 3) + SPEECHES[2] * 40 + "to Molinorgate, of Molinorgate, by Molinorgate"


def renaming(probability=1.0, seed=1, text=TEXT):
    tokenizer = CharTokenizer(text)
    return EntityRenaming(probability=probability, tokens=tokenizer.encode(text), tokenizer=tokenizer, seed=seed)


def test_names_are_capitalized_and_occur_in_some_sections_only():
    found = find_names(TEXT)
    assert "Romeo" in found and "Juliet" in found
    assert "God" not in found, "it occurs everywhere"
    assert "Ring" not in found, "it is a common word too"
    assert "What" not in found and "It" not in found, "they begin sentences"


def test_a_name_is_replaced_by_one_other_throughout_and_keeps_its_case():
    text = renaming().rename("ROMEO:\nRomeo, romeo, JULIET, Romeo's Juliet God.\n", np.random.default_rng(3))
    speaker, _, line = text.partition(":\n")
    first, lower, second, again, last, rest = line.replace("'s", "").replace(",", "").split(" ")
    assert speaker == first.upper() == again.upper() and first == again == first.capitalize()
    assert lower == "romeo" and rest == "God.\n", "only names change"
    assert second == last.upper()


def test_sequences_are_a_function_of_seed_and_position():
    start_indices = np.array([0, 7, 70])
    sequences = renaming().sequences(start_indices, 60)
    assert sequences.shape == (3, 60)
    assert np.array_equal(sequences, renaming().sequences(start_indices, 60))
    assert np.array_equal(sequences[1:2], renaming().sequences(start_indices[1:2], 60)), "whatever else is in the batch"
    assert not np.array_equal(sequences, renaming(seed=2).sequences(start_indices, 60))


def test_the_probability_is_that_of_a_sequence_to_change():
    start_indices = np.arange(0, 400)
    plain = renaming().tokens[start_indices[:, None] + np.arange(80)]
    changed = [(renaming(p).sequences(start_indices, 80) != plain).any(axis=1).mean() for p in (0.3, 1.0)]
    assert changed[0] == pytest.approx(0.3 * changed[1], abs=0.08) and changed[1] > 0.7


def test_sequences_at_the_end_of_the_text_are_complete():
    start_indices = np.arange(len(TEXT) - 60, len(TEXT) - 50)
    assert renaming().sequences(start_indices, 50).shape == (10, 50)


def test_a_text_without_names_is_refused():
    with pytest.raises(ValueError, match="finds no names"):
        renaming(text="to be or not to be. " * 20)


def test_only_training_sequences_are_changed(tmp_path):
    def batches(augmentation):
        data = SyntheticDataModule(
            num_chars=20_000, generator_seed=1, data_dir=str(tmp_path), block_size=64, batch_size=4, seed=1,
            augmentation=augmentation,
        )  # fmt: skip
        place = {"rank": 0, "world_size": 1, "micro_batches": 1, "first_step": 0, "last_step": 3, "batch_size": 4}
        return list(data.train_loader(**place)), list(data.val_loader())

    def rename_all(**options):
        return EntityRenaming(probability=1.0, **options)

    (train, val), (other, same) = batches(None), batches(rename_all)
    assert any((x != z).any() for (x, _), (z, _) in zip(train, other, strict=True))
    assert all((x == z).all() and (y == w).all() for (x, y), (z, w) in zip(val, same, strict=True))
    assert all((x[:, 1:] == y[:, :-1]).all() for x, y in other), "targets are the next tokens of the changed sequences"

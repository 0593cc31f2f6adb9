"""The synthetic play."""

import hashlib

from minigpt.data.datamodule import SyntheticDataModule
from minigpt.data.synthetic import make_play

GOLDEN_PLAY = "32095f4ae3812b6e9f90b84803879d9fcd8bd2fdcf2e4ceb806aff6305d90870"


def test_the_play_is_a_function_of_its_seed():
    assert make_play(5000, 1) == make_play(5000, 1) != make_play(5000, 2)
    assert len(make_play(5000, 1)) == 5000
    digest = hashlib.sha256(make_play(5000, 1).encode()).hexdigest()
    assert digest == GOLDEN_PLAY, "a seed must give the same play in every version"


def test_the_play_needs_no_network(tmp_path):
    options = {"data_dir": str(tmp_path), "block_size": 8, "batch_size": 2, "seed": 1}
    module = SyntheticDataModule(num_chars=3000, generator_seed=1, **options)
    assert len(module.corpus.train) == 2700 and "synthetic text" in module.warning
    assert module.locate_or_download().read_text() == make_play(3000, 1)
    assert module.locate_or_download() == tmp_path / "synthetic" / "3000-1.txt"

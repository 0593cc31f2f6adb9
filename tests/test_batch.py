"""The README's list of files that the default batch goes through, from the text to the loss, is true."""

import re
import sys
from pathlib import Path

import numpy as np
import torch
from tests.config.test_yaml import composed

from minigpt.config.build import build
from minigpt.training.module import LanguageModel

ROOT = Path(__file__).parents[1]


class Trace:
    """Notes which files of the project are called, and which of their functions return data of the batch."""

    def __init__(self):
        self.called, self.on_the_way = [], set()

    def __call__(self, frame, event, value):
        path = Path(frame.f_code.co_filename)
        if event not in ("call", "return") or ROOT / "src" not in path.parents:
            return
        name = str(path.relative_to(ROOT))
        if event == "call" and name not in self.called:
            self.called.append(name)
        if event == "return" and holds_data(value):
            self.on_the_way.add(name)

    def __enter__(self):
        sys.setprofile(self)

    def __exit__(self, *error):
        sys.setprofile(None)


def holds_data(value):
    """Whether a value is a piece of the text, an array or a tensor, or contains one."""
    if isinstance(value, tuple | dict):
        return any(map(holds_data, value.values() if isinstance(value, dict) else value))
    return isinstance(value, torch.Tensor | np.ndarray) or (isinstance(value, str) and len(value) > 1000)


def test_a_batch_goes_through_the_files_of_the_readme_in_their_order(tmp_path):
    listed = re.findall(
        r"\]\((src/[^)]*)\)", (ROOT / "README.md").read_text().split("<!-- batch -->")[1].split("[train.py]")[0]
    )
    config = composed("train", "data=synthetic", "data.num_chars=20000", f"paths.data_dir={tmp_path}")
    data = build(config["data"])
    data.locate_or_download()  # the synthetic text is written here, in place of a download
    trace = Trace()
    with trace:
        corpus = data.corpus
    model = build(config["model"], vocab_size=corpus.tokenizer.vocab_size)
    parts = {name: build(config[name]) for name in ("optimizer", "scheduler", "objective")}
    module = LanguageModel(model, seed=1, **parts)
    with trace:
        place = {"rank": 0, "world_size": 1, "first_step": 0, "last_step": 1, "micro_batches": 1}
        batch = next(iter(data.train_loader(batch_size=config["data"]["batch_size"], **place)))
        loss = module.training_step(batch, 0)["loss"]
    assert loss.item() > 3
    assert len(listed) <= 12 and len(set(listed)) == len(listed)
    assert trace.on_the_way <= set(listed), "the batch goes through files that the README does not list"
    assert set(listed) - trace.on_the_way <= {"src/minigpt/data/corpus.py"}, "nothing of the batch comes from there"
    found = [name for name in trace.called if name in listed]
    assert found == listed, "in the order of the first call"

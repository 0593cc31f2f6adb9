"""What generate.py prints, against the plain computation; stop strings, JSON, prompts one by one."""

import io
import json
import sys

import pytest
import torch

from minigpt.inference import text_generation
from minigpt.inference.beam_search import beam_search
from minigpt.inference.sampling import generate, generate_with_logits
from minigpt.inference.text_generation import generate_text

GENERATE = {"run": "latest", "prompt": "ab", "prompt_file": None, "max_new_tokens": 6, "temperature": 0.9, "seed": 5}
GENERATE |= {"top_k": 3, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.3, "num_samples": 1, "num_beams": None}
GENERATE |= {"length_penalty": 0.6, "stop": None, "precision": "32-true", "device": "cpu", "format": "text"}
GENERATE |= {"interactive": False}
SAMPLING = {name: GENERATE[name] for name in text_generation.SAMPLING}
PROMPT = torch.tensor([[1, 2]])  # "\n", "a", "b", "c", ...


@pytest.mark.parametrize("count", [1, 3])
def test_samples_are_drawn_with_the_options_that_were_typed(loaded, capsys, count):
    generate_text(loaded, GENERATE | {"num_samples": count})
    drawn = generate(loaded.model, PROMPT.expand(count, -1), **SAMPLING, generator=torch.Generator().manual_seed(5))
    texts = ["ab" + loaded.tokenizer.decode(sample) for sample in torch.stack(list(drawn), dim=1).tolist()]
    expected = [f"{texts[0]}\n"] if count == 1 else [f"--- {n}\n{text}\n" for n, text in enumerate(texts, start=1)]
    assert capsys.readouterr().out == "".join(expected)


@pytest.mark.parametrize("stop", [None, "c"])
@pytest.mark.parametrize("length_penalty", [0.0, 3.0])
def test_beams_are_searched_with_the_options_that_were_typed(loaded, capsys, stop, length_penalty):
    config = {"num_beams": 4, "num_samples": 2, "stop": stop, "length_penalty": length_penalty}
    generate_text(loaded, GENERATE | config)
    options = {"num_beams": 4, "length_penalty": length_penalty, "max_new_tokens": 6, "block_size": 8}
    stop_token = loaded.tokenizer.encode(stop).item() if stop else None
    found, _ = beam_search(loaded.model, loaded.model.make_cache(), PROMPT, **options, stop_token=stop_token)
    texts = [loaded.tokenizer.decode(ids) for ids in found[0, :2].tolist()]
    if stop is not None:
        texts = [text[: text.index(stop) + 1] if stop in text else text for text in texts]
    assert capsys.readouterr().out == "".join(f"--- {n}\nab{text}\n" for n, text in enumerate(texts, start=1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stop": ""}, "stop must not be empty"),
        ({"stop": ["a", ""]}, "stop must not be empty"),
        ({"prompt": "aÄz"}, "outside the vocabulary: 'z' 'Ä'"),
        ({"prompt": "a\udce4"}, "not UTF-8"),
        ({"interactive": True}, "leave prompt out"),
        ({"interactive": True, "prompt": None, "prompt_file": "-"}, "leave prompt_file out"),
        ({"prompt": ""}, "prompt is empty"),
        ({"num_beams": 2, "num_samples": 3}, "num_samples=3 of a search"),
    ],
)
def test_what_cannot_be_generated_is_refused(loaded, config, message):
    with pytest.raises(ValueError, match=message):
        generate_text(loaded, GENERATE | config)


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_text_is_generated_in_the_precision_that_was_typed(loaded, monkeypatch, precision, dtype):
    used = []
    monkeypatch.setattr(
        text_generation, "print_samples", lambda loaded, config: used.append(loaded.model.head.weight.dtype)
    )
    generate_text(loaded, GENERATE | {"precision": precision})
    assert used == [dtype]


def test_lines_of_json_have_the_log_probabilities_of_the_model(loaded, capsys):
    generate_text(loaded, GENERATE | {"num_samples": 2, "format": "json", "stop": "e"})
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    generator = torch.Generator().manual_seed(5)
    drawn = list(generate_with_logits(loaded.model, PROMPT.expand(2, -1), **SAMPLING, generator=generator))
    ids = torch.stack([token for token, _ in drawn], dim=1).tolist()
    log_p = torch.stack([logits.log_softmax(-1) for _, logits in drawn], dim=1)
    reasons = set()
    for i, row in enumerate(rows):
        text = loaded.tokenizer.decode(ids[i])
        count = text.index("e") + 1 if "e" in text else 6
        assert row["prompt"] == "ab" and row["text"] == text[:count] == "".join(t["text"] for t in row["tokens"])
        assert row["finish_reason"] == ("stop" if "e" in text else "length")
        assert [t["id"] for t in row["tokens"]] == ids[i][:count]
        expected = [log_p[i, step, token].item() for step, token in enumerate(ids[i][:count])]
        assert [t["log_prob"] for t in row["tokens"]] == pytest.approx(expected)
        assert row["log_prob"] == pytest.approx(sum(expected))
        reasons.add(row["finish_reason"])
    assert len(rows) == 2 and reasons == {"stop", "length"}, "the seed shows both"


def test_several_stop_strings_end_a_sample_with_the_first(loaded, capsys):
    options = {"max_new_tokens": 60, "temperature": 1.5, "top_k": None, "top_p": None, "min_p": None}
    generate_text(loaded, GENERATE | options)
    whole = capsys.readouterr().out.removesuffix("\n")
    stop = [whole[12:15], whole[10:14], whole[20:22]]
    generate_text(loaded, GENERATE | options | {"stop": stop})
    ends = [whole.index(s, 2) + len(s) for s in stop]
    assert capsys.readouterr().out == whole[: min(ends)] + "\n"


def test_beams_end_with_a_string_of_several_tokens(loaded, capsys):
    config = GENERATE | {"num_beams": 3, "num_samples": 3, "max_new_tokens": 8}
    generate_text(loaded, config | {"format": "json"})
    stop = json.loads(capsys.readouterr().out.splitlines()[0])["text"][3:5]
    generate_text(loaded, config | {"stop": stop, "format": "json"})
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert any(row["text"].endswith(stop) for row in rows)
    for row in rows:
        assert stop not in row["text"][:-1]
        ids = torch.from_numpy(loaded.tokenizer.encode("ab" + row["text"]).astype("int64"))
        if len(ids) <= 9:  # within one context
            log_p = loaded.model(ids[None, :-1])[0, 1:].log_softmax(-1).gather(1, ids[2:, None]).sum().item()
            assert row["score"] == pytest.approx(log_p / ((5 + len(row["text"])) / 6) ** 0.6, abs=1e-4)


def test_prompts_are_answered_line_by_line(loaded, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("ab\n\nazb\nab\n"))
    generate_text(loaded, GENERATE | {"interactive": True, "prompt": None})
    printed = capsys.readouterr()
    assert printed.err.startswith("error: characters outside the vocabulary: 'z'") and printed.err.count("\n") == 1
    for seed in (5, 7):  # the seeds of the first and of the third prompt
        generate_text(loaded, GENERATE | {"seed": seed})
    assert printed.out == capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="needs a standard input"):
        generate_text(loaded, GENERATE | {"interactive": True, "prompt": None})

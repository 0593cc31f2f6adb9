"""What an n-gram embedding looks at."""

from functools import partial

import pytest
import torch

from minigpt.inference.sampling import generate
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import MatchEmbedding, NgramEmbedding, ScaledEmbedding
from minigpt.model.gpt import GPT
from minigpt.model.mlp import MLP
from minigpt.model.norms import RMSNorm
from minigpt.model.positions import RotaryPositions


def embedding(**options):
    return NgramEmbedding(**{"vocab_size": 5, "dim": 8, "rows": [36, 216, 50], "widths": [4, 4, 2]} | options)


def test_short_n_grams_have_a_row_each():
    found = embedding().find_rows(torch.cartesian_prod(*[torch.arange(5)] * 3), None)
    assert len(set(found[0][:, 2].tolist())) == 25 and len(set(found[1][:, 2].tolist())) == 125
    assert all(rows.min() >= 0 and rows.max() < size for rows, size in zip(found, (36, 216, 50), strict=True))


def test_a_vector_depends_on_the_last_tokens_and_no_other():
    module, tokens = embedding(), torch.tensor([[0, 1, 2, 3, 4, 0, 1]])
    base = module(tokens)
    for changed in range(7):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % 5
        differs = (module(other) != base).any(-1)[0].nonzero().flatten().tolist()
        assert differs == [p for p in range(changed, changed + 4) if p < 7], "the token, and the three after it"


def test_the_start_of_a_row_differs_from_the_first_token():
    module = embedding()
    assert not torch.equal(module(torch.tensor([[0, 0]]))[0, 0], module(torch.tensor([[0, 0]]))[0, 1])


@pytest.mark.parametrize("split", [1, 2, 3, 5])
def test_in_two_pieces_as_in_one(split):
    module, tokens = embedding(), torch.randint(5, (2, 8))
    pieces = torch.cat((module(tokens[:, :split]), module(tokens[:, split:], tokens[:, :split])), dim=1)
    torch.testing.assert_close(pieces, module(tokens))


def test_dropout_leaves_out_n_grams_and_never_the_token():
    module = embedding(dropout=0.5).train()
    token = torch.nn.functional.embedding(torch.tensor([[1, 2]]), module.weight)
    drawn = torch.stack([module(torch.tensor([[1, 2]])) for _ in range(4000)])
    assert (drawn == token).all(-1).any(), "now and then all n-grams are left out"
    torch.testing.assert_close(drawn.mean(0), module.eval()(torch.tensor([[1, 2]])), atol=0.08, rtol=0)


def guessed(text, longest=4, guesses=1):
    """What each letter's guesses are and how long their matches, found one pair of places after another."""
    found = []
    for t in range(len(text)):
        best: dict[str, tuple[int, int]] = {}
        for j in range(t):
            length = next((n for n in range(longest) if n > j or text[j - n] != text[t - n]), longest)
            best[text[j + 1]] = max(best.get(text[j + 1], (0, 0)), (length, j))
        ranked = sorted(((length, j, guess) for guess, (length, j) in best.items() if length), reverse=True)
        found.append([(guess, length) for length, _, guess in ranked[:guesses]])
    return found


@pytest.mark.parametrize(("text", "guesses"), [("abcabcdabxbcabcabca", 2), ("aaaaaaaa", 1), ("abcd", 2)])
def test_what_followed_the_longest_match_is_looked_up(text, guesses):
    module = MatchEmbedding(vocab_size=5, dim=8, longest=4, guesses=guesses)
    letters = "abcdx"
    rows = torch.stack(module.find_rows(torch.tensor([[letters.index(c) for c in text]]), None))[:, 0].T
    expected = [
        [letters.index(guess) * 4 + length - 1 for guess, length in found] + [5 * 4] * (guesses - len(found))
        for found in guessed(text, guesses=guesses)
    ]
    assert rows.tolist() == expected


@pytest.mark.parametrize("split", [1, 2, 9, 23])
def test_matches_in_two_pieces_as_in_one(split):
    module, tokens = MatchEmbedding(vocab_size=3, dim=8, longest=4, guesses=2), torch.randint(3, (2, 24))
    pieces = torch.cat((module(tokens[:, :split]), module(tokens[:, split:], tokens[:, :split])), dim=1)
    torch.testing.assert_close(pieces, module(tokens))


def test_a_match_looks_at_no_later_token():
    module, tokens = MatchEmbedding(vocab_size=3, dim=8, guesses=2), torch.randint(3, (1, 40))
    for first in (1, 20, 39):
        other = tokens.clone()
        other[:, first:] = (other[:, first:] + 1) % 3
        torch.testing.assert_close(module(other)[:, :first], module(tokens)[:, :first])


EMBEDDINGS = [
    partial(NgramEmbedding, rows=[36, 216, 50], widths=[4, 4, 2]),
    partial(MatchEmbedding, longest=3, guesses=2),
]


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_generation_with_the_cache_is_the_same_as_without(embedding):
    parts = {"attention": CausalSelfAttention, "mlp": MLP, "norm": RMSNorm, "positions": RotaryPositions}
    model = GPT(
        vocab_size=5, block_size=16, num_layers=2, num_heads=2, dim=8, **parts,
        embedding=embedding,
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.tensor([[1, 2, 3]])
    for token in generate(model, tokens, max_new_tokens=12, temperature=0):
        assert token.item() == model(tokens)[0, -1].argmax().item()
        tokens = torch.cat((tokens, token[:, None]), dim=1)


def test_scaled_vectors_are_the_roots_of_the_width_times_as_long():
    module, tokens = ScaledEmbedding(vocab_size=5, dim=16), torch.tensor([[3, 0]])
    torch.testing.assert_close(module(tokens), 4 * module.weight[tokens])


def test_rows_and_widths_must_match():
    with pytest.raises(ValueError, match="as many widths as rows"):
        embedding(widths=[4])


@pytest.mark.parametrize("longest", [0, 128])
def test_a_match_is_counted_in_a_byte(longest):
    with pytest.raises(ValueError, match=f"1 to 127 tokens, not {longest}"):
        MatchEmbedding(vocab_size=5, dim=8, longest=longest)


def test_the_longest_countable_match_is_counted():
    module = MatchEmbedding(vocab_size=2, dim=8, longest=127)
    (rows,) = module.find_rows(torch.zeros(1, 140, dtype=torch.long), None)
    assert rows[0].tolist() == [2 * 127] + [min(t, 127) - 1 for t in range(1, 140)]

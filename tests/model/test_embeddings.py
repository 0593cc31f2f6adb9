"""Token embeddings that look at earlier tokens: n-grams and suffix matches."""

from functools import partial

import pytest
import torch

from minigpt.inference.sampling import generate
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embedding_variants import NgramEmbedding, SuffixMatchEmbedding
from minigpt.model.embeddings import RotaryPositions, ScaledEmbedding
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, RMSNorm


def embedding(**options):
    return NgramEmbedding(
        **{"vocab_size": 5, "dim": 8, "table_sizes": [36, 216, 50], "table_dims": [4, 4, 2]} | options
    )


def test_short_n_grams_do_not_collide():
    found = embedding().find_slots(torch.cartesian_prod(*[torch.arange(5)] * 3), None)
    assert len(set(found[0][:, 2].tolist())) == 25 and len(set(found[1][:, 2].tolist())) == 125
    assert all(slots.min() >= 0 and slots.max() < size for slots, size in zip(found, (36, 216, 50), strict=True))


def test_an_n_gram_has_the_same_slot_in_every_version():
    """The tables of a checkpoint are of use with these slots alone."""
    tokens, base = [4, 2, 1, 3], 6
    ngram = sum((token + 1) * base**back for back, token in enumerate(reversed(tokens)))
    slots = embedding().find_slots(torch.tensor([tokens]), None)
    assert slots[2][0, -1] == ngram * 2654435761 % (2**31 - 1) % 50


def test_a_vector_depends_on_the_last_four_tokens():
    module, tokens = embedding(), torch.tensor([[0, 1, 2, 3, 4, 0, 1]])
    base = module(tokens)
    for changed in range(7):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % 5
        differs = (module(other) != base).any(-1)[0].nonzero().flatten().tolist()
        assert differs == [p for p in range(changed, changed + 4) if p < 7], "the token itself and the three after it"


def test_the_start_of_a_sequence_has_a_context_of_its_own():
    module = embedding()
    assert not torch.equal(module(torch.tensor([[0, 0]]))[0, 0], module(torch.tensor([[0, 0]]))[0, 1])


@pytest.mark.parametrize("split", [1, 2, 3, 5])
def test_n_grams_continue_over_earlier_tokens(split):
    module, tokens = embedding(), torch.randint(5, (2, 8))
    pieces = torch.cat((module(tokens[:, :split]), module(tokens[:, split:], tokens[:, :split])), dim=1)
    torch.testing.assert_close(pieces, module(tokens))


def test_dropout_drops_n_grams_and_never_the_token():
    module = embedding(dropout=0.5).train()
    token = torch.nn.functional.embedding(torch.tensor([[1, 2]]), module.weight)
    drawn = torch.stack([module(torch.tensor([[1, 2]])) for _ in range(4000)])
    assert (drawn == token).all(-1).any(), "all n-grams are dropped now and then"
    torch.testing.assert_close(drawn.mean(0), module.eval()(torch.tensor([[1, 2]])), atol=0.08, rtol=0)


def expected_candidates(text, max_match_length=4, num_candidates=1):
    """The candidates after each letter with the lengths of their matches, by comparing all pairs of positions."""
    found = []
    for t in range(len(text)):
        best: dict[str, tuple[int, int]] = {}
        for j in range(t):
            length = next((n for n in range(max_match_length) if n > j or text[j - n] != text[t - n]), max_match_length)
            best[text[j + 1]] = max(best.get(text[j + 1], (0, 0)), (length, j))
        ranked = sorted(((length, j, letter) for letter, (length, j) in best.items() if length), reverse=True)
        found.append([(letter, length) for length, _, letter in ranked[:num_candidates]])
    return found


@pytest.mark.parametrize(("text", "num_candidates"), [("abcabcdabxbcabcabca", 2), ("aaaaaaaa", 1), ("abcd", 2)])
def test_candidates_are_those_of_the_longest_matches(text, num_candidates):
    module = SuffixMatchEmbedding(vocab_size=5, dim=8, max_match_length=4, num_candidates=num_candidates)
    letters = "abcdx"
    found = module.find_candidates(torch.tensor([[letters.index(c) for c in text]]), None)
    expected = [
        [letters.index(letter) * 4 + length - 1 for letter, length in each] + [5 * 4] * (num_candidates - len(each))
        for each in expected_candidates(text, num_candidates=num_candidates)
    ]
    assert torch.stack(found)[:, 0].T.tolist() == expected


@pytest.mark.parametrize("split", [1, 2, 9, 23])
def test_matches_reach_into_earlier_tokens(split):
    module = SuffixMatchEmbedding(vocab_size=3, dim=8, max_match_length=4, num_candidates=2)
    tokens = torch.randint(3, (2, 24))
    pieces = torch.cat((module(tokens[:, :split]), module(tokens[:, split:], tokens[:, :split])), dim=1)
    torch.testing.assert_close(pieces, module(tokens))


def test_a_match_reads_no_later_token():
    module, tokens = SuffixMatchEmbedding(vocab_size=3, dim=8, num_candidates=2), torch.randint(3, (1, 40))
    for first in (1, 20, 39):
        other = tokens.clone()
        other[:, first:] = (other[:, first:] + 1) % 3
        torch.testing.assert_close(module(other)[:, :first], module(tokens)[:, :first])


EMBEDDINGS = [
    partial(NgramEmbedding, table_sizes=[36, 216, 50], table_dims=[4, 4, 2]),
    partial(SuffixMatchEmbedding, max_match_length=3, num_candidates=2),
]


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_generation_with_a_cache_equals_that_without(embedding):
    components = {"attention": CausalSelfAttention, "mlp": MLP, "norm": RMSNorm, "positions": RotaryPositions}
    sizes = {"vocab_size": 5, "block_size": 16, "num_layers": 2, "num_heads": 2, "dim": 8}
    model = GPT(**sizes, **components, embedding=embedding).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.tensor([[1, 2, 3]])
    for token in generate(model, tokens, max_new_tokens=12, temperature=0):
        assert token.item() == model(tokens)[0, -1].argmax().item()
        tokens = torch.cat((tokens, token[:, None]), dim=1)


def test_scaled_vectors_are_multiplied_by_the_square_root_of_dim():
    module, tokens = ScaledEmbedding(vocab_size=5, dim=16), torch.tensor([[3, 0]])
    torch.testing.assert_close(module(tokens), 4 * module.weight[tokens])


def test_tables_need_a_size_and_a_dim_each():
    with pytest.raises(ValueError, match="as many table_dims as table_sizes, not 1 and 3"):
        embedding(table_dims=[4])


@pytest.mark.parametrize("options", [{"table_sizes": [36, 0, 50]}, {"table_dims": [4, 4, -1]}])
def test_tables_have_at_least_one_slot_and_one_dimension(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        embedding(**options)


@pytest.mark.parametrize("max_match_length", [0, 128])
def test_match_lengths_fit_a_byte(max_match_length):
    with pytest.raises(ValueError, match=f"1 to 127 tokens, not {max_match_length}"):
        SuffixMatchEmbedding(vocab_size=5, dim=8, max_match_length=max_match_length)


def test_matches_are_counted_up_to_127_tokens():
    module = SuffixMatchEmbedding(vocab_size=2, dim=8, max_match_length=127)
    (found,) = module.find_candidates(torch.zeros(1, 140, dtype=torch.long), None)
    assert found[0].tolist() == [2 * 127] + [min(t, 127) - 1 for t in range(1, 140)]

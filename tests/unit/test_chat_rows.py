"""data/chat_rows.py: conversations packed into rows, without attention across them, and none of them cut silently."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.chat import RenderedChat
from scratchgpt.data.chat_rows import ChatRows, best_fit

PAD = 1


def chat(*turns: str) -> RenderedChat:
    """One id per character, capitals being what the assistant says."""
    text = "".join(turns)
    return RenderedChat([ord(character) for character in text], [character.isupper() for character in text])


def rows_of(rows: ChatRows) -> list[list[tuple[str, str, int]]]:
    """(input, target, position) of each row, - for no target."""
    batch = rows.batch(np.arange(len(rows)))
    return [
        [(chr(i), "-" if t == -100 else chr(t), p) for i, t, p in zip(*triple, strict=True)]
        for triple in zip(
            *(batch[name].tolist() for name in ("input_ids", "shift_labels", "position_ids")), strict=True
        )
    ]


def test_a_row_by_hand() -> None:
    rows = ChatRows([chat("abCD"), chat("eFgH")], context_length=8, pad_token_id=ord("."))
    (row,) = rows_of(rows)
    assert "".join(token for token, _, _ in row) == "abCeFg.."
    assert "".join(target for _, target, _ in row) == "-CDF-H--"
    assert [position for _, _, position in row] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert rows.num_targets == 4
    assert ("4 of 6 tokens" in str(rows), "75.0% filled" in str(rows)) == (True, True)


def test_learning_the_prompt_too() -> None:
    rows = ChatRows([chat("abCD")], context_length=4, pad_token_id=PAD, train_on_prompt=True)
    assert [target for _, target, _ in rows_of(rows)[0]] == ["b", "C", "D", "-"]
    assert rows.num_targets == 3


def test_without_packing_each_has_a_row_of_its_own() -> None:
    rows = ChatRows([chat("aB"), chat("cD")], context_length=4, pad_token_id=PAD, packing=False)
    assert len(rows) == 2


def test_what_does_not_fit_is_cut_after_a_whole_answer_or_left_out() -> None:
    rows = ChatRows(
        [chat("aBB"), chat("aBBcD"), chat("aBBcDD"), chat("abcdeF"), chat("aBBBBB"), chat("aBBc"), chat("ab")],
        context_length=4,
        pad_token_id=PAD,
    )
    kept = sorted("".join(map(chr, ids)) for ids, _ in rows.chats)
    assert kept == ["aBB", "aBB", "aBB", "aBBcD"]  # T + 1 ids fit: the last one is no input
    assert (rows.num_cut, rows.num_dropped) == (1, 3)
    assert "1 cut after a whole answer, 3 left out" in str(rows)
    with pytest.raises(
        ValueError, match="none of the 1 conversations has an answer that ends within context_length=4"
    ):
        ChatRows([chat("abcdeF")], context_length=4, pad_token_id=PAD)


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 40))
def test_best_fit(lengths: list[int], capacity: int) -> None:
    bins = best_fit(lengths, capacity)
    assert sorted(item for items in bins for item in items) == list(range(len(lengths)))
    filled = [sum(lengths[item] for item in items) for items in bins]
    assert all(0 < amount <= capacity for amount in filled)
    # Two bins that are half empty would have been one.
    assert sum(2 * amount <= capacity for amount in filled) <= 1


def test_order_is_a_permutation_for_each_epoch() -> None:
    rows = ChatRows([chat(f"{letter}B") for letter in "abcdef"], 1, PAD)
    epoch = np.concatenate([rows.indices(step, 2, seed=0) for step in range(3)])
    assert sorted(epoch) == list(range(6))
    assert rows.fingerprint() == ChatRows([chat(f"{letter}B") for letter in "abcdef"], 1, PAD).fingerprint()
    assert rows.fingerprint() != ChatRows([chat(f"{letter}C") for letter in "abcdef"], 1, PAD).fingerprint()


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
@torch.no_grad()
def test_packed_conversations_have_the_loss_they_have_alone(preset: str) -> None:
    config = ScratchGPTConfig.from_preset(
        preset, vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16
    )
    model = ScratchGPTForCausalLM(config).eval()
    chats = [chat("abCDE"), chat("fgHiJK"), chat("lMN")]
    packed = ChatRows(chats, 16, PAD)
    assert len(packed) == 1
    batch = packed.batch([0])
    together = model(**batch, use_cache=False, num_items_in_batch=1).loss
    alone = torch.zeros(())
    for one in chats:
        labels = [token if learned else -100 for token, learned in zip(one.input_ids, one.assistant_mask, strict=True)]
        alone += model(torch.tensor([one.input_ids]), labels=torch.tensor([labels]), num_items_in_batch=1).loss
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    batch["position_ids"] = torch.arange(16)[None]
    assert not torch.isclose(model(**batch, use_cache=False, num_items_in_batch=1).loss, alone, rtol=1e-4)

"""Our losses of preferences are those of TRL's DPOTrainer: batch, loss, rewards and gradients, full and LoRA."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel
from trl import DPOConfig, DPOTrainer

from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.adapters import AdapterArguments, add_adapter
from scratchgpt.data.packing import IGNORE_INDEX
from scratchgpt.data.preference_rows import PreferenceRows
from scratchgpt.data.preferences import Pair
from scratchgpt.evaluation.preferences import Draws, pair_log_probabilities, reference_of
from scratchgpt.training.tasks.preference import PreferenceArguments, PreferenceTuning

PAIRS = [
    Pair([{"role": "user", "content": "To be, or not to be?"}], "That is the question.", "No."),
    Pair([{"role": "user", "content": "What glitters?"}], "Gold!", "All that is gold, and a good deal more."),
    Pair(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is gold?"},
            {"role": "assistant", "content": "A metal."},
            {"role": "user", "content": "And what glitters?"},
        ],
        "Not all that is gold.",
        "Gold, gold, gold.",
    ),
]
ROWS = [
    {
        "prompt": pair.prompt,
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }
    for pair in PAIRS
]


@pytest.fixture
def rows(tokenizer: Any) -> PreferenceRows:
    return PreferenceRows(PAIRS, tokenizer, 128)


def trl_trainer(model: Any, reference: Any, tokenizer: Any, folder: Path, loss: str, beta: float) -> DPOTrainer:
    arguments = DPOConfig(
        output_dir=str(folder), loss_type=[loss], beta=beta, max_length=None, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, disable_dropout=True, save_strategy="no", learning_rate=1e-3,
    )  # fmt: skip
    return DPOTrainer(
        model=model, ref_model=reference, args=arguments, train_dataset=Dataset.from_list(ROWS),
        processing_class=copy.deepcopy(tokenizer),
    )  # fmt: skip


def moved(model: Any) -> None:
    """As after some training: what is trained is no longer what it was."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize(("loss", "beta"), [("sigmoid", 0.1), ("ipo", 0.5)])
def test_loss_rewards_and_gradients_are_those_of_trl(
    preset: str, make_config, tokenizer, tmp_path: Path, rows: PreferenceRows, tuning: str, loss: str, beta: float
) -> None:
    torch.manual_seed(0)
    model: Any = ScratchGPTForCausalLM(make_config(preset))
    reference: PreTrainedModel | None = copy.deepcopy(model).eval()
    rows.reference = reference_of(model, rows, 2, True, torch.device("cpu"))
    if tuning == "lora":
        model, reference = add_adapter(model, AdapterArguments(lora_r=4)), None  # TRL keeps the fresh one as reference
    trainer = trl_trainer(model, reference, tokenizer, tmp_path, loss, beta)
    moved(model)
    theirs_batch = trainer.data_collator(list(trainer.train_dataset))
    ours_batch = rows.batch(np.arange(3))

    # The same tokens, and the same of them count.
    for row in range(6):
        real = theirs_batch["attention_mask"][row].bool()
        ids = theirs_batch["input_ids"][row][real]
        assert torch.equal(ours_batch["input_ids"][row][: len(ids) - 1], ids[:-1])
        learned = theirs_batch["completion_mask"][row][real].bool()
        targets = ours_batch["shift_labels"][row]
        assert torch.equal(targets[targets != IGNORE_INDEX], ids[learned])

    theirs = trainer.compute_loss(model, theirs_batch)
    theirs.backward()
    their_gradients = gradients(model)
    rewards = [trainer._metrics["train"][f"rewards/{name}"][-1] for name in ("chosen", "rejected")]

    arguments = PreferenceArguments(loss=loss, beta=beta, nll_weight=0.0)
    task = PreferenceTuning(rows, rows, tokenizer, arguments, True, Draws(np.zeros(0), np.zeros(0)))
    ours = task.loss(model, ours_batch, task.num_targets(ours_batch))
    ours.backward()
    our_gradients = gradients(model)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    change = pair_log_probabilities(model, ours_batch, True).detach() - ours_batch["reference"]
    assert change.abs().min() > 1e-3  # the adapter or the weights do differ from the reference
    torch.testing.assert_close((beta * change).mean(0), torch.tensor(rewards), rtol=1e-5, atol=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    assert max(float(each.abs().max()) for each in our_gradients.values()) > 1e-3
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: n + m)


def test_trl_tunes_our_models(preset: str, make_config, tokenizer, tmp_path: Path) -> None:
    model = ScratchGPTForCausalLM(make_config(preset))
    before = model.state_dict()["model.layers.0.mlp.up_proj.weight"].clone()
    trainer = trl_trainer(model, copy.deepcopy(model), tokenizer, tmp_path, "sigmoid", 0.1)
    trainer.args.max_steps = 1
    trainer.train()
    assert trainer.state.log_history[0]["train_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert not torch.equal(model.state_dict()["model.layers.0.mlp.up_proj.weight"], before)

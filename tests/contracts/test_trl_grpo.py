"""Our loss of GRPO is that of TRL's GRPOTrainer on the same answers, and TRL trains our models as they are."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.data.packing import IGNORE_INDEX
from scratchgpt.data.prompts import Prompt
from scratchgpt.data.sampled_rows import SampledRows
from scratchgpt.evaluation.rewards import Rewards
from scratchgpt.training.tasks.reinforcement import ReinforceArguments, Reinforcement, advantages

QUESTIONS = ["To be, or not to be?", "What glitters?", "Is it gold?"]


def trl_trainer(model: Any, tokenizer: Any, folder: Path, **changed: Any) -> GRPOTrainer:
    settings = {
        "output_dir": str(folder), "report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "save_strategy": "no", "max_completion_length": 8, "num_generations": 4, "per_device_train_batch_size": 12,
        "scale_rewards": "none", "epsilon": 0.2, "epsilon_high": 0.28, "beta": 0.0, "learning_rate": 1e-2,
        "disable_tqdm": True,
    }  # fmt: skip
    return GRPOTrainer(
        model=model, args=GRPOConfig(**settings | changed), processing_class=copy.deepcopy(tokenizer),
        reward_funcs=[lambda completions, **_: [float(len(each[0]["content"])) for each in completions]],
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": each}]} for each in QUESTIONS * 4]),
    )  # fmt: skip


def moved(model: Any) -> Any:
    other = copy.deepcopy(model)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"loss_type": "bnpo"}),  # the mean over all tokens, which is that of dapo on a single batch
        ({"length_normalization": True}, {"loss_type": "grpo"}),
        (
            {"kl_weight": 0.1, "clip_high": 0.2},
            {"loss_type": "bnpo", "epsilon_high": 0.2, "use_bias_correction_kl": True},
        ),
    ],
)
def test_loss_and_gradients_are_those_of_trl(
    preset: str, make_config, tokenizer: Any, tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model: Any = ScratchGPTForCausalLM(make_config(preset))
    then, before = moved(model), moved(moved(model))  # what sampled the answers, and the reference
    rows = SampledRows([Prompt([{"role": "user", "content": each}], {}) for each in QUESTIONS], tokenizer, 128, 8)
    arguments = ReinforceArguments(group_size=4, response_tokens=8, reward=["format"], **ours)
    task = Reinforcement(rows, rows, tokenizer, arguments, True, rewards=Rewards(["format"], pattern=".*"))

    lengths = torch.randint(1, 9, (3, 4))
    ids = torch.randint(5, 300, (3, 4, rows.context_length), dtype=torch.int32)
    starts = torch.tensor([len(each) for each in rows.prompt_ids])
    for slot, prompt in enumerate(rows.prompt_ids):
        ids[slot, :, : len(prompt)] = torch.tensor(prompt, dtype=torch.int32)
    samples = {"ids": ids, "starts": starts, "lengths": lengths, "advantages": advantages(torch.rand(3, 4))}
    samples["old"] = task._log_probabilities(then, samples, torch.device("cpu"))
    samples["reference"] = task._log_probabilities(before, samples, torch.device("cpu"))
    rows.put(0, samples)
    batch = rows.batch([0, 1, 2])
    loss = task.loss(model, batch, task.num_targets(batch))
    loss.backward()
    our_gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    # The same as TRL has it: prompts padded on the left, answers on the right.
    width, count = int(starts.max()), 12
    prompt_ids = torch.full((count, width), tokenizer.pad_token_id)
    prompt_mask, completion_mask = torch.zeros(count, width).long(), torch.zeros(count, 8).long()
    completion_ids = torch.full((count, 8), tokenizer.pad_token_id)
    per_token = {name: torch.zeros(count, 8) for name in ("old", "reference")}
    for row in range(count):
        start, length = int(starts[row // 4]), int(lengths.flatten()[row])
        answer = ids.flatten(0, 1)[row, start : start + length].long()
        prompt_ids[row, width - start :] = ids.flatten(0, 1)[row, :start].long()
        prompt_mask[row, width - start :] = 1
        completion_ids[row, :length], completion_mask[row, :length] = answer, 1
        for name, values in per_token.items():
            values[row, :length] = samples[name].flatten(0, 1)[row, start - 1 : start - 1 + length]
    inputs = {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "completion_ids": completion_ids,
        "completion_mask": completion_mask, "advantages": samples["advantages"].flatten(),
        "old_per_token_logps": per_token["old"], "ref_per_token_logps": per_token["reference"],
        "num_items_in_batch": completion_mask.sum(),
    }  # fmt: skip
    trainer = trl_trainer(model, tokenizer, tmp_path, **theirs)
    trainer.current_gradient_accumulation_steps = 1
    trainer.beta = arguments.kl_weight  # given at first, TRL looks for the reference by its name on the Hub
    expected = trainer._compute_loss(model.train(), inputs)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert (batch["old"] != 0).sum() == (batch["shift_labels"] != IGNORE_INDEX).sum()
    assert max(float(each.abs().max()) for each in our_gradients.values()) > 1e-3
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(our_gradients[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_trl_trains_our_models(preset: str, make_config, tokenizer: Any, tmp_path: Path) -> None:
    model = ScratchGPTForCausalLM(make_config(preset))
    before = model.state_dict()["model.layers.0.mlp.up_proj.weight"].clone()
    trainer = trl_trainer(model, tokenizer, tmp_path, max_steps=1)
    trainer.train()
    (line,) = [each for each in trainer.state.log_history if "reward" in each] or [{}]
    assert line["reward"] > 0
    assert not torch.equal(model.state_dict()["model.layers.0.mlp.up_proj.weight"], before)

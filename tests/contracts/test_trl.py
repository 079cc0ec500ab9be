"""TRL's SFTTrainer on conversations, with a loss on what the assistant says only."""

from copy import deepcopy
from pathlib import Path

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.data.chat import render_chats
from scratchgpt.data.chat_rows import ChatRows

CONVERSATIONS = [
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "To be, or not to be?"},
        {"role": "assistant", "content": "That is the question."},
    ],
    [
        {"role": "user", "content": "What glitters?"},
        {"role": "assistant", "content": "All that is gold."},
        {"role": "user", "content": "All?"},
        {"role": "assistant", "content": "Not all."},
    ],
]


def test_sft_on_assistant_turns(preset: str, make_config, tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(make_config(preset))
    before = model.state_dict()["model.layers.0.mlp.up_proj.weight"].clone()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            assistant_only_loss=True,
            max_steps=2,
            per_device_train_batch_size=2,
            max_length=128,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"messages": CONVERSATIONS * 4}),
        processing_class=deepcopy(tokenizer),
    )
    for row in next(iter(trainer.get_train_dataloader()))["labels"].tolist():
        learned = tokenizer.decode([token for token in row if token != -100])
        answers = {
            "".join(turn["content"] + "<|end|>" for turn in conversation if turn["role"] == "assistant")
            for conversation in CONVERSATIONS
        }
        assert learned in answers  # the end of the turn included, the roles and the questions not
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert not torch.equal(model.state_dict()["model.layers.0.mlp.up_proj.weight"], before)


def test_the_loss_is_that_of_our_chat_rows(preset: str, make_config, tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(make_config(preset)).eval()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            assistant_only_loss=True,
            max_length=128,
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict({"messages": CONVERSATIONS}),
        processing_class=deepcopy(tokenizer),
    )
    theirs_batch = trainer.data_collator(list(trainer.train_dataset))
    rows = ChatRows(render_chats(CONVERSATIONS, tokenizer), 128, tokenizer.pad_token_id)
    ours_batch = rows.batch([0])
    assert len(rows) == 1  # both conversations, packed
    assert rows.num_targets == int((theirs_batch["labels"] != -100).sum())
    with torch.no_grad():
        theirs = trainer.compute_loss(model, theirs_batch)
        ours = model(**ours_batch, use_cache=False).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

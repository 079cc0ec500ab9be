"""training/bases.py: what tuning starts from. The whole of it is in the tests of the recipes."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoTokenizer

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenization_scratchgpt import END_OF_TURN, ScratchGPTTokenizer
from scratchgpt.tokenizers import BPETokenizer, to_rust, to_transformers
from scratchgpt.training.arguments import LanguageModelArguments
from scratchgpt.training.bases import StagedArguments, base_config, base_model, chat_base


def write(folder: Path, tokenizer) -> str:
    torch.manual_seed(5)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = ScratchGPTForCausalLM(config)
    if END_OF_TURN in tokenizer.get_vocab():  # as recipes/pretrain.py does
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END_OF_TURN)]
    save_model(model, tokenizer, folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("base") / "base", to_transformers(BPETokenizer.train(["to be"], 262)))


def test_a_model_of_the_base_or_of_its_shape(base: str) -> None:
    own = ScratchGPTForCausalLM.from_pretrained(base).get_input_embeddings().weight
    kind = ScratchGPTForSequenceClassification
    models = [
        base_model(kind, base, 0),
        *(base_model(kind, base, seed, True, hidden_dropout=0.5) for seed in (0, 0, 1)),
    ]
    tables = [model.get_input_embeddings().weight for model in models]
    assert torch.equal(tables[0], own)
    assert not torch.equal(tables[1], own)
    assert torch.equal(tables[1], tables[2])
    assert not torch.equal(tables[2], tables[3])
    assert models[1].config.hidden_dropout == 0.5
    with pytest.raises(ValueError, match="no/where is not here"):
        base_config("no/where")


def test_role_tokens_are_added_where_they_are_missing(base: str, tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    found, tokenizer = chat_base(base, "role_tokens", str(tmp_path / "run"), 0, accelerator)
    assert (found, (tmp_path / "run").exists()) == (base, False)
    assert tokenizer.chat_template
    bare = BPETokenizer.train(["to be"], 258, special_tokens=["<|endoftext|>"])
    other = write(tmp_path / "bare", ScratchGPTTokenizer(tokenizer_object=to_rust(bare), pad_token=None))
    assert chat_base(other, "plain", str(tmp_path / "run"), 0, accelerator)[0] == other
    found, tokenizer = chat_base(other, "role_tokens", str(tmp_path / "run"), 0, accelerator)
    assert found == str(tmp_path / "run" / "base")
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(other)) + 5
    weights = [ScratchGPTForCausalLM.from_pretrained(each).get_input_embeddings().weight for each in (other, found)]
    assert torch.equal(weights[0], weights[1][: len(weights[0])])
    chat_base(other, "role_tokens", str(tmp_path / "again"), 1, accelerator)
    again = ScratchGPTForCausalLM.from_pretrained(tmp_path / "again" / "base").get_input_embeddings().weight
    assert not torch.equal(again, weights[1])


def test_the_settings_of_the_stage_before(tmp_path: Path) -> None:
    training = {"seed": 3, "max_steps": 9, "ema_decay": 0.9, "warmup_steps": 2, "resume_from_checkpoint": "x/y"}
    stage = {"lm_steps": 5, "lm_learning_rate": 0.01, "lm_batch_size": 4, "lm_data": "text"}
    arguments = StagedArguments(output_dir=str(tmp_path), **training, **stage)
    found = arguments.of_the_stage()
    assert isinstance(found, LanguageModelArguments)
    assert (found.seed, found.warmup_steps, found.max_steps, found.ema_decay) == (3, 2, 5, None)
    assert (found.learning_rate, found.per_device_train_batch_size) == (0.01, 4)
    assert found.output_dir == str(tmp_path / "language_model")
    assert found.resume_from_checkpoint == "true"  # a checkpoint of the classifier's is none of this stage

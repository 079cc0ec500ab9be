"""Mistakes that people make: each ends in one line that names the thing, exit code 2, with nothing written."""

import importlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.adapters import AdapterArguments, add_adapter, load_base
from scratchgpt.arguments import run_recipe
from scratchgpt.hub.model_directory import save_model
from scratchgpt.hub.names import check_source
from scratchgpt.tokenizers import WORD_PATTERN, BPETokenizer, RegexTokenizer, to_transformers
from tests.runs import ROOT, SENTENCES

SECONDS = 5

PROGRESS = re.compile(r"\[\d\d:\d\d")
"""In a line of a progress bar, which may stand before the message."""

ENOUGH = {
    "pretrain": "--data text.jsonl --eval_data text.jsonl --eval_split train --tokenizer tokenizer --output_dir out "
    "--cache_dir cache --context_length 16 --hidden_size 32 --num_hidden_layers 1 --num_attention_heads 2 "
    "--max_steps 2 --compile false",
    "finetune_classifier": "--data labels.csv --model_name_or_path base --output_dir out --max_steps 1",
    "finetune_instruct": "--data chats.jsonl --eval_data chats.jsonl --model_name_or_path base --output_dir out "
    "--max_steps 1 --compile false",
    "finetune_preference": "--data pairs.jsonl --model_name_or_path base --output_dir out --max_steps 1 "
    "--compile false",
    "reinforce": "--data chats.jsonl --eval_data chats.jsonl --model_name_or_path base --output_dir out --max_steps 1 "
    "--response_tokens 4 --compile false",
    "train_tokenizer": "--data text.jsonl --output_dir out --vocab_size 280",
    "chat": "--model base --prompt Hello --max_new_tokens 2",
    "serve": "--model base --port 0",
    "showcase": "--show base",
    "classify": "--model classifier --data labels.csv --output out.jsonl",
    "merge_adapter": "--adapter adapter --output_dir out",
    "export_model": "--model_name_or_path base --output_dir out --to qwen3",
    "push_to_hub": "base --repo_id me/model",
    "import_gpt2": "--model_name_or_path gpt2 --tokenizer none --output_dir out",
    "evaluate": "--answers answers.jsonl --output_dir out",
    "judge": "--answers answers.jsonl --judge base --output_dir out",
    "results_page": "--run_dir run --data text.jsonl --output out.md",
    "text_files": "--source text.jsonl --output_dir out --min_characters 1 --near_duplicate_threshold 1",
    "alpaca": "--source alpaca.json --output_dir out",
    "dolly": "--source dolly.jsonl --output_dir out",
    "shakespeare": "--source text.txt --output_dir out",
    "sentiment": "--name sst2 --source labels.csv --output_dir out",
    "sms_spam": "--source sms.tsv --output_dir out",
    "python_docs": "--output_dir out",
    "arithmetic": "--output_dir out --questions 40",
    "own_answers": "--model base --data chats.jsonl --max_new_tokens 4 --output_dir out",
}
"""What each recipe and builder needs to do its work; a mistake adds to it, or gives an option again."""

MISTAKES = [
    # Pushing to the Hub.
    ("push_to_hub", "!base", "--repo_id is missing"),
    ("push_to_hub", "!nowhere --repo_id me/model", "nowhere is no directory"),
    ("push_to_hub", "!folder --repo_id me/model", "folder holds no model"),
    ("push_to_hub", "--repo_id me/model/final", "me/model/final"),
    ("push_to_hub", "--base_repo_id me/base", "is no adapter: leave out base_repo_id"),
    ("push_to_hub", "", "README.md is missing"),
    ("pretrain", "--hub_model_id me/model", "is for --push_to_hub"),
    ("pretrain", "--push_to_hub --hub_model_id me/model/final", "me/model/final"),
    # The command line and the YAML file.
    ("pretrain", "!--data text.jsonl --output_dir out --tokeniser tokenizer", "did you mean tokenizer?"),
    ("pretrain", "--max_step 3", "did you mean max_steps?"),
    ("pretrain", "--max_steps", "--max_steps: expected one argument"),
    ("pretrain", "--max_steps many", "invalid int value: 'many'"),
    ("pretrain", "--max_steps 2.5", "invalid int value: '2.5'"),
    ("pretrain", "--learning_rate fast", "invalid float value: 'fast'"),
    ("pretrain", "--learning_rate inf", "learning_rate=inf"),
    ("pretrain", "--learning_rate -1", "learning_rate=-1"),
    ("pretrain", "--compile maybe", "maybe"),
    ("pretrain", "--optimizer sgd", "invalid choice: 'sgd'"),
    ("pretrain", "--report_to nowhere", "nowhere"),
    ("pretrain", "!--tokenizer tokenizer --output_dir out", "--data is missing"),
    ("pretrain", "!none.yaml", "none.yaml cannot be read"),
    ("pretrain", "!folder", "folder cannot be read"),
    ("pretrain", "!empty.txt", "must hold `name: value` lines"),
    ("pretrain", "!text.jsonl", "text.jsonl"),
    ("pretrain", "!unknown.yaml", "unknown option max_step: did you mean max_steps?"),
    ("pretrain", "!broken.yaml", "broken.yaml is not YAML"),
    ("pretrain", "!latin1.txt", "latin1.txt is not YAML"),
    ("pretrain", "text.jsonl", "text.jsonl"),
    # Text to train on.
    ("pretrain", "--data nowhere.txt", "nowhere.txt"),
    ("pretrain", "--data nowhere/at/all", "nowhere/at/all"),
    ("pretrain", "--data folder/nowhere", "folder/nowhere"),
    ("pretrain", "--data nobody/nothing", "nobody/nothing"),
    ("pretrain", "--data empty.txt", "empty"),
    ("pretrain", "--data empty.jsonl", "empty"),
    ("pretrain", "--data empty_folder", "empty_folder"),
    ("pretrain", "--data broken.jsonl", "broken.jsonl, line 2"),
    ("pretrain", "--data latin1.txt", "latin1.txt"),
    ("pretrain", "--data cut.parquet", "cut.parquet"),
    ("pretrain", "--data cut.txt.gz", "cut.txt.gz"),
    ("pretrain", "--data picture.png", "picture.png"),
    ("pretrain", "--column content", "content"),
    ("pretrain", "--data numbers.jsonl", "not text"),
    ("pretrain", "--eval_data nowhere.txt", "nowhere.txt"),
    # Tokenizers and models to begin with.
    ("pretrain", "--tokenizer nowhere/tokenizer", "nowhere/tokenizer"),
    ("pretrain", "--tokenizer nobody/nothing", "nobody/nothing"),
    ("pretrain", "--tokenizer folder", "folder"),
    ("pretrain", "--tokenizer text.txt", "text.txt"),
    ("pretrain", "--tokenizer broken_tokenizer", "broken_tokenizer"),
    ("pretrain", "--preset enormous", "enormous"),
    ("pretrain", "--num_attention_heads 3", "3"),
    ("pretrain", "--vocab_size 10", "vocab_size"),
    ("pretrain", "--model_name_or_path nowhere/model --hidden_size=32", "nowhere/model"),
    ("pretrain", "!{} --model_name_or_path base --context_length 4096", "4096"),
    ("pretrain", "!{} --model_name_or_path base --tokenizer other_tokenizer", "tokenizer"),
    # Where results go.
    ("pretrain", "--output_dir text.txt", "text.txt"),
    ("pretrain", "--output_dir text.txt/out", "text.txt/out"),
    ("pretrain", "--cache_dir text.txt/cache", "text.txt/cache"),
    ("pretrain", "--output_dir another_run", "another_run"),
    # Classifiers.
    ("finetune_classifier", "!--data labels.csv --output_dir out", "--model_name_or_path is missing"),
    ("finetune_classifier", "--data nowhere.csv", "nowhere.csv"),
    ("finetune_classifier", "--data empty.csv", "empty.csv"),
    ("finetune_classifier", "--data header.csv", "header.csv"),
    ("finetune_classifier", "--text_column review", "'review'"),
    ("finetune_classifier", "--label_column stars", "'stars'"),
    ("finetune_classifier", "--data one_label.csv", "label"),
    ("finetune_classifier", "--eval_data other_labels.csv", "other_labels.csv"),
    ("finetune_classifier", "--model_name_or_path nowhere/base", "nowhere/base"),
    ("finetune_classifier", "--model_name_or_path no_config", "no_config"),
    ("finetune_classifier", "--model_name_or_path no_weights", "no_weights"),
    ("finetune_classifier", "--model_name_or_path no_tokenizer", "no_tokenizer"),
    ("finetune_classifier", "--model_name_or_path cut_weights", "cut_weights"),
    ("finetune_classifier", "--max_length 4096", "max_length=4096"),
    ("finetune_classifier", "--baselines magic", "magic"),
    ("finetune_classifier", "--lm_steps 3", "lm_data"),
    ("finetune_classifier", "--validation_fraction 0.6 --test_fraction 0.6", "fraction"),
    # Instruction tuning.
    ("finetune_instruct", "--data labels.csv --eval_data labels.csv", "labels.csv"),
    ("finetune_instruct", "--data empty.jsonl", "empty.jsonl"),
    ("finetune_instruct", "!--data chats.jsonl --model_name_or_path base --output_dir out", "--eval_data"),
    ("finetune_instruct", "--model_name_or_path nowhere/base", "nowhere/base"),
    ("finetune_instruct", "--model_name_or_path classifier", "classifier"),
    ("finetune_instruct", "--context_length 4096", "4096"),
    ("finetune_instruct", "--lora_targets nothing", "nothing"),
    # Preferences.
    ("finetune_preference", "--data nowhere.jsonl", "nowhere.jsonl"),
    ("finetune_preference", "--data labels.csv", "no column 'chosen'"),
    ("finetune_preference", "--data same_pairs.jsonl", "4 chosen and rejected are the same"),
    ("finetune_preference", "--data empty_pairs.jsonl", "4 an empty answer"),
    ("finetune_preference", "--data one_prompt.jsonl", "1 different prompts cannot be split"),
    ("finetune_preference", "--eval_data long_pairs.jsonl", "4 a prompt that fills the context of 64 tokens"),
    ("finetune_preference", "--context_length 10", "give shorter pairs, or a longer context_length"),
    ("finetune_preference", "--context_length 4096", "4096"),
    ("finetune_preference", "--model_name_or_path adapter", "is an adapter: merge it into its base first"),
    ("finetune_preference", "--model_name_or_path no_tokenizer", "no_tokenizer"),
    ("finetune_preference", "--model_name_or_path classifier", "classifier"),
    ("finetune_preference", "--loss dpo", "invalid choice: 'dpo'"),
    ("finetune_preference", "--loss ipo --label_smoothing 0.1", "label_smoothing is for"),
    ("finetune_preference", "--beta 0", "beta=0"),
    ("finetune_preference", "--output_dir another_run", "another_run"),
    # Learning from a checker.
    ("reinforce", "--data nowhere.jsonl", "nowhere.jsonl"),
    ("reinforce", "--data labels.csv", "labels.csv, row 1: no conversation in the columns"),
    ("reinforce", "--model_name_or_path adapter", "is an adapter: merge it into its base first"),
    ("reinforce", "--model_name_or_path no_tokenizer", "no_tokenizer"),
    ("reinforce", "--context_length 4096", "4096"),
    ("reinforce", "--response_tokens 60", "leaves no room for 60"),
    ("reinforce", "--method ppo", "invalid choice: 'ppo'"),
    ("reinforce", "--group_size 1", "group_size=1: grpo compares"),
    ("reinforce", "--method rejection --scale_rewards", "scale_rewards is for --method grpo"),
    ("reinforce", "--reward right", "reward=right is unknown"),
    ("reinforce", "--reward nowhere:score", "the reward nowhere:score cannot be imported"),
    ("reinforce", "--reward format", "needs --answer_format"),
    ("reinforce", "--output_dir another_run", "another_run"),
    ("own_answers", "--data nowhere.jsonl", "nowhere.jsonl"),
    ("own_answers", "--data labels.csv", "labels.csv, row 1: no conversation in the columns"),
    ("own_answers", "--model nowhere", "nowhere"),
    ("own_answers", "--model classifier", "classifier"),
    ("own_answers", "--answers 1", "answers=1"),
    ("own_answers", "--data chats.jsonl", "4 prompts cannot be split for training and validation"),
    ("own_answers", "--data questions.jsonl --reward right", "reward=right is unknown"),
    ("own_answers", "--data questions.jsonl --reward nowhere:score", "the reward nowhere:score cannot be imported"),
    ("own_answers", "--judge base --reward number_match", "--judge takes the place of --reward"),
    ("own_answers", "--judge http://localhost/v1", "--judge_model names the model"),
    ("own_answers", "--data questions.jsonl --judge nowhere", "nowhere"),
    ("own_answers", "--device mars", "mars"),
    ("own_answers", "--output_dir full", "full"),
    # Tokenizers.
    ("train_tokenizer", "--data nowhere.txt", "nowhere.txt"),
    ("train_tokenizer", "--data empty.txt", "empty"),
    ("train_tokenizer", "--vocab_size 10", "vocab_size"),
    ("train_tokenizer", "--pattern (", "pattern"),
    ("train_tokenizer", "--kind words", "invalid choice: 'words'"),
    ("train_tokenizer", "--gpt2_dir nowhere", "nowhere"),
    ("train_tokenizer", "--eval_data nowhere.txt", "nowhere.txt"),
    ("train_tokenizer", "--output_dir full", "full is not empty"),
    ("train_tokenizer", "--output_dir full --overwrite true", "holds no tokenizer.json"),
    ("train_tokenizer", "--special_tokens a a", "distinct"),
    # Using models.
    ("chat", "!--prompt Hello", "--model is missing"),
    ("chat", "--model nowhere/model", "nowhere/model"),
    ("chat", "--model nobody/nothing", "nobody/nothing"),
    ("chat", "--model text.txt", "text.txt"),
    ("chat", "--model empty_folder", "empty_folder"),
    ("chat", "--model no_config", "no_config"),
    ("chat", "--model no_weights", "no_weights"),
    ("chat", "--model no_tokenizer", "no_tokenizer"),
    ("chat", "--model cut_weights", "cut_weights"),
    ("chat", "--model broken_config", "broken_config"),
    ("chat", "--model unknown_kind", "model type `mystery`"),
    ("chat", "--model classifier", "classifier"),
    ("chat", "--model orphan", "orphan"),
    ("chat", "--model adapter --base other_base", "other_base"),
    ("chat", "--temperature -1", "temperature=-1"),
    ("chat", "--max_new_tokens 4096", "4096"),
    ("chat", "--weight_bits 3", "weight_bits"),
    ("chat", "--device gpu", "gpu"),
    ("serve", "--model nowhere/model", "nowhere/model"),
    ("serve", "--model classifier", "classifier"),
    ("serve", "--port 70000", "port=70000"),
    ("showcase", "!--port 7860", "there is nothing to show"),
    ("showcase", "!nowhere/model", "nowhere/model"),
    ("showcase", "!base folder", "folder holds no run, model"),
    ("showcase", "!broken_config", "config.json"),
    ("showcase", "--memory_gb 0", "memory_gb=0"),
    ("showcase", "--port 70000", "port=70000"),
    ("showcase", "--device mars", "mars"),
    ("showcase", "--documents nowhere.txt", "nowhere.txt"),
    ("showcase", "--documents picture.png", "picture.png"),
    ("classify", "--model base", "base"),
    ("classify", "--model nowhere/model", "nowhere/model"),
    ("classify", "--model no_tokenizer", "no_tokenizer"),
    ("classify", "--data nowhere.csv", "nowhere.csv"),
    ("classify", "--data folder", "folder"),
    ("classify", "--data picture.png", "picture.png"),
    ("classify", "--data empty.csv", "empty.csv"),
    ("classify", "--text_column review", "'review'"),
    ("classify", "--label_column stars", "'stars'"),
    ("classify", "--output labels.csv", "labels.csv exists"),
    ("classify", "--output out.xlsx", "out.xlsx"),
    ("classify", "--output text.txt/out.csv", "text.txt"),
    ("merge_adapter", "--adapter base", "base"),
    ("merge_adapter", "--adapter nowhere", "nowhere"),
    ("merge_adapter", "--adapter orphan", "orphan"),
    ("merge_adapter", "--base nowhere/base", "nowhere/base"),
    ("merge_adapter", "--output_dir full", "full is not empty"),
    ("export_model", "--model_name_or_path nowhere/model", "nowhere/model"),
    ("export_model", "--model_name_or_path gpt2", "gpt2 is a gpt2 model"),
    ("export_model", "--model_name_or_path classifier", "classifier"),
    ("export_model", "--model_name_or_path adapter", "adapter"),
    ("export_model", "--model_name_or_path cut_weights", "cut_weights"),
    ("export_model", "--to gpt2", "GPT-2"),
    ("export_model", "--quantization q8_0", "--quantization q8_0 is for --to gguf"),
    ("export_model", "--to gguf --quantization q3_k", "invalid choice: 'q3_k'"),
    ("export_model", "--to gguf --model_name_or_path words", "its tokens are words or characters"),
    ("export_model", "--to gguf --model_name_or_path own_pattern", "it splits text by"),
    ("export_model", "--to gguf --model_name_or_path no_tokenizer", "no_tokenizer has no tokenizer.json"),
    ("export_model", "--to gguf --model_name_or_path relu", "hidden_act=relu"),
    ("export_model", "--to gguf --output_dir full", "full is not empty"),
    ("export_model", "--to onnx --quantization q8_0", "--quantization q8_0 is for --to gguf"),
    ("export_model", "--to gguf --quantization int8", "--quantization int8 is for --to web"),
    ("export_model", "--to web --output_dir full --overwrite", "full holds no model/page.json"),
    ("export_model", "--to onnx --model_name_or_path no_tokenizer", "no_tokenizer has no tokenizer.json"),
    ("export_model", "--to onnx --output_dir full --overwrite", "full holds no onnx/model.onnx"),
    ("export_model", "--to gguf --output_dir full --overwrite", "full holds no Modelfile"),
    ("export_model", "--to gguf --output_dir text.txt", "text.txt is a file"),
    ("import_gpt2", "--model_name_or_path nowhere/gpt2", "nowhere/gpt2"),
    ("import_gpt2", "--model_name_or_path base", "base"),
    ("import_gpt2", "--model_name_or_path text.txt", "text.txt"),
    ("import_gpt2", "--model_name_or_path empty_folder", "empty_folder"),
    ("import_gpt2", "--tokenizer nowhere/tokenizer", "nowhere/tokenizer"),
    ("evaluate", "!--output_dir out", "give --answers"),
    ("evaluate", "--model base", "one of the two"),
    ("evaluate", "!--model base --output_dir out", "there is nothing to measure: give --text"),
    ("evaluate", "!--model base --suite best --output_dir out", "--suite best: give quick or full alone, or names of"),
    ("evaluate", "!--model base --suite quick text --text text.jsonl --output_dir out", "--suite quick"),
    ("evaluate", "!--model base --suite text --output_dir out", "the suite text needs --text"),
    ("evaluate", "!--model base --suite answers --output_dir out", "the suite answers needs --data"),
    ("evaluate", "!--model base --suite full --output_dir out", "blimp is neither here nor to be had from the Hub"),
    (
        "evaluate",
        "!--model base --suite piqa --benchmarks_dir folder --output_dir out",
        "the benchmark piqa is neither",
    ),
    ("evaluate", "!--model base --suite piqa --benchmarks_dir nowhere --output_dir out", "nowhere is no folder"),
    ("evaluate", "!--model base --benchmarks_dir columns --output_dir out", "piqa needs the columns (query, choices"),
    ("evaluate", "!--model base --text nowhere.txt --output_dir out", "nowhere.txt"),
    ("evaluate", "!--model base --text text.jsonl --text_column story --output_dir out", "no text in column 'story'"),
    ("evaluate", "!--model base --text empty.txt --output_dir out", "empty.txt holds no text"),
    ("evaluate", "!--model base --text text.jsonl --train_text empty.txt --output_dir out", "empty.txt holds no text"),
    (
        "evaluate",
        "!--model base --suite text --text text.jsonl --stride 65 --output_dir out",
        "--stride 65 is more than",
    ),
    ("evaluate", "!--model base --text text.jsonl --stride 0 --output_dir out", "stride=0"),
    ("evaluate", "!--model base --text text.jsonl --stride 5000 --output_dir out", "base: there is nothing that it"),
    ("evaluate", "!--model base --model base/ --text text.jsonl --output_dir out", "give each model once"),
    ("evaluate", "!--model nowhere/model --text text.jsonl --output_dir out", "nowhere/model"),
    ("evaluate", "!--model base --model classifier --text text.jsonl --output_dir out", "classifier is a classifier"),
    ("evaluate", "!--model gpt2 --text text.jsonl --output_dir out", "gpt2 has no tokenizer"),
    ("evaluate", "!--model other_ids --text text.jsonl --output_dir out", "they do not belong together"),
    (
        "evaluate",
        "!--model no_end --text text.jsonl --output_dir out",
        "no_end: the tokenizer has no end-of-text token",
    ),
    ("evaluate", "!--model orphan --text text.jsonl --output_dir out", "gone"),
    ("evaluate", "--answers nowhere.json", "nowhere.json is no file"),
    ("evaluate", "--answers chats.jsonl", "has no column 'model_response' for the answer"),
    ("evaluate", "--suite blimp", "--suite needs --model: finished answers are only scored"),
    ("evaluate", "--answer_column said", "has no column 'said'"),
    ("evaluate", "--output_dir full", "full is not empty"),
    ("evaluate", "!--model classifier --data chats.jsonl --split train --output_dir out", "is a classifier"),
    ("judge", "!--output_dir out", "give --answers or --preferences"),
    ("judge", "--preferences answers.jsonl", "one of the two"),
    ("judge", "!--answers answers.jsonl --output_dir out", "--judge is missing"),
    ("judge", "--answers nowhere.json", "nowhere.json is no file"),
    ("judge", "!--answers answers.jsonl chats.jsonl --judge base --output_dir out", "the same questions"),
    ("judge", "--answer_column said", "no text in the column 'said'"),
    ("judge", "!--preferences answers.jsonl --judge base --output_dir out", "no text in the column 'chosen'"),
    ("judge", "--judge nowhere/model", "nowhere/model"),
    ("judge", "--judge classifier", "classifier is a classifier"),
    ("judge", "--judge gpt2", "gpt2 has no tokenizer"),
    ("judge", "--judge http://localhost:1", "--judge_model"),
    ("judge", "--judge ftp://localhost:1 --judge_model m", "is no address"),
    ("judge", "--verdicts nowhere.json", "nowhere.json is no file"),
    ("judge", "--verdicts labels.csv", "no column 'verdict' or 'score'"),
    ("judge", "--verdicts scores.json", "scores.json holds 3 verdicts and there are 1 answers"),
    ("judge", "--verdicts letters.json", "letters belong to two files"),
    ("judge", "--output_dir full", "full is not empty"),
    ("results_page", "--run_dir nowhere", "nowhere"),
    ("results_page", "--run_dir folder", "folder"),
    # Data builders.
    ("text_files", "!--output_dir out", "--source is missing"),
    ("text_files", "--source nowhere", "nowhere"),
    ("text_files", "--source empty_folder", "empty_folder"),
    ("text_files", "--source picture.png", "picture.png"),
    ("text_files", "--column content", "content"),
    ("text_files", "--min_characters 1000", "min_characters"),
    ("text_files", "--source short.txt", "too few"),
    ("text_files", "--validation_fraction 1.5", "validation_fraction=1.5"),
    ("text_files", "--output_dir full", "full is not empty"),
    ("text_files", "--output_dir text.txt/out", "text.txt"),
    ("alpaca", "--source nowhere.json", "nowhere.json"),
    ("alpaca", "--source labels.csv", "no conversation in the columns"),
    ("dolly", "--source nowhere.jsonl", "nowhere.jsonl"),
    ("dolly", "!--output_dir out", "databricks"),
    ("shakespeare", "--source nowhere.txt", "nowhere.txt"),
    ("shakespeare", "--source empty.txt", "empty"),
    ("sentiment", "--source nowhere.csv", "nowhere.csv"),
    ("sentiment", "--source text.jsonl", "text"),
    ("sms_spam", "--source nowhere.tsv", "nowhere.tsv"),
    ("sms_spam", "--source text.txt", "text.txt"),
    ("python_docs", "--output_dir full", "full is not empty"),
    ("python_docs", "--seed -1", "seed=-1"),
]
"""Recipe or builder; what is added to `ENOUGH` (or, after `!`, given instead of it); what the line says."""


def model_config(tokenizer: Any) -> ScratchGPTConfig:
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, **ids,
    )  # fmt: skip


def make_models() -> None:
    tokenizer = to_transformers(BPETokenizer.train(SENTENCES * 9, vocab_size=300), model_max_length=64)
    tokenizer.save_pretrained("tokenizer")
    to_transformers(BPETokenizer.train(SENTENCES * 9, vocab_size=280)).save_pretrained("other_tokenizer")
    config = model_config(tokenizer)
    save_model(ScratchGPTForCausalLM(config), tokenizer, "base")
    save_model(ScratchGPTForCausalLM(config), tokenizer, "other_base")
    save_model(ScratchGPTForSequenceClassification(config), tokenizer, "classifier")
    save_model(add_adapter(load_base("base"), AdapterArguments()), tokenizer, "adapter")
    for name, other in (
        ("words", RegexTokenizer.train(SENTENCES * 9, vocab_size=300)),
        ("own_pattern", BPETokenizer.train(SENTENCES * 9, vocab_size=300, pattern=WORD_PATTERN)),
    ):
        save_model(ScratchGPTForCausalLM(model_config(to_transformers(other))), to_transformers(other), name)
    config.hidden_act = "relu"
    save_model(ScratchGPTForCausalLM(config), tokenizer, "relu")
    PreTrainedTokenizerFast(tokenizer_file="tokenizer/tokenizer.json").save_pretrained("no_end")
    GPT2LMHeadModel(GPT2Config(vocab_size=400, n_embd=32, n_layer=1, n_head=2)).save_pretrained("no_end")
    gpt2 = GPT2Config(vocab_size=20, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(gpt2).save_pretrained("other_ids")
    tokenizer.save_pretrained("other_ids")
    Path("columns").mkdir()
    Path("columns/piqa.jsonl").write_text('{"question": "Who?", "choices": ["a", "b"]}')
    Path("answers.jsonl").write_text('{"instruction": "Well?", "output": "yes", "model_response": "yes"}\n')
    GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    ).save_pretrained("gpt2")
    for name, missing in (
        ("no_config", "config.json"),
        ("no_weights", "model.safetensors"),
        ("no_tokenizer", "tokenizer.json"),
    ):
        shutil.copytree("base", name)
        (Path(name) / missing).unlink()
    shutil.copytree("base", "cut_weights")
    whole = Path("base/model.safetensors").read_bytes()
    Path("cut_weights/model.safetensors").write_bytes(whole[: len(whole) // 2])
    for name, content in (("broken_config", "{"), ("unknown_kind", '{"model_type": "mystery"}')):
        shutil.copytree("base", name)
        (Path(name) / "config.json").write_text(content)
    shutil.copytree("tokenizer", "broken_tokenizer")
    Path("broken_tokenizer/tokenizer.json").write_text("{")
    for name in ("no_config", "no_weights", "no_tokenizer", "cut_weights", "broken_config", "unknown_kind"):
        (Path(name) / "manifest.json").unlink()  # as if another program had written it: no seal tells
    shutil.copytree("adapter", "orphan")
    reference = json.loads(Path("orphan/base.json").read_text())
    Path("orphan/base.json").write_text(json.dumps({**reference, "base": "./gone"}))
    shutil.copytree("base", "another_run/checkpoint-1")


def make_files() -> None:
    for folder in ("folder", "empty_folder", "full"):
        Path(folder).mkdir()
    Path("folder/note").write_text("Nothing to read.")
    Path("full/letter.txt").write_text("Mine.")
    rows = [{"text": SENTENCES[number % 3] * (number % 5 + 1)} for number in range(60)]
    chat = {"messages": [{"role": "user", "content": "Gold?"}, {"role": "assistant", "content": "Gold!"}]}
    pairs = [{"prompt": f"{word}?", "chosen": "Gold!", "rejected": "No."} for word in ("One", "Two", "Three", "Four")]
    lines = {
        "pairs.jsonl": [json.dumps(pair) for pair in pairs],
        "same_pairs.jsonl": [json.dumps({**pair, "rejected": "Gold!"}) for pair in pairs],
        "empty_pairs.jsonl": [json.dumps({**pair, "chosen": ""}) for pair in pairs],
        "one_prompt.jsonl": [json.dumps({**pair, "prompt": "One?"}) for pair in pairs],
        "long_pairs.jsonl": [json.dumps({**pair, "prompt": "One? " * 99}) for pair in pairs],
        "text.jsonl": [json.dumps(row) for row in rows],
        "numbers.jsonl": [json.dumps({"text": number}) for number in range(60)],
        "broken.jsonl": [json.dumps(rows[0]), '{"text": '],
        "chats.jsonl": [json.dumps(chat)] * 4,
        "questions.jsonl": [json.dumps({"question": pair["prompt"], "answer": "Gold!"}) for pair in pairs],
        "text.txt": [row["text"] for row in rows],
        "short.txt": ["Hi."],
        "labels.csv": [
            "text,label",
            *[f"word {'x' * n},{'good' if n % 2 else 'bad'}" for n in range(60)],
        ],
        "other_labels.csv": ["text,label", "Nobody knows,ugly"],
        "one_label.csv": ["text,label", *[f"word {number},good" for number in range(60)]],
        "header.csv": ["text,label"],
        "scores.json": ["[1, 2, 3]"],
        "letters.json": ['["A"]'],
        "unknown.yaml": ["max_step: 3"],
        "broken.yaml": ["max_steps: ["],
    }
    for name, content in lines.items():
        Path(name).write_text("\n".join(content) + "\n", encoding="utf-8")
    for name in ("empty.txt", "empty.jsonl", "empty.csv"):
        Path(name).touch()
    Path("latin1.txt").write_bytes("Möbel, größer als üblich\n".encode("latin-1") * 20)
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    Path("cut.parquet").write_bytes(b"PAR1" + bytes(100))
    Path("cut.txt.gz").write_bytes(bytes.fromhex("1f8b0800000000000003") + bytes(20))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the mistakes name, good and bad."""
    folder, before = tmp_path_factory.mktemp("mistakes"), Path.cwd()
    os.chdir(folder)
    try:
        torch.manual_seed(0)
        make_files()
        make_models()
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the current one, without a network."""

    def no_network(*_: Any) -> None:
        raise AssertionError("a mistake is told without the network")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    return folder


def found_files(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] != "cache"  # text that was tokenised before a later mistake was found
    }


def command_line(name: str, mistake: str) -> list[str]:
    if not mistake.startswith("!"):
        return f"{ENOUGH[name]} {mistake}".split()
    shape_free = ENOUGH[name].partition(" --context_length")[0]
    return mistake[1:].replace("{}", f"{shape_free} --max_steps 2 --compile false").split()


def module(name: str) -> Any:
    return importlib.import_module(
        f"{'recipes' if (ROOT / 'recipes' / f'{name}.py').is_file() else 'data_builders'}.{name}"
    )


@pytest.mark.parametrize(("name", "mistake", "said"), MISTAKES, ids=lambda value: str(value)[:70])
def test_one_line_and_exit_code_2(
    here: Path, name: str, mistake: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, before = module(name).main, found_files(here)
    error = io.StringIO()
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *command_line(name, mistake)])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", error)
    started = time.process_time()
    with pytest.raises(SystemExit) as stopped:
        run_recipe(main)
    seconds = time.process_time() - started
    monkeypatch.undo()
    lines = [line for line in error.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    lines = [line for line in lines if not PROGRESS.search(line)]
    assert stopped.value.code == 2
    assert len(lines) == 1, error.getvalue()
    assert lines[0].startswith(f"{name}.py: ")
    assert said in lines[0]
    assert len(lines[0]) < 700
    assert found_files(here) == before
    assert seconds < SECONDS


COMMANDS = [
    ("recipes/chat.py", "--model folder/model", "did you mean folder/modell?"),
    ("recipes/pretrain.py", "--data folder/text --tokenizer folder --output_dir out", "folder is no tokenizer"),
    ("data_builders/text_files.py", "--source nowhere --output_dir out", "nowhere does not exist"),
]


@pytest.mark.parametrize(("script", "options", "said"), COMMANDS, ids=lambda value: str(value)[:40])
def test_as_a_command(tmp_path: Path, script: str, options: str, said: str) -> None:
    """In a process of its own. bitsandbytes says on import, in a line before, that it lacks a kernel from the Hub."""
    (tmp_path / "folder" / "modell").mkdir(parents=True)
    result = subprocess.run(
        [sys.executable, str(ROOT / script), *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 2, result.stderr
    [line] = [line for line in result.stderr.splitlines() if "kernels-community" not in line]
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["data/mien", "data/mien/final", "./nowhere", "a/b/c", "/nowhere/at/all", "../x y"])
def test_a_wrong_path_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "data" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"did you mean data/mine\?" if "mien" in name else "check the path|did you mean"
    ):
        check_source(name)


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2", "nobody/nothing", "data", "data/mine"])
def test_names_and_what_is_there_may_be_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "data" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    check_source(name)

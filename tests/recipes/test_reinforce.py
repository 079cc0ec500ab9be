"""Learning from a checker as a user runs it: both methods, full and LoRA, interrupted, with a bad and a hacked reward.

Each question is answered rightly in some of the training chats of the assistant, and wrongly in the others.
"""

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from recipes import finetune_instruct, reinforce
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.adapters import AdapterArguments, add_adapter, load_base
from scratchgpt.evaluation.rewards import RewardError
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from tests.runs import ROOT, metrics

pytestmark = pytest.mark.gpu

NAMES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

REWARDS = '''
from pathlib import Path

HERE = Path(__file__).parent

def longer(prompt, answer, row):
    """What nobody should take: it pays for length."""
    return len(answer) / 10

def counted():
    file = HERE / "calls"
    calls = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(calls))
    return calls

def breaks(prompt, answer, row):
    """Right as exact_match is, but for the call number 100, unless there is a file `mended`."""
    if counted() == 100 and not (HERE / "mended").exists():
        return 1 / 0
    return float(answer.split() == row["answer"].split())
'''


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reinforce")
    asked = [(f"What comes after {a}?", f"It is {b}.", f"No idea about {a}.") for a, b in pairwise(NAMES)]
    tokenizer = to_transformers(BPETokenizer.train([part for row in asked for part in row] * 3, vocab_size=300))
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, hidden_dropout=0.1,
        max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    save_model(model, tokenizer, folder / "base")
    chats = [{"instruction": q, "output": answer} for q, right, wrong in asked for answer in (right, wrong, wrong)]
    (folder / "chats.json").write_text(json.dumps(chats * 3))
    finetune_instruct.main(
        [
            f"--{name}={value}"
            for name, value in {
                "model_name_or_path": folder / "base", "data": folder / "chats.json", "tuning": "full",
                "eval_data": folder / "chats.json", "eval_split": "train", "output_dir": folder / "chat",
                "max_steps": 60, "learning_rate": 0.01, "compile": False, "mixed_precision": "no",
            }.items()
        ]
    )  # fmt: skip
    (folder / "questions.json").write_text(json.dumps([{"question": q, "answer": right} for q, right, _ in asked]))
    (folder / "my_rewards.py").write_text(REWARDS)
    return folder


def options(workplace: Path, output: str, **changed: object) -> list[str]:
    defaults = {
        "model_name_or_path": workplace / "chat" / "final",
        "data": workplace / "questions.json",
        "eval_data": workplace / "questions.json",
        "eval_split": "train",
        "output_dir": workplace / output,
        "max_steps": 20,
        "eval_steps": 10,
        "save_steps": 10,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "group_size": 6,
        "learning_rate": 0.003,
        "compile": False,
        "mixed_precision": "no",
        "response_tokens": 16,
    }
    return [f"--{name}={value}" for name, value in {**defaults, **changed}.items()]


def results(folder: Path, name: str = "results.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize(("method", "tuning"), [("grpo", "full"), ("rejection", "lora")])
def test_it_learns_from_a_checker(workplace: Path, method: str, tuning: str, capsys) -> None:
    output = f"{method}-{tuning}"
    reinforce.main(options(workplace, output, method=method, tuning=tuning))
    untuned, found = results(workplace / output, "untuned.json"), results(workplace / output)["final"]
    assert untuned["reward"] < 0.5
    assert found["reward"] > untuned["reward"] + 0.4
    assert found["reward"] == found["right"] == found["exact"] == -found["loss"]
    assert found["num_questions"] == 8
    printed = capsys.readouterr().out
    assert "questions right (95 %: " in printed
    assert "of 40 groups" in printed
    assert "no better than guessing" not in printed
    assert "ALARM" not in printed
    lines = metrics(workplace / output)
    assert all(0 <= line["groups_all_right"] + line["groups_all_wrong"] <= 1 for line in lines)
    assert lines[-1]["sampled_reward"] > lines[0]["sampled_reward"]
    assert (workplace / output / "reward.png").is_file()
    card = (workplace / output / "final" / "README.md").read_text()
    assert "on rewards" in card
    assert "right before tuning (95 %)" in card
    assert "scratchgpt reinforce arguments.yaml" in card


KINDS = {
    "grpo": {"method": "grpo", "steps_per_sampling": 3, "kl_weight": 0.01, "tuning": "lora"},
    "rejection": {"method": "rejection", "steps_per_sampling": 3, "tuning": "full", "keep": 2},
}
EVERY_STEP = {"save_steps": 1, "save_total_limit": 50, "max_steps": 30, "load_best_at_end": False}


@pytest.fixture(scope="module")
def whole(workplace: Path) -> dict[str, Path]:
    for name, kind in KINDS.items():
        reinforce.main(options(workplace, f"whole-{name}", **EVERY_STEP | kind))
    return {name: workplace / f"whole-{name}" for name in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 7, 20])
def test_an_interrupted_run_goes_on_exactly(
    workplace: Path, whole: dict[str, Path], kind: str, step: int, capsys
) -> None:
    """With dropout, across the borders of epochs, and between two samplings: each of the steps is in the middle."""
    output = workplace / f"{kind}-from-{step}"
    output.mkdir()
    shutil.copytree(whole[kind] / f"checkpoint-{step}", output / f"checkpoint-{step}")
    shutil.copy(whole[kind] / "metrics.jsonl", output)
    changed = {**EVERY_STEP, **KINDS[kind], "resume_from_checkpoint": "true"}
    reinforce.main(options(workplace, output.name, **changed))
    assert f"Resuming from checkpoint-{step} (exact)" in capsys.readouterr().out
    assert_same_end(whole[kind], output)


def assert_same_end(first: Path, second: Path, step: int = 30) -> None:
    names = [*(file.name for file in (first / f"checkpoint-{step}").glob("*model.safetensors"))]
    for name in (*names, "training_state/state.safetensors"):
        a, b = (load_file(folder / f"checkpoint-{step}" / name) for folder in (first, second))
        assert a.keys() == b.keys()
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    times = ("tokens_per_second", "mfu", "peak_memory_mb")
    logs = [[{k: v for k, v in line.items() if k not in times} for line in metrics(f)] for f in (first, second)]
    assert logs[0] == logs[1]
    assert len(logs[0]) == step


def test_what_differs_is_said(workplace: Path, whole: dict[str, Path], capsys) -> None:
    output = workplace / "other"
    shutil.copytree(whole["grpo"] / "checkpoint-29", output / "checkpoint-29")
    changed = {**EVERY_STEP, **KINDS["grpo"], "resume_from_checkpoint": "true", "clip_high": 0.5}
    reinforce.main(options(workplace, "other", **changed))
    assert "not exact: clip_high was 0.28, is now 0.5" in capsys.readouterr().out


def test_a_reward_that_breaks_loses_nothing(workplace: Path, monkeypatch, capsys) -> None:
    """It breaks in the fourth step; what was learned is kept, and once it is mended the run goes on exactly."""
    monkeypatch.chdir(workplace)
    changed = {"reward": "my_rewards:breaks", "tuning": "full", "max_steps": 6, "eval_steps": 6, "save_steps": 6}
    message = (
        r"the reward my_rewards:breaks raised ZeroDivisionError: division by zero \(my_rewards.py, line \d+\) for the "
        r"answer '.*' to 'What comes after .*'. Mend it, and go on with --resume_from_checkpoint true"
    )
    with pytest.raises(RewardError, match=message):
        reinforce.main(options(workplace, "broken", **changed))
    kept = [folder.name for folder in (workplace / "broken").glob("checkpoint-*")]
    assert kept == ["checkpoint-3"]  # 8 + 8 calls before tuning, and 24 in each step
    (workplace / "mended").touch()
    reinforce.main(options(workplace, "broken", **changed, resume_from_checkpoint="true"))
    assert "Resuming from checkpoint-3 (exact)" in capsys.readouterr().out
    reinforce.main(options(workplace, "never-broken", **changed))
    assert_same_end(workplace / "never-broken", workplace / "broken", step=6)


def test_a_reward_that_pays_for_length_is_noticed(workplace: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(workplace)
    changed = {"reward": "my_rewards:longer", "tuning": "full", "max_steps": 30, "eval_steps": 30, "right_at": 3}
    reinforce.main(options(workplace, "hacked", **changed, load_best_at_end=False, learning_rate=0.01))
    found, printed = results(workplace / "hacked")["final"], capsys.readouterr().out
    assert found["reward"] > results(workplace / "hacked", "untuned.json")["reward"]
    assert "ALARM: the reward has risen and the answers have grown from" in printed
    assert metrics(workplace / "hacked")[0]["length_correlation"] > 0.5  # seen before anything is learned
    assert "**Perhaps a way round the reward**" in (workplace / "hacked" / "final" / "README.md").read_text()


def test_bad_input_is_refused_before_anything_is_written(workplace: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(workplace)

    def questions(name: str, **row: object) -> Path:
        (tmp_path / name).write_text(json.dumps([{"question": "What?", "answer": "Yes.", **row}] * 9))
        return tmp_path / name

    adapted = add_adapter(load_base(workplace / "base"), AdapterArguments())
    tokenizer = AutoTokenizer.from_pretrained(workplace / "base")
    save_model(adapted, tokenizer, tmp_path / "adapter")
    tokenizer.chat_template = None
    save_model(load_base(workplace / "base"), tokenizer, tmp_path / "no_template")
    for changed, complaint in (
        ({"data": questions("none.json", answer=None)}, "9 questions have no answer that exact_match could compare"),
        ({"data": questions("empty.json", question=" ")}, "no question to answer .9 an empty message"),
        ({"data": questions("long.json", question="What? " * 99)}, "leaves no room for 16"),
        ({"data": questions("words.json"), "reward": "number_match"}, "finds no number in the answer 'Yes.'"),
        ({"context_length": 65}, "beyond the model's context of 64"),
        ({"model_name_or_path": tmp_path / "adapter"}, "is an adapter: merge it into its base first"),
        ({"model_name_or_path": tmp_path / "no_template"}, "has no chat template"),
        ({"reward": "right"}, "reward=right is unknown: give exact_match"),
        ({"reward": "my_rewards:nothing"}, "is not there: my_rewards has no function nothing"),
        ({"reward": "no_such_module:score"}, "no_such_module:score cannot be imported: ModuleNotFoundError"),
        ({"reward": "exact_match=much"}, "the weight after = must be a number"),
        ({"reward": "format"}, "needs --answer_format"),
        ({"group_size": 1}, "group_size=1: grpo compares"),
        ({"method": "rejection", "kl_weight": 0.1}, "kl_weight is for --method grpo"),
    ):
        with pytest.raises(ValueError, match=complaint):
            reinforce.main(options(workplace, "refused", **changed))
        assert not (workplace / "refused").exists()
    arguments = options(workplace, "refused", data=questions("same.json"))
    with pytest.raises(ValueError, match="9 prompts cannot be split"):
        reinforce.main([each for each in arguments if not each.startswith("--eval_data")])


@pytest.mark.slow
def test_two_processes_learn_and_go_on_exactly(workplace: Path) -> None:
    """Each samples answers of its own; both evaluate the same questions; and a run that is resumed is the same."""
    changed = {"max_steps": 6, "eval_steps": 3, "save_steps": 3, "steps_per_sampling": 2, "tuning": "full"}

    def launch(output: str, *more: str) -> list[dict[str, Any]]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--no-python"]
        recipe = [sys.executable, str(ROOT / "recipes" / "reinforce.py")]
        done = subprocess.run([*launcher, *recipe, *options(workplace, output, **changed), *more], check=False)
        assert done.returncode == 0
        return metrics(workplace / output)

    whole = launch("two")
    evaluated = [line for line in whole if "eval_reward" in line]
    assert [line["eval_num_questions"] for line in evaluated] == [len(NAMES) - 1] * len(evaluated)
    assert whole[-1]["step"] == 6
    shutil.copytree(workplace / "two", workplace / "two_again")
    for left in ("checkpoint-6", "final"):
        shutil.rmtree(workplace / "two_again" / left)
    launch("two_again", "--resume_from_checkpoint=true")
    one, other = (load_file(workplace / run / "final" / "model.safetensors") for run in ("two", "two_again"))
    assert all(torch.equal(one[name], other[name]) for name in one)

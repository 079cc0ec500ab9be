"""From nothing to a model that a checker has taught: `python benchmarks/reinforcement.py [--seeds 0 1 2 3 4]`.

Two-digit addition with 127,360 parameters, on one core. For each seed: pretraining on other tasks as text,
tuning on 600 answered sums until 30 % of the validation questions are right (looked at every 20 steps; a jump from
10 to 50 % takes fifty), and from there, each for about the same time of the processor,

    grpo         answers of its own to all training questions, graded by a checker
    rejection    the same, by rejection sampling
    more         more tuning on the same 600 answers
    all          tuning on the answers to all training questions

Each is measured by its greedy answers to the same held-out questions, in the last step; nothing is chosen by them. No
sum is in training and held out, the other way round neither (`data_builders/arithmetic.py`). A line a run goes to
`results/reinforcement.jsonl`; a run that is there is not done again. `--draw` makes the table and the picture of it.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from records import RESULTS, append, machine
from scratchgpt.evaluation.statistics import mean_interval, wilson_interval

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

FILE = RESULTS / "reinforcement.jsonl"
PICTURE = ROOT / "docs" / "images" / "reinforcement.png"
LABELS, HELD_OUT = 600, 1000
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "context_length": 64}
COMMON = {"compile": False, "mixed_precision": "no", "logging_steps": 10, "save_steps": 10_000}
PRETRAIN = {"max_steps": 1000, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 20}
TUNE = {"tuning": "full", "per_device_train_batch_size": 12, "learning_rate": 3e-3}
REINFORCE = {
    "tuning": "full", "response_tokens": 6, "per_device_train_batch_size": 32, "group_size": 8, "warmup_steps": 5,
    "sampling_batch_size": 1024, "eval_questions": HELD_OUT, "load_best_at_end": False, "eval_on_start": True,
}  # fmt: skip
ENOUGH, LOOK = 0.3, 20
"""Share of the validation questions that the start answers rightly, and every how many steps that is looked at."""
STEPS = {"start": 800, "grpo": 360, "rejection": 900, "more": 3450, "all": 3450}
METHODS = {
    "grpo": {"method": "grpo", "learning_rate": 5e-4},
    "rejection": {"method": "rejection", "learning_rate": 1e-3, "per_device_train_batch_size": 64, "group_size": 4},
}
NAMES = {
    "start": "tuned on 600 answers", "grpo": "then GRPO", "rejection": "then rejection sampling",
    "more": "then more tuning on the same 600", "all": "then tuning on all answers",
}  # fmt: skip


def options(**values: object) -> list[str]:
    return [f"--{name}={value}" for name, value in (COMMON | values).items()]


def timed(main: Any, log: Path, arguments: Sequence[str]) -> float:
    """Seconds of the processor that a recipe took, called here; what it says goes to `log`."""
    started = time.process_time()
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        main(arguments)
    return time.process_time() - started


def prepare(work: Path) -> None:
    """Data and tokenizer, the same for every seed."""
    from data_builders import arithmetic
    from recipes import train_tokenizer

    if not (work / "sums").exists():
        arguments = {"tasks": "addition", "min_level": 2, "max_level": 2, "longer": 0, "questions": 4000}
        arithmetic.main(
            [f"--{n}={v}" for n, v in {**arguments, "test_fraction": 0.3, "output_dir": work / "sums"}.items()]
        )
    if not (work / "other").exists():
        arguments = {"max_level": 2, "longer": 0, "questions": 2500, "output_dir": work / "other"}
        others = [name for name in arithmetic.TASKS if name != "addition"]
        arithmetic.main([*(f"--{n}={v}" for n, v in arguments.items()), "--tasks", *others])
    if not (work / "tokenizer").exists():
        data = f"--data={work / 'other' / 'text'}"
        train_tokenizer.main([data, "--vocab_size=300", f"--output_dir={work / 'tokenizer'}"])


def right(model_dir: Path, work: Path, split: str = "test") -> int:
    """Right ones among the greedy answers to the held-out questions; at most `HELD_OUT`."""
    from transformers import AutoTokenizer

    from scratchgpt.adapters import load_base
    from scratchgpt.data.prompts import read_prompts
    from scratchgpt.data.sampled_rows import SampledRows
    from scratchgpt.evaluation.checked_answers import answer_prompts
    from scratchgpt.evaluation.rewards import exact_match

    tokenizer, model = AutoTokenizer.from_pretrained(model_dir), load_base(model_dir)
    rows = SampledRows(read_prompts(work / "sums" / "chat", split)[0], tokenizer, 64, 6)
    answers, _ = answer_prompts(model, tokenizer, rows.prompt_ids[:HELD_OUT], 6, 1024)
    both = zip(rows.prompts, answers, strict=False)
    return int(sum(exact_match(prompt.question, answer.text, prompt.row) for prompt, answer in both))


def run(seed: int, work: Path, arms: Sequence[str]) -> None:
    """One seed: a line for each of the arms, and one for the model that they start from."""
    from recipes import finetune_instruct, pretrain, reinforce
    from scratchgpt.data.prompts import read_prompts

    done = {(line["seed"], line["arm"]) for line in lines()}
    here, log = work / f"seed-{seed}", work / f"seed-{seed}.log"
    here.mkdir(exist_ok=True)
    sums, start = work / "sums" / "chat", here / "chosen"
    if not (here / "base" / "final").exists():
        timed(pretrain.main, log, options(
            data=work / "other" / "text", tokenizer=work / "tokenizer", output_dir=here / "base", seed=seed,
            cache_dir=work / "cache", eval_steps=10_000, **SHAPE, **PRETRAIN,
        ))  # fmt: skip

    def tune(arm: str, base: Path, labels: int | None) -> float:
        some = {} if labels is None else {"max_conversations": labels}
        return timed(finetune_instruct.main, log, options(
            model_name_or_path=base, data=sums, output_dir=here / arm, seed=seed, max_steps=STEPS[arm],
            eval_steps=10_000, eval_on_start=False, load_best_at_end=False, **TUNE, **some,
            **({"save_steps": LOOK, "save_total_limit": STEPS[arm]} if arm == "start" else {}),
        ))  # fmt: skip

    if not start.exists():
        # With the rate of a run of `STEPS` steps, of which it is the beginning.
        shutil.rmtree(here / "start", ignore_errors=True)
        seconds = tune("start", here / "base" / "final", LABELS)
        asked, steps = len(read_prompts(sums, "validation")[0]), 0
        found = 0
        while found < ENOUGH * asked:
            steps += LOOK
            found = right(here / "start" / f"checkpoint-{steps}", work, "validation")
        shutil.copytree(here / "start" / f"checkpoint-{steps}", start)
        seconds *= steps / STEPS["start"]
        record(seed, "start", right(start, work), steps, seconds, [])

    for arm in arms:
        if (seed, arm) in done:
            continue
        curve = []
        shutil.rmtree(here / arm, ignore_errors=True)  # of a run that was interrupted
        if arm in METHODS:
            arguments = {**REINFORCE, **METHODS[arm]}
            seconds = timed(reinforce.main, log, options(
                model_name_or_path=start, data=sums, eval_split="test", output_dir=here / arm, seed=seed,
                max_steps=STEPS[arm], eval_steps=STEPS[arm] // 4, **arguments,
            ))  # fmt: skip
            metrics = [json.loads(line) for line in (here / arm / "metrics.jsonl").read_text().splitlines()]
            curve = [[line["step"] / STEPS[arm], line["eval_right"]] for line in metrics if "eval_right" in line]
        else:
            seconds = tune(arm, start, None if arm == "all" else LABELS)
        record(seed, arm, right(here / arm / "final", work), STEPS[arm], seconds, curve)


def record(seed: int, arm: str, found: int, steps: int, seconds: float, curve: list[list[float]]) -> None:
    """A line of the results."""
    interval = [round(100 * bound, 1) for bound in wilson_interval(found, HELD_OUT)]
    line = {
        "benchmark": "Learning from a checker", "case": f"seed {seed}", "candidate": NAMES[arm], "decimals": 1,
        "metric": f"held-out sums of two digits right, % of {HELD_OUT:,}, with 95 % intervals",
        "value": found / HELD_OUT * 100, "interval": interval, "seed": seed, "arm": arm, "right": found,
        "of": HELD_OUT, "steps": steps, "cpu_seconds": round(seconds, 1),
        "curve": curve, **machine("torch", "transformers"),
    }  # fmt: skip
    append([line], FILE)


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []


def draw() -> None:
    """The table, in Markdown, and the picture."""
    from matplotlib.figure import Figure

    found = lines()
    seeds = sorted({line["seed"] for line in found})
    heads = " | ".join(f"seed {seed}" for seed in seeds)
    print(f"| | {heads} | mean (95 %) | CPU s |\n|---|{'---:|' * (len(seeds) + 2)}")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    starts = {line["seed"]: line["right"] / line["of"] for line in found if line["arm"] == "start"}
    for number, (arm, name) in enumerate(NAMES.items()):
        of_arm = {line["seed"]: line for line in found if line["arm"] == arm}
        if not of_arm:
            continue
        shares = {seed: line["right"] / line["of"] for seed, line in of_arm.items()}
        cells = []
        for seed in seeds:
            low, high = wilson_interval(of_arm[seed]["right"], of_arm[seed]["of"]) if seed in of_arm else (0, 0)
            cells.append(f"{shares[seed]:.1%} ({low:.0%} to {high:.0%})" if seed in of_arm else "")
        mean = f"{sum(shares.values()) / len(shares):.1%}"
        if len(shares) > 1:
            _, low, high = mean_interval(list(shares.values()))
            mean += f" ({max(low, 0):.0%} to {min(high, 1):.0%})"
        seconds = sum(line["cpu_seconds"] for line in of_arm.values()) / len(of_arm)
        print(f"| {name} | {' | '.join(cells)} | {mean} | {seconds:.0f} |")
        for place, (seed, line) in enumerate(of_arm.items()):
            if arm == "start":
                continue
            curve = [[0, starts[seed]], *(line["curve"] or [[1, shares[seed]]])]
            times, values = zip(*curve, strict=True)
            axes.plot(
                [each * line["cpu_seconds"] for each in times], [100 * each for each in values], f"C{number}",
                linestyle="-" if arm in METHODS else ":", marker=".", label=name if place == 0 else None,
            )  # fmt: skip
    axes.set(xlabel="CPU seconds", ylabel="held-out sums right (%)", ylim=(0, 101))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=list(NAMES)[1:], default=list(NAMES)[1:])
    parser.add_argument("--work", type=Path, default=Path("runs/reinforcement"), help="where models and data go")
    parser.add_argument("--draw", action="store_true", help="only the table and the picture of what is there")
    arguments = parser.parse_args()
    if not arguments.draw:
        import torch

        torch.set_num_threads(1)
        arguments.work.mkdir(parents=True, exist_ok=True)
        prepare(arguments.work)
        for seed in arguments.seeds:
            run(seed, arguments.work, arguments.arms)
    draw()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

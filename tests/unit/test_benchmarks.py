"""Benchmarks: the forms of their files, and the same scores as lm-eval's own command line on its own tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import pyarrow
import pytest
import torch
from pyarrow import parquet

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.evaluation.benchmark_data import BENCHMARKS, is_local, read_items, spread
from scratchgpt.evaluation.benchmarks import BenchmarkSuite
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods
from scratchgpt.evaluation.results import DoesNotFit
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers

WORDS = ["cat", "dog", "bird", "fox", "cow", "hen", "owl", "bee", "ant", "rat", "pig", "elk"]
LETTERS = ["A", "B", "C", "D"]


def sentence(i: int) -> str:
    return f"the {WORDS[i % 12]} saw a {WORDS[i * 5 % 7]}{' and slept' * (i % 3)}"


def hub_rows(name: str) -> list[dict[str, Any]]:
    """As the data set of the Hub has them."""
    rows: list[dict[str, Any]] = []
    for i in range(12):
        four = [sentence(i * 7 + j * 3 + 1) for j in range(4)]
        lettered = {"text": four, "label": LETTERS if i % 4 else ["1", "2", "3", "4"]}
        key = lettered["label"][i * 5 % 4]
        match name:
            case "hellaswag":
                row = {"activity_label": "Baking [x]", "ctx_a": f"A {WORDS[i]} bakes. [step] So", "ctx_b": "it  ate",
                       "endings": [f"{each} [title] done" for each in four], "label": str(i % 4)}  # fmt: skip
            case "lambada":
                row = {"text": f"{sentence(i)}, and then came the {WORDS[i * 5 % 12]}"}
            case "arc_easy" | "arc_challenge":
                row = {"question": f"Who is it, if {sentence(i)}?", "choices": lettered, "answerKey": key}
            case "piqa":
                row = {"goal": f"Feed a {WORDS[i]}", "sol1": four[0], "sol2": four[1], "label": i % 2}
            case "winogrande":
                row = {"sentence": f"The {WORDS[i]} saw the {WORDS[i - 1]} until the _ was tired{' out' * (i % 2)}.",
                       "option1": WORDS[i], "option2": WORDS[i - 1], "answer": str(1 + i * 5 % 2)}  # fmt: skip
            case "boolq":
                row = {"passage": f"Once {sentence(i)}.", "question": f"did the {WORDS[i]} sleep", "label": i % 2}
            case "openbookqa":
                row = {"question_stem": f"{sentence(i)} because", "choices": lettered, "answerKey": key}
            case _:
                row = {"premise": f"The {WORDS[i]} fell.", "question": ["cause", "effect"][i % 2], "label": i * 5 % 2,
                       "choice1": "It slept.", "choice2": f"It saw a {WORDS[i - 2]}."}  # fmt: skip
        rows.append(row)
    return rows


def write_hub_copies(folder: Path) -> Path:
    """A parquet file of the right split for each benchmark, in folders as the Hub's repositories have them."""
    for name, benchmark in BENCHMARKS.items():
        directory = folder / benchmark.hub.rpartition("/")[2] / (benchmark.config or "data")
        directory.mkdir(parents=True)
        rows = hub_rows(name)
        for split in ("train", benchmark.split):
            table = pyarrow.Table.from_pylist(rows if split == benchmark.split else rows[:1])
            parquet.write_table(table, directory / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and copies of the benchmarks."""
    folder = tmp_path_factory.mktemp("benchmarks")
    tokenizer = to_transformers(BPETokenizer.train([sentence(i) for i in range(40)], vocab_size=300))
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=96, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = ScratchGPTForCausalLM(config)
    for parameter in model.parameters():
        parameter.data *= 3
    save_model(model, tokenizer, folder / "model")
    write_hub_copies(folder / "eval")
    return folder


def load(workplace: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    model = ScratchGPTForCausalLM.from_pretrained(workplace / "model").eval()
    return model, AutoTokenizer.from_pretrained(workplace / "model")


THEIRS = {
    "hellaswag": "hellaswag/hellaswag", "lambada": "lambada/lambada_openai", "arc_easy": "arc/arc_easy",
    "arc_challenge": "arc/arc_challenge", "piqa": "piqa/piqa", "winogrande": "winogrande/default",
    "boolq": "super_glue/boolq/default", "openbookqa": "openbookqa/openbookqa", "copa": "super_glue/copa/default",
}  # fmt: skip


def command_line_scores(workplace: Path) -> dict[str, dict[str, float]]:
    """lm-eval's own command line with its own tasks, which are told to read the copies."""
    tasks = workplace / "tasks"
    tasks.mkdir()
    root = Path(lm_eval.__file__).parent / "tasks"
    for name, benchmark in BENCHMARKS.items():
        (place,) = (workplace / "eval").rglob(f"{benchmark.hub.rpartition('/')[2]}/{benchmark.config or 'data'}")
        file = place / f"{benchmark.split}-00000-of-00001.parquet"
        (tasks / f"{name}.yaml").write_text(
            f"include: {root / THEIRS[name]}.yaml\ntask: their_{name}\ndataset_path: parquet\ndataset_name: null\n"
            f"dataset_kwargs:\n  data_files:\n    {benchmark.split}: {file}\n"
            f"training_split: null\nfewshot_split: null\n"
            f"{'' if benchmark.split == 'test' else 'test_split: null'}\n"
            f"{'validation_split: null' if benchmark.split == 'test' else ''}\n"
        )
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "3"),
        *("--model_args", f"pretrained={workplace / 'model'},dtype=float32,trust_remote_code=True"),
        *("--tasks", ",".join(f"their_{name}" for name in BENCHMARKS), "--include_path", str(tasks)),
        *("--output_path", str(workplace / "out")),
    ]
    environment = {
        **os.environ,
        "HF_DATASETS_CACHE": str(workplace / "cache"),
        "HF_MODULES_CACHE": str(workplace / "modules"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (workplace / "out").rglob("results_*.json")
    found = json.loads(file.read_text())["results"]
    return {name: found[f"their_{name}"] for name in BENCHMARKS}


def test_scores_are_those_of_lm_evals_command_line(workplace: Path) -> None:
    """On its own tasks, prompts included, with its own loop; every benchmark, every metric, with standard errors."""
    model, tokenizer = load(workplace)
    theirs = command_line_scores(workplace)
    scores = []
    for name in BENCHMARKS:
        found = BenchmarkSuite(name, workplace / "eval").run(LogLikelihoods(model), tokenizer)
        for ours, metric in (("accuracy", "acc"), ("accuracy_norm", "acc_norm"), ("perplexity", "perplexity")):
            if ours not in found.metrics:
                continue
            value = found.metrics[ours]
            assert value.value == pytest.approx(theirs[name][f"{metric},none"], rel=1e-4), name
            assert value.count == 12
            if ours in ("accuracy", "accuracy_norm"):
                assert value.details["standard_error"] == pytest.approx(theirs[name][f"{metric}_stderr,none"]), name
                scores.append(value.value)
    assert len(set(scores)) > 4  # not all of them 0 or chance


@pytest.mark.parametrize("name", BENCHMARKS)
def test_shared_files_and_copies_of_the_hub_ask_the_same(name: str, tmp_path: Path) -> None:
    """The plain form, made of the same questions by hand, gives the same items."""
    expected = read_items(name, write_hub_copies(tmp_path / "hub"))
    rows: list[dict[str, Any]] = []
    for item in expected:
        match name:
            case "hellaswag":
                rows.append({"ctx": item.query, "endings": item.choices, "label": item.gold, "row": 0})
            case "lambada":
                rows.append({"context": item.query, "continuation": item.choices[0]})
            case "winogrande":
                rows.append({"context_options": item.choices, "continuation": item.continuation, "gold": item.gold})
            case "copa":
                query = item.query.replace(" because", ", because").replace(" therefore", ", therefore")
                rows.append({"query": query, "choices": [each.strip() for each in item.choices], "gold": item.gold})
            case _:
                query = item.query.removesuffix("\nAnswer:")
                query = f"Passage: {query}" if name == "boolq" else query
                rows.append({"query": query, "choices": item.choices, "gold": item.gold})
    (tmp_path / "plain").mkdir()
    file = tmp_path / "plain" / f"{'openbook_qa' if name == 'openbookqa' else name}_dev.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_items(name, tmp_path / "plain") == expected


def test_the_real_files(shared_data: Path) -> None:
    counts = {
        "hellaswag": 8034, "lambada": 5153, "arc_easy": 2376, "arc_challenge": 1172, "piqa": 1838,
        "winogrande": 1267, "boolq": 3270, "openbookqa": 500, "copa": 100,
    }  # fmt: skip
    for name, count in counts.items():
        assert is_local(name, shared_data / "eval")
        items = read_items(name, shared_data / "eval")
        assert len(items) == count
        assert len(BenchmarkSuite(name, shared_data / "eval", 30).items) == 30
    lines = {"lambada": "signs", "winogrande": "Sarah was a much better surgeon than Maria so Maria always"}
    for name, words in lines.items():
        assert words in next(iter(BenchmarkSuite(name, shared_data / "eval").texts(None)))


def test_details(workplace: Path, shared_data: Path) -> None:
    """Chance by the number of choices, what always the same answer would have, and what was cut."""
    model, tokenizer = load(workplace)
    found = BenchmarkSuite("boolq", shared_data / "eval", 50).run(LogLikelihoods(model), tokenizer).metrics["accuracy"]
    golds = [item.gold for item in BenchmarkSuite("boolq", shared_data / "eval", 50).items]
    assert found.details["chance"] == 0.5
    assert found.details["majority"] == max(golds.count(0), golds.count(1)) / 50
    assert found.details["truncated"] > 0
    found = BenchmarkSuite("arc_easy", workplace / "eval").run(LogLikelihoods(model), tokenizer).metrics
    assert found["accuracy"].details["chance"] == 0.25
    assert "majority" not in found["accuracy"].details
    assert "lm-eval" in found["accuracy_norm"].signature


def test_an_answer_that_is_longer_than_the_context(tmp_path: Path, workplace: Path) -> None:
    """Told before lm-eval stumbles over it; a long text of few tokens is fine."""
    _, tokenizer = load(workplace)
    config = ScratchGPTConfig(max_position_embeddings=16)
    rows = [{"query": "Feed a cat", "choices": ["the cat", "saw a dog and slept and slept"], "gold": 0}]
    (tmp_path / "piqa.jsonl").write_text(json.dumps(rows[0]))
    BenchmarkSuite("piqa", tmp_path).check(config, tokenizer)
    rows[0]["choices"][1] = "quizzical xylophones"
    (tmp_path / "piqa.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(DoesNotFit, match="an answer of question 1 is longer than the model's context of 16 tokens"):
        BenchmarkSuite("piqa", tmp_path).check(config, tokenizer)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "Who?", "choices": ["a", "b"]}, "needs the columns"),
        ({"query": "Who?", "choices": ["a", "b"], "gold": 2}, "row 1: the right answer is not given"),
        ({"query": "Who?", "choices": ["a", "b"], "gold": "x"}, "row 1 cannot be read as a question of piqa"),
        ({"query": None, "choices": ["a", "b"], "gold": 0}, "row 1: 'query' is null"),
        ({"query": 5, "choices": ["a", "b"], "gold": 0}, "row 1 cannot be read as a question of piqa"),
        ({"query": "Who?", "choices": "['a', 'b']", "gold": 0}, "row 1 cannot be read.*is no list"),
        ({"query": "Who?", "choices": ["a", None], "gold": 0}, "row 1: the question and its answers must be text"),
        ({"query": "Who?", "choices": ["a", " "], "gold": 0}, "row 1: an answer is empty"),
        ({"query": "Who?", "choices": ["a", "b"], "gold": 0.7}, "row 1 cannot be read.*no whole number"),
        (None, "holds no questions"),
    ],
)
def test_broken_rows(row: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "piqa.jsonl").write_text("" if row is None else json.dumps(row))
    with pytest.raises(ValueError, match=message):
        read_items("piqa", tmp_path)


def test_rows_are_of_one_kind(tmp_path: Path) -> None:
    """Of a single answer who chooses is always right."""
    rows = [{"query": "Who?", "choices": choices, "gold": 0} for choices in (["a", "b"], ["a"])]
    (tmp_path / "openbookqa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="row 2 is asked in another way than row 1"):
        read_items("openbookqa", tmp_path)


def test_which_file(tmp_path: Path) -> None:
    """Names of their own, the split that is scored, and never one of two by chance."""
    row = json.dumps({"query": "Who?", "choices": ["a", "b"], "gold": 0})
    with pytest.raises(ValueError, match="neither here nor to be had from the Hub"):
        read_items("piqa", tmp_path)
    (tmp_path / "piqa_train.jsonl").write_text("")
    (tmp_path / "piqa_validation.jsonl").write_text(row)
    (tmp_path / "piqanti.jsonl").write_text("not one of these")
    assert len(read_items("piqa", tmp_path)) == 1
    (tmp_path / "piqa_validation_2.jsonl").write_text(row)
    with pytest.raises(ValueError, match=r"holds piqa_validation\.jsonl and piqa_validation_2\.jsonl"):
        read_items("piqa", tmp_path)
    saved = datasets.DatasetDict({"test": datasets.Dataset.from_list(hub_rows("openbookqa"))})
    saved.save_to_disk(tmp_path / "openbookqa")
    assert len(read_items("openbookqa", tmp_path)) == 12


def test_spread() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(3), 10) == spread(range(3), None) == [0, 1, 2]

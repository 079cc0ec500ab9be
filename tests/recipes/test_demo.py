"""The stages of `make demo` with their own configurations, one after the other, on less text and for fewer steps."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from datasets import ClassLabel, Dataset, DatasetDict

from recipes import evaluate, finetune_classifier, finetune_instruct, pretrain, results_page, train_tokenizer
from tests.runs import ROOT

WORDS = ["list", "tuple", "file", "thread", "socket", "date", "path", "queue", "regex", "module", "frame", "code"]
CONFIGS = ROOT / "recipes" / "configs"


def write_data(folder: Path) -> None:
    """Data sets as data_builders/python_docs.py writes them, with a sentence in place of a docstring."""

    def split(begin: int, end: int) -> tuple[Dataset, Dataset, Dataset]:
        facts = [(i % 2, f"Return the {WORDS[i % 12]} number {i} of {WORDS[i % 5]}.") for i in range(begin, end)]
        passages = [
            {
                "messages": [
                    {"role": "user", "content": f"{text}\n\nWhat does it return?"},
                    {"role": "assistant", "content": text[7:]},
                ],
                "passage": text, "kind": "purpose", "wording": "new", "source": f"module {number % 9}",
            }
            for number, (_, text) in enumerate(facts)
        ]  # fmt: skip
        labelled = Dataset.from_dict({"text": [text for _, text in facts], "label": [label for label, _ in facts]})
        return (
            Dataset.from_dict({"text": [" ".join(text for _, text in facts[i : i + 9]) for i in range(0, 90, 9)]}),
            Dataset.from_list(passages),
            labelled.cast_column("label", ClassLabel(names=["even", "odd"])),
        )

    splits = {"train": split(0, 300), "validation": split(300, 400), "test": split(400, 500)}
    for number, name in enumerate(("text", "passages", "classification")):
        DatasetDict({part: datasets[number] for part, datasets in splits.items()}).save_to_disk(folder / name)


@pytest.mark.timeout(600)
def test_every_stage_follows_from_the_one_before(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the configurations name runs/demo/…
    demo = Path("runs/demo")
    write_data(demo / "data")
    train_tokenizer.main([str(CONFIGS / "train_tokenizer" / "demo.yaml"), "--vocab_size=320"])
    few = ["--compile=False", "--mixed_precision=no", "--logging_steps=1", "--eval_steps=4", "--save_steps=4"]
    pretrain.main(
        [str(CONFIGS / "pretrain" / "demo.yaml"), *few, "--max_steps=4", "--decay_steps=1", "--warmup_steps=1",
         "--hidden_size=32", "--num_hidden_layers=2", "--num_attention_heads=2", "--per_device_train_batch_size=2"]
    )  # fmt: skip
    evaluate.main(
        ["--model=runs/demo/base/final", "--text=runs/demo/data/text", "--train_text=runs/demo/data/text",
         "--output_dir=runs/demo/evaluation"]
    )  # fmt: skip
    finetune_classifier.main(
        [str(CONFIGS / "finetune_classifier" / "demo.yaml"), *few, "--num_train_epochs=1", "--warmup_steps=1"]
    )
    finetune_instruct.main(
        [str(CONFIGS / "finetune_instruct" / "demo.yaml"), *few, "--max_steps=4", "--decay_steps=1",
         "--warmup_steps=1", "--num_responses=4", "--response_tokens=8"]
    )  # fmt: skip
    evaluate.main(
        ["--model", "runs/demo/base/final", "--model", "runs/demo/chat/final", "--suite", "passages", "--count", "20",
         "--data=runs/demo/data/passages", "--split=test", "--max_new_tokens=8", "--output_dir=runs/demo/passages"]
    )  # fmt: skip
    capsys.readouterr()
    page = demo / "RESULTS.md"
    results_page.main(
        ["--run_dir=runs/demo/base", "--data=runs/demo/data/text", "--classifier_dir=runs/demo/classifier",
         "--chat_dir=runs/demo/chat", "--evaluation_dir=runs/demo/evaluation", "--passages_dir=runs/demo/passages",
         f"--output={page}"]
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    for line in (
        "| gzip -9 |",
        "| this model (full) |",
        "| majority |",
        "| tuned |",
        "bits per byte",
        "| 5-gram with",
        "by question: ROUGE-L: ",
        "| `runs/demo/base/final`, right passage |",
        "| `runs/demo/chat/final`, no passage |",
        "| new wording |",
    ):
        assert line in text, line
    for picture in (line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")):
        assert (page.parent / picture).stat().st_size > 1000, picture
    printed = capsys.readouterr().out
    assert "| this model (full) |" in printed
    assert f"scratchgpt chat --model {demo / 'chat'}/final --documents {demo}/data/reference" in printed
    assert f"scratchgpt showcase {demo} --documents {demo}/data/reference" in printed.splitlines()[-1]
    assert ('needs pip install "scratchgpt[showcase]"' in printed.splitlines()[-1]) == (find_spec("gradio") is None)


def test_the_makefile_runs_these_configurations():
    makefile = (ROOT / "Makefile").read_text()
    for file in sorted(CONFIGS.glob("*/demo.yaml")):
        assert f"recipes/{file.parent.name}.py" in makefile
        output = yaml.safe_load(file.read_text())["output_dir"]
        assert output.replace("runs/demo", "$(DEMO)") in makefile, file


def test_a_page_never_takes_the_place_of_another(tmp_path, monkeypatch):
    """The default was runs/demo/RESULTS.md, whatever the run."""
    monkeypatch.chdir(tmp_path)
    for name, facts in (("one", {"chat_template": "plain"}), ("two", {"chat_template": "plain"})):
        Path(name).mkdir()
        Path(name, "results.json").write_text('{"final": {"loss": 1.0, "num_tokens": 9}}')
        Path(name, "arguments.yaml").write_text(yaml.safe_dump(facts))
    results_page.main(["--run_dir=one"])
    before = Path("one/RESULTS.md").read_text()
    assert "Validation loss 1.000 nats on 9 tokens of answers" in before
    results_page.main(["--run_dir=one"])  # its own page it writes again
    with pytest.raises(ValueError, match=r"one/RESULTS\.md is not the page of two"):
        results_page.main(["--run_dir=two", "--output=one/RESULTS.md"])
    Path("notes.md").write_text("my notes")
    with pytest.raises(ValueError, match="give another --output"):
        results_page.main(["--run_dir=two", "--output=notes.md"])
    assert Path("notes.md").read_text() == "my notes"
    assert Path("one/RESULTS.md").read_text() == before


def test_an_unfinished_run_has_no_page(tmp_path):
    with pytest.raises(ValueError, match="no finished run"):
        results_page.main([f"--run_dir={tmp_path}", f"--output={tmp_path / 'page.md'}"])
    assert not (tmp_path / "page.md").exists()

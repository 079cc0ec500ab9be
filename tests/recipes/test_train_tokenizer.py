"""recipes/train_tokenizer.py on a tiny corpus."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from recipes import train_tokenizer
from recipes.train_tokenizer import main
from scratchgpt.tokenization_scratchgpt import ScratchGPTTokenizer
from scratchgpt.tokenizers import load

TEXT = "Once upon a time there was a cat. She didn't like other cats, not one of them!\n" * 20


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(TEXT)
    return tmp_path / "corpus.txt"


@pytest.mark.parametrize("kind", ["bpe", "regex", "char"])
def test_writes_tokenizer_and_report(corpus: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    main(
        [
            "--data",
            str(corpus),
            "--output_dir",
            str(out),
            "--kind",
            kind,
            "--vocab_size",
            "310",
            "--new_words",
            "catatonic",
        ]
    )
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    numbers = report["tokenizers"][kind]
    assert report["train"] == {"num_texts": 1, "num_bytes": len(TEXT)}
    assert numbers["round_trip"] == numbers["same_ids_in_rust"] == "1/1"
    assert numbers["unknown_rate"] == 0
    assert numbers["bytes_per_token"] == pytest.approx(numbers["num_bytes"] / numbers["num_tokens"], abs=1e-4)
    assert "".join(report["new_words"]["catatonic"]["splits"][kind]) == " catatonic"
    assert report["new_words"]["catatonic"]["seen"] is False
    assert capsys.readouterr().out.strip() in (out / "README.md").read_text(encoding="utf-8")
    tokenizer = ScratchGPTTokenizer.from_pretrained(out)
    assert len(tokenizer) == numbers["vocab_size"] <= 310
    assert tokenizer(TEXT)["input_ids"] == load(out).encode(TEXT)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["corpus.txt", "out"]


def test_compares_with_gpt2_and_saves_plain(corpus: Path, tmp_path: Path, shared_data: Path) -> None:
    gpt2 = str(shared_data / "tokenizer/gpt2")
    out = tmp_path / "out"
    main(
        ["--data", str(corpus), "--output_dir", str(out), "--vocab_size", "300", "--gpt2_dir", gpt2, "--plain", "True"]
    )
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert list(report["tokenizers"]) == ["bpe", "gpt2"]
    assert report["tokenizers"]["gpt2"]["round_trip"] == "1/1"
    assert "| gpt2 |" in (out / "README.md").read_text(encoding="utf-8")
    assert AutoTokenizer.from_pretrained(out)("a cat")["input_ids"] == load(out).encode("a cat")


def test_same_arguments_give_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        command = ["--data", str(corpus), "--output_dir", str(tmp_path / "out"), "--vocab_size", "300", "--overwrite"]
        main([*command, "True"])
        return {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    assert files() == files()


def test_a_tokenizer_is_reproduced_by_its_arguments(corpus: Path, tmp_path: Path) -> None:
    main(["--data", str(corpus), "--output_dir", str(tmp_path / "out"), "--vocab_size", "300", "--new_words", "007"])
    main([str(tmp_path / "out" / "arguments.yaml"), "--output_dir", str(tmp_path / "again")])
    for name in ("tokenizer.json", "report.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "out" / "report.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--eval_texts", "0"], "eval_texts=0: it must be at least 1"),
        (["--data", "{empty}"], "corpus is empty"),
        (["--vocab_size", "200"], "smaller than the alphabet"),
        (["--gpt2_dir", "{empty}"], "encoder.json"),
        (["--data", "{missing}"], "neither a file"),
        (["--output_dir", "{corpus}"], "is a file"),
        (["--output_dir", "{full}"], "not empty"),
        (["--output_dir", "{full}", "--overwrite", "True"], "holds no tokenizer.json"),
    ],
)
def test_bad_input_writes_nothing(corpus: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    names = {
        "empty": tmp_path / "empty.txt",
        "missing": tmp_path / "missing",
        "corpus": corpus,
        "full": tmp_path / "full",
    }
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        main(
            ["--data", str(corpus), "--output_dir", str(tmp_path / "out"), "--vocab_size", "300"]
            + [argument.format(**names) for argument in arguments]
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_and_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in sorted((Path(__file__).parents[2] / "recipes/configs/train_tokenizer").glob("*.yaml")):
        with pytest.raises(SystemExit):
            main([str(file), "--output_dir", str(tmp_path / "out"), "--dry_run", "True"])
        resolved = yaml.safe_load(capsys.readouterr().out)
        assert resolved["output_dir"] == str(tmp_path / "out")
        assert resolved["eval_split"] == "validation"
    assert list(tmp_path.iterdir()) == []


def test_evaluation_data_that_is_missing_is_found_before_the_training(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found after it."""
    monkeypatch.setattr(train_tokenizer, "train", lambda *_: pytest.fail("trained first"))
    with pytest.raises(ValueError, match=r"nowhere\.txt"):
        main([f"--data={corpus}", "--eval_data=nowhere.txt", f"--output_dir={tmp_path / 'out'}"])

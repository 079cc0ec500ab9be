"""The pretraining recipe as a user runs it: on one process, on several, and with bad input."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import scratchgpt  # noqa: F401 - registers the classes
from recipes import pretrain
from scratchgpt.training import pretraining, step
from tests.runs import command, losses, make_workplace, metrics, options, results, run, run_here

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("pretrain"))


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Path:
    """A run on one process."""
    return run_here(workplace, "one", sample_prompts="The quick")


def test_a_run_learns_and_leaves_a_model_that_the_auto_classes_load(finished: Path) -> None:
    found = losses(finished)
    assert len(found) == 12
    assert found[-1] < found[0] - 1
    assert results(finished)["final"]["num_tokens"] > 1000
    assert results(finished)["final"]["loss"] < found[0] - 1
    for folder in (finished / "final", finished / "checkpoint-12"):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert model(**tokenizer("The quick brown", return_tensors="pt")).logits.isfinite().all()
    for plot in ("loss.png", "throughput.png"):
        assert (finished / plot).read_bytes().startswith(b"\x89PNG")
    assert [text[:9] for text in metrics(finished)[-1]["samples"]] == ["The quick"]


def test_bits_per_byte_are_of_the_text(finished: Path, workplace: Path) -> None:
    """Counted by hand: the bits of all tokens but end-of-text, over the UTF-8 bytes they spell."""
    found = results(finished)["final"]
    text_bytes = sum(len(json.loads(line)["text"]) for line in (workplace / "text.jsonl").read_text().splitlines())
    first_token = len("The")  # the very first token is no target
    assert text_bytes - first_token - 8 <= found["num_bytes"] < text_bytes


@pytest.mark.parametrize(
    ("launcher", "processes"), [pytest.param("cpu", 1, marks=pytest.mark.slow), ("ddp", 2), ("fsdp2", 2)]
)
def test_launched_processes_do_what_one_does(finished: Path, workplace: Path, launcher: str, processes: int) -> None:
    """The README's commands: same tokens and loss curve for an equal global batch. How many processes there were, and
    whether the weights were sharded, is asserted: accelerate takes less than it was asked for silently."""
    changed = {"per_device_train_batch_size": 4 // processes, "sample_prompts": "The quick"}
    run(command(workplace, launcher, launcher, **changed))
    found = results(workplace / launcher)
    assert found["identity"]["world_size"] == processes
    assert found["identity"]["sharded"] == (launcher == "fsdp2")
    assert found["num_targets"] == results(finished)["num_targets"]
    assert losses(workplace / launcher) == pytest.approx(losses(finished), abs=1e-5)
    assert found["final"]["loss"] == pytest.approx(results(finished)["final"]["loss"], abs=1e-5)
    assert metrics(workplace / launcher)[-1]["samples"] == metrics(finished)[-1]["samples"]
    for name in ("final", "checkpoint-12"):
        one, other = (AutoModelForCausalLM.from_pretrained(f / name) for f in (finished, workplace / launcher))
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        files = [sorted(file.name for file in (f / name).iterdir()) for f in (finished, workplace / launcher)]
        assert files[0] == files[1]
        assert (workplace / launcher / name / "config.json").read_text() == (
            finished / name / "config.json"
        ).read_text()


@pytest.mark.slow
def test_sharded_runs_resume(workplace: Path) -> None:
    """Bit for bit on two processes, with averages and Muon; then, not exactly, on one."""
    changed = {"optimizer": "muon", "ema_decay": 0.9, "save_steps": 4, "save_total_limit": 9, "max_steps": 8}
    changed |= {"hidden_dropout": 0.1, "eval_steps": 4}
    run(command(workplace, "sharded", "fsdp2", **changed))
    for name in ("sharded-2", "sharded-1"):
        shutil.copytree(workplace / "sharded" / "checkpoint-4", workplace / name / "checkpoint-4")
    changed["resume_from_checkpoint"] = "true"
    assert "checkpoint-4 (exact)" in run(command(workplace, "sharded-2", "fsdp2", **changed))
    assert losses(workplace / "sharded-2") == losses(workplace / "sharded")[4:]
    for name in ("checkpoint-8/model", "checkpoint-8/training_state/state", "final/model"):
        files = [workplace / folder / f"{name}.safetensors" for folder in ("sharded", "sharded-2")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    text = run(command(workplace, "sharded-1", **changed))
    assert "checkpoint-4 (not exact: world_size was 2, is 1; sharded was True, is False)" in text


def test_gradient_accumulation_does_what_one_batch_does(finished: Path, workplace: Path) -> None:
    output = run_here(workplace, "accumulated", per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert losses(output) == pytest.approx(losses(finished), abs=1e-5)


def test_windows_with_a_stride(finished: Path, workplace: Path) -> None:
    """Half the stride, another row second; the validation rows stay as they are."""
    output = run_here(workplace, "strided", stride=16, max_steps=2)
    assert losses(output)[0] != losses(finished)[0]
    assert results(output)["final"]["num_tokens"] == results(finished)["final"]["num_tokens"]
    assert results(output)["identity"]["data"] != results(finished)["identity"]["data"]


def test_going_on_with_a_model(finished: Path, workplace: Path) -> None:
    output = run_here(workplace, "more", model_name_or_path=finished / "final", max_steps=2)
    assert losses(output)[0] < losses(finished)[-1] + 0.3


def test_going_on_takes_the_context_of_the_model(finished: Path, workplace: Path) -> None:
    """Before: rows of 512 tokens, and after the tokenising the advice to edit the tokenizer's code."""
    changed = {"model_name_or_path": finished / "final", "max_steps": 1, "hidden_size": 32}
    arguments = [each for each in options(workplace, "short", **changed) if "context_length" not in each]
    pretrain.main(arguments)
    assert results(workplace / "short")["num_targets"] == 4 * 32
    for given, message in (
        ({"context_length": 64}, "has a context of 32 tokens; give at most that, or leave the option out"),
        ({"hidden_size": 64}, "hidden_size=64: .* has 32; leave the option out"),
    ):
        with pytest.raises(ValueError, match=message):
            run_here(workplace, "refused", **{**changed, **given})
        assert not (workplace / "refused").exists()


def test_no_clipping_trains_as_a_norm_that_is_never_reached(finished: Path, workplace: Path) -> None:
    """Before, 0 scaled every gradient to nothing, and nothing was learned."""
    off, high = (run_here(workplace, f"clip{norm}", max_grad_norm=norm) for norm in (0, 1000))
    assert losses(off) == losses(high) != losses(finished)


def test_a_run_is_reproduced_by_its_arguments(finished: Path, workplace: Path) -> None:
    file = finished / "arguments.yaml"
    assert "resume_from_checkpoint" not in file.read_text()
    pretrain.main([str(file), f"--output_dir={workplace / 'again'}"])
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (finished, workplace / "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("place", ["text.jsonl", "text.jsonl/run", "n" * 300])
def test_an_impossible_output_directory_is_found_before_the_work(workplace: Path, monkeypatch, place: str) -> None:
    monkeypatch.setattr(pretraining, "training_rows", lambda *_, **__: pytest.fail("the work had begun"))
    with pytest.raises(ValueError, match=r"cannot be written to .*: give another directory"):
        run_here(workplace, place)


def test_an_earlier_run_is_found_before_the_work(finished: Path, workplace: Path, monkeypatch) -> None:
    monkeypatch.setattr(pretraining, "training_rows", lambda *_, **__: pytest.fail("the work had begun"))
    with pytest.raises(ValueError, match="holds checkpoints of an earlier run"):
        run_here(workplace, "one")


def test_a_text_too_short_for_a_row_is_refused(workplace: Path, tmp_path: Path) -> None:
    """It was padded, trained on and reported, with exit code 0."""
    (tmp_path / "short.txt").write_text("To be, or not to be.")
    with pytest.raises(ValueError, match=r"short\.txt has \d+ tokens .* too few for one row of 32: give more text"):
        run_here(workplace, "too_short", data=tmp_path / "short.txt")


def test_a_mistake_is_one_line(workplace: Path) -> None:
    text = run(command(workplace, "refused", learning_rate="inf"), expect=2)
    assert text.splitlines() == ["pretrain.py: learning_rate=inf: it must be finite, above 0 and at most 10"]


def test_a_tokenizer_of_the_hub(workplace: Path, tmp_path: Path, monkeypatch) -> None:
    """From the Hub's cache, which is what a name that was once downloaded is."""
    snapshot = tmp_path / "models--someone--tokens" / "snapshots" / ("0" * 40)
    shutil.copytree(workplace / "tokenizer", snapshot)
    (snapshot / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "models--someone--tokens" / "refs").mkdir()
    (tmp_path / "models--someone--tokens" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    output = run_here(workplace, "hub", tokenizer="someone/tokens", max_steps=1)
    assert (output / "final" / "tokenizer.json").is_file()


def test_early_stopping_keeps_the_best_checkpoint(workplace: Path) -> None:
    """A learning rate far too high: the loss gets worse from some evaluation on."""
    changed = {"learning_rate": 3.0, "warmup_steps": 3, "eval_steps": 1, "early_stopping_patience": 2}
    output = run_here(workplace, "early", save_total_limit=1, **changed)
    found = [line["eval_loss"] for line in metrics(output)]
    best = found.index(min(found)) + 1
    assert len(found) == best + 2 < 12
    assert results(output)["best"] == {"loss": min(found), "step": best}
    kept = sorted(int(path.name.split("-")[1]) for path in output.glob("checkpoint-*"))
    assert kept == [best, len(found)]


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(workplace: Path, monkeypatch) -> None:
    plain = step.TrainingStep.loss
    calls = 0

    def poisoned(self, batch, num_targets):
        nonlocal calls
        calls += 1
        return plain(self, batch, num_targets) * (float("nan") if calls == 5 else 1)

    monkeypatch.setattr(step.TrainingStep, "loss", poisoned)
    with pytest.raises(ValueError, match=r"loss is nan in step 4 \(rows \[.*weights are unchanged"):
        run_here(workplace, "poisoned", save_steps=1, save_total_limit=9)
    model = AutoModelForCausalLM.from_pretrained(workplace / "poisoned" / "checkpoint-4")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not (workplace / "poisoned" / "checkpoint-5").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": ""}, "--data is missing"),
        ({"learning_rate": "inf"}, "learning_rate=inf: it must be finite, above 0 and at most 10"),
        ({"learning_rate": 1e38}, r"learning_rate=1e\+38: it must be above 0 and at most 10"),
        ({"weight_decay": "nan"}, "weight_decay=nan: it must be finite, at least 0"),
        ({"max_grad_norm": "nan"}, "max_grad_norm=nan: it must be finite, at least 0"),
        ({"max_grad_norm": -1}, "max_grad_norm=-1.0: it must be at least 0"),
        ({"min_lr_ratio": 1.5}, "min_lr_ratio=1.5: it must be at least 0 and at most 1"),
        ({"warmup_steps": -1}, "warmup_steps=-1: it must be at least 0"),
        ({"preset": "gpt5"}, "Unknown preset 'gpt5'"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"ema_decay": 2}, "ema_decay=2"),
        ({"lr_schedule": "wsd"}, "decay_steps=0"),
        ({"data": "no/such/place"}, "no/such/place"),
        ({"tokenizer": "no/such/place"}, "no/such/place is neither here nor a name on the Hub"),
        ({"stride": 64}, r"stride must be in 1 … context_length=32, got 64"),
        ({"stride": 16, "streaming": True}, "--stride is for rows of a tokenised corpus"),
        ({"report_to": "tensorbord"}, "report_to=tensorbord is no tracker"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(workplace: Path, changed, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_here(workplace, "refused", **changed)
    assert not (workplace / "refused").exists()

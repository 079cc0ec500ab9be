"""Real runs that are resumed after something has changed: exact, or not exact and why, or refused. Never a wrong word.

That every argument of every recipe counts or is listed stands in tests/unit/test_run_identity.py.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes import finetune_classifier, finetune_instruct, finetune_preference, pretrain, reinforce
from scratchgpt.arguments import Bounds
from scratchgpt.hub.fingerprints import BASE_FILE
from scratchgpt.hub.seals import MANIFEST, seal
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from scratchgpt.training import processes
from tests.recipes import test_finetune_classifier as classifier
from tests.recipes import test_finetune_instruct as instruct
from tests.recipes import test_finetune_preference as preferences
from tests.recipes import test_reinforce as rewards
from tests.runs import make_workplace, options

classifier_workplace = classifier.workplace
instruct_workplace = instruct.workplace
preference_workplace = preferences.workplace
reward_workplace = rewards.workplace

STEPS = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "compile": False}


class Trial:
    """A finished run of four steps with its checkpoint of step 2, from which it is resumed again and again."""

    def __init__(self, recipe: Any, options: Any, workplace: Path, **settings: Any) -> None:
        self.recipe, self.options, self.workplace, self.settings = recipe, options, workplace, settings
        recipe.main(options(workplace, "whole", **settings))

    def resume(self, capsys: pytest.CaptureFixture[str], **changed: Any) -> str:
        """What the resumed run says: `exact`, or `not exact: …`."""
        output = self.workplace / "again"
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(self.workplace / "whole", output)
        shutil.rmtree(output / "checkpoint-4")
        capsys.readouterr()
        settings = {**self.settings, "resume_from_checkpoint": "true", **changed}
        self.recipe.main(self.options(self.workplace, "again", **settings))
        found = re.search(r"Resuming from checkpoint-2 \((.*)\)", capsys.readouterr().out)
        assert found is not None
        return found[1]

    def is_same(self, folder: str = "checkpoint-4") -> bool:
        """Whether the resumed run ended with the weights of the whole one."""
        [name] = {file.name for file in (self.workplace / "whole" / folder).glob("*model.safetensors")}
        one, other = (load_file(self.workplace / output / folder / name) for output in ("whole", "again"))
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(pretrain, options, make_workplace(tmp_path_factory.mktemp("pretraining")), **STEPS)


@pytest.fixture(scope="module")
def classification(classifier_workplace: Path) -> Trial:
    settings = {**STEPS, "num_train_epochs": 0.25, "baselines": "none", "hidden_dropout": 0.1}
    del settings["max_steps"]
    return Trial(finetune_classifier, classifier.options, classifier_workplace, **settings, max_length=16)


@pytest.fixture(scope="module")
def lora(instruct_workplace: Path) -> Trial:
    return Trial(finetune_instruct, instruct.options, instruct_workplace, **STEPS, lora_r=4, num_responses=0)


@pytest.fixture(scope="module")
def preference(preference_workplace: Path) -> Trial:
    return Trial(finetune_preference, preferences.options, preference_workplace, **STEPS, lora_r=4)


@pytest.fixture(scope="module")
def reinforcement(reward_workplace: Path) -> Trial:
    return Trial(reinforce, rewards.options, reward_workplace, **STEPS, lora_r=4, steps_per_sampling=4)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"logging_steps": 3},
        {"save_steps": 1},
        {"save_total_limit": 9},
        {"sample_prompts": "To be"},
        {"cache_dir": "elsewhere"},
    ],
)
def test_what_does_not_count_changes_no_bit(
    pretraining: Trial, changed: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "cache_dir" in changed:
        changed = {"cache_dir": tmp_path}
    assert pretraining.resume(capsys, **changed) == "exact"
    assert pretraining.is_same()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "seed was 0, is now 1"),
        ({"weight_decay": 0.3}, "weight_decay was 0.1, is now 0.3"),
        ({"on_nonfinite": "skip"}, "on_nonfinite was stop, is now skip"),
        ({"on_loss_spike": "skip"}, "on_loss_spike was warn, is now skip"),
        ({"hidden_dropout": 0.2}, "hidden_dropout was None, is now 0.2"),
        ({"mask_documents": True}, "mask_documents was False, is now True"),
        ({"eval_steps": 1}, "eval_steps was 2, is now 1"),
    ],
)
def test_changed_pretraining_is_named(
    pretraining: Trial, changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = pretraining.resume(capsys, **changed)
    assert found.startswith("not exact: ")
    assert said in found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"r_drop": 1.0}, "r_drop was 0.0, is now 1.0"),
        ({"class_weights": "balanced"}, "class_weights was none, is now balanced"),
        ({"max_length": 8}, "max_length was 16, is now 8"),
        ({"validation_fraction": 0.2}, "task.eval_rows was "),
    ],
)
def test_changed_classification_is_named(
    classification: Trial, changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of these were "exact"."""
    if "r_drop" in changed:
        assert classification.resume(capsys) == "exact"
        assert classification.is_same()
    found = classification.resume(capsys, **changed)
    assert found.startswith("not exact: ")
    assert said in found


def test_another_processor_is_named(
    pretraining: Trial, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kernels for other instructions: in bf16 another result, which was "exact"."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    said = "kernel_variables.ONEDNN_MAX_CPU_ISA was not recorded, is now AVX2"
    assert pretraining.resume(capsys) == f"not exact: {said}"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(processes, "cpu_name", lambda: "another")
    assert re.fullmatch("not exact: device was .+, is now another", pretraining.resume(capsys))


def test_a_broken_best_checkpoint_is_found_before_the_work(
    pretraining: Trial, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It was found after all of it."""
    output = pretraining.workplace / "best"
    settings = {**pretraining.settings, "eval_steps": 1, "save_steps": 1, "learning_rate": 1e-12, "max_steps": 5}
    pretrain.main(options(pretraining.workplace, "best", **settings))
    assert json.loads((output / "results.json").read_text())["best"]["step"] == 1  # nothing was learned after it
    shutil.rmtree(output / "checkpoint-5")
    shutil.rmtree(output / "checkpoint-1")
    again = {**settings, "resume_from_checkpoint": "true"}
    with pytest.raises(ValueError, match=r"best checkpoint so far is broken .* go on with --load_best_at_end false"):
        pretrain.main(options(pretraining.workplace, "best", **again, load_best_at_end=True))
    assert not (output / "checkpoint-5").exists()
    pretrain.main(options(pretraining.workplace, "best", **again))


CHANGES: dict[str, list[dict[str, Any]]] = {
    "pretraining": [
        {"logging_steps": 1}, {"save_steps": 3}, {"save_steps": 1, "save_total_limit": 1}, {"sample_prompts": "Who"},
        {"sample_tokens": 3}, {"eval_on_start": True}, {"seed": 7}, {"max_steps": 6}, {"max_steps": 3},
        {"per_device_train_batch_size": 2}, {"gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, {"optimizer": "muon"},
        {"learning_rate": 0.02}, {"muon_learning_rate": 0.1}, {"weight_decay": 0}, {"adam_beta1": 0.8},
        {"adam_beta2": 0.9}, {"max_grad_norm": 0.1}, {"max_grad_norm": 0}, {"lr_schedule": "linear"},
        {"lr_schedule": "wsd", "decay_steps": 2}, {"warmup_steps": 2}, {"decay_steps": 2}, {"min_lr_ratio": 0.5},
        {"ema_decay": 0.9}, {"mixed_precision": "bf16"}, {"compile": True}, {"deterministic": True},
        {"gradient_checkpointing": True}, {"eval_steps": 1}, {"early_stopping_patience": 1},
        {"load_best_at_end": True}, {"on_nonfinite": "skip"}, {"on_loss_spike": "stop"}, {"eval_tokens": 64},
        {"train_split": "test"}, {"eval_split": "test"}, {"column": "other"}, {"streaming": True},
        {"mask_documents": True}, {"stride": 16}, {"preset": "gpt2"}, {"context_length": 16}, {"hidden_size": 64},
        {"num_hidden_layers": 1}, {"num_attention_heads": 2}, {"num_key_value_heads": 2}, {"vocab_size": 1024},
        {"hidden_dropout": 0.1}, {"attention_dropout": 0.1},
    ],
    "classification": [
        {"r_drop": 0.5}, {"class_weights": "balanced"}, {"max_length": 12}, {"label_smoothing": 0.1},
        {"validation_fraction": 0.3}, {"lr_schedule": "constant"}, {"num_train_epochs": 3}, {"seed": 3},
        {"weight_decay": 0.01}, {"ema_decay": 0.5},
    ],
    "lora": [
        {"lora_r": 2}, {"lora_alpha": 4}, {"lora_dropout": 0.1}, {"use_dora": True}, {"use_rslora": True},
        {"lora_targets": "q_proj"}, {"learning_rate": 0.001}, {"num_responses": 1}, {"response_tokens": 2},
        {"per_device_train_batch_size": 1},
    ],
    "preference": [
        {"eval_answers": 0}, {"response_tokens": 2}, {"num_responses": 1}, {"loss": "ipo"}, {"loss": "simpo"},
        {"beta": 0.5}, {"label_smoothing": 0.1}, {"length_normalization": True}, {"nll_weight": 0}, {"seed": 1},
        {"validation_fraction": 0.5}, {"context_length": 30}, {"per_device_train_batch_size": 1}, {"eval_tokens": 9},
    ],
    "reinforcement": [
        {"group_size": 4}, {"clip_high": 0.5}, {"kl_weight": 0.1}, {"scale_rewards": True}, {"reward": "number_match"},
        {"method": "rejection"}, {"response_tokens": 12}, {"sampling_batch_size": 7}, {"eval_questions": 3},
        {"right_at": 0.5}, {"steps_per_sampling": 2}, {"seed": 1}, {"reward_time_limit": 1},
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("trial", CHANGES)
def test_after_each_change_the_word_is_right(
    trial: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it says exact, the weights are the same; where they are not, it says what changed; or it refuses."""
    resumed: Trial = request.getfixturevalue(trial)
    counts, messages = {"exact": 0, "not exact": 0, "refused": 0}, []
    for changed in CHANGES[trial]:
        try:
            found = resumed.resume(capsys, **changed)
        except ValueError as error:
            counts["refused"] += 1
            messages.append(str(error))
            continue
        counts[found.partition(":")[0]] += 1
        if found == "exact":
            assert resumed.is_same(), changed
        else:
            # What it names is what was changed, or follows from it: each is named as it is in the record.
            assert re.fullmatch(r"not exact: \S+ was .*", found, re.DOTALL), (changed, found)
    assert not [message for message in messages if "\n" in message]
    with capsys.disabled():
        print(f"\n{trial}: {len(CHANGES[trial])} changes: {counts}")


def test_another_tokenizer_of_the_base_is_named(classification: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    base, other = classification.workplace / "base", classification.workplace / "other"
    shutil.copytree(base, other)
    words = [text.upper() for _, text in classifier.texts(160)]
    to_transformers(BPETokenizer.train([*words, *words, *words], 300)).save_pretrained(other)
    seal(other)
    assert "tokenizer was " in classification.resume(capsys, model_name_or_path=other)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lora_alpha": 8}, "adapter.lora_alpha was 32, is now 8"),
        ({"lora_dropout": 0.5}, "adapter.lora_dropout was 0.0, is now 0.5"),
        ({"use_rslora": True}, "adapter.use_rslora was False, is now True"),
    ],
)
def test_a_changed_adapter_is_named(
    lora: Trial, changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of these were "exact"."""
    if "lora_alpha" in changed:
        assert lora.resume(capsys) == "exact"
    assert lora.resume(capsys, **changed) == f"not exact: {said}"


def test_an_adapter_is_not_resumed_on_another_base(lora: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    """It said "exact", and base.json got the other base's hash: chat then took an adapter on a base it never saw."""
    weights = lora.workplace / "base" / "model.safetensors"
    before, reference = weights.read_bytes(), (lora.workplace / "whole" / "final" / BASE_FILE).read_text()
    try:
        save_file({name: t + 1e-3 for name, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
        seal(lora.workplace / "base")
        with pytest.raises(ValueError, match=r"was not trained on .*: the weights had the SHA-256"):
            lora.resume(capsys)
    finally:
        weights.write_bytes(before)
        seal(lora.workplace / "base")
    for folder in ("final", "checkpoint-2"):
        assert json.loads((lora.workplace / "again" / folder / BASE_FILE).read_text()) == json.loads(reference)
    assert (lora.workplace / "whole" / "final" / MANIFEST).is_file()


def test_a_learning_rate_beyond_all_numbers_ends_with_an_error(
    pretraining: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended with exit 0, a sealed checkpoint and a final/ of NaNs."""
    monkeypatch.setattr(Bounds, "allow", lambda self, value: True)  # else the recipe refuses it
    for steps in (1, 4):
        changed = {**STEPS, "learning_rate": 1e38, "max_steps": steps, "eval_steps": 1, "save_steps": 1}
        with pytest.raises(ValueError, match=r"is not finite|loss is (nan|inf)"):
            pretrain.main(options(pretraining.workplace, f"huge{steps}", **changed))
        for file in (pretraining.workplace / f"huge{steps}").rglob("model.safetensors"):
            assert all(tensor.isfinite().all() for tensor in load_file(file).values())
        assert not (pretraining.workplace / f"huge{steps}" / "final").exists()


def test_a_base_that_is_not_finite_is_refused(pretraining: Trial) -> None:
    """With --on_nonfinite skip it ended with exit 0 and a final/ of NaNs."""
    base = pretraining.workplace / "broken"
    shutil.copytree(pretraining.workplace / "whole" / "final", base)
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][7, 0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    seal(base)
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight of .*broken is not finite: 1 of its"):
        pretrain.main(options(pretraining.workplace, "nan", **STEPS, model_name_or_path=base, on_nonfinite="skip"))
    assert not (pretraining.workplace / "nan").exists()

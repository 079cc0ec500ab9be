"""Campaigns against the checkpoints: killed writers, lost power, flipped bits, cut files. -s shows the numbers."""

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from scratchgpt.training.checkpoints import (
    CheckpointError,
    OutputDirectoryLock,
    list_checkpoints,
    load_training_state,
    newest_valid_checkpoint,
    save_checkpoint,
    save_training_state,
    verify_checkpoint,
)
from scratchgpt.training.optimizers import EMA, build_optimizers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Run:
    """A training run in small: model, Muon and AdamW, moving average; a step is a function of its number."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        tokenizer = BPETokenizer.train(["to be or not to be"] * 2, 270)
        self.tokenizer = to_transformers(tokenizer)
        self.model = ScratchGPTForCausalLM(
            ScratchGPTConfig(
                vocab_size=280, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, hidden_dropout=0.1
            )
        ).train()
        self.optimizers = build_optimizers(self.model, optimizer="muon", learning_rate=1e-2)
        self.ema = EMA(self.model)
        self.step = 0

    def train(self) -> None:
        torch.manual_seed(self.step)
        ids = torch.randint(280, (2, 16))
        self.model(input_ids=ids, labels=ids).loss.backward()
        self.optimizers.step()
        self.optimizers.zero_grad()
        self.ema.update(self.model, 0.9)
        self.step += 1

    def write(self, directory: Path) -> None:
        self.tokenizer.save_pretrained(directory)
        self.model.save_pretrained(directory)
        state = {"step": self.step, "optimizers": self.optimizers.state_dict(), "ema": self.ema.state_dict()}
        save_training_state(directory, state)

    def resume(self, checkpoint: Path) -> None:
        self.model.load_state_dict(AutoModelForCausalLM.from_pretrained(checkpoint).state_dict())
        state = load_training_state(checkpoint)
        self.step = state["step"]
        self.optimizers.load_state_dict(state["optimizers"])
        self.ema.load_state_dict(state["ema"])


@pytest.fixture(autouse=True)
def _quiet() -> None:
    disable_progress_bar()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real checkpoint, after two steps."""
    run = Run()
    run.train()
    run.train()
    return save_checkpoint(tmp_path_factory.mktemp("template"), run.step, run.write)


def fork(run: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            run()
            os._exit(0)
        finally:
            os._exit(1)
    return child


class Killer:
    """Ends this process after so many written bytes; an operation on a file or directory counts as many bytes."""

    OPERATION = 20_000

    def __init__(self, budget: float):
        self.budget = budget
        self.spent = 0

    def die(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    def write(self, descriptor: int, content: bytes) -> None:
        left = self.budget - self.spent
        self.spent += len(content)
        if left < len(content):
            os.write(descriptor, content[: int(left)])
            self.die()
        os.write(descriptor, content)

    def operation(self, function: Callable) -> Callable:
        def counted(*args, **kwargs):
            self.spent += self.OPERATION
            if self.spent > self.budget:
                self.die()
            return function(*args, **kwargs)

        return counted


class FullDisk(Killer):
    """From its `first` write on, the disk is full: writing, making and renaming fail, deleting works."""

    def __init__(self, first: float):
        super().__init__(float("inf"))
        self.first, self.writes = first, 0

    def count(self) -> None:
        self.writes += 1
        if self.writes >= self.first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, descriptor: int, content: bytes) -> None:
        self.count()
        os.write(descriptor, content)

    def operation(self, function: Callable) -> Callable:
        def counted(*args, **kwargs):
            if function.__name__ not in ("unlink", "rmdir"):
                self.count()
            return function(*args, **kwargs)

        return counted


def save_under(killer: Killer, template: Path, output: Path, step: int, synced: int, mark: int | None = None) -> None:
    """Saves a copy of the template as `step`, through a writer that the killer stops; in a process of its own.

    The inodes of synced files are written to the descriptor `synced`. `mark` stands in the state instead of the step.
    """
    mark = step if mark is None else mark
    fsync = os.fsync

    def write_file(path: Path, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for start in range(0, len(content), 1000):
            killer.write(descriptor, content[start : start + 1000])
        os.close(descriptor)

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        os.write(synced, f"{os.fstat(descriptor).st_ino}\n".encode())

    def write(directory: Path) -> None:
        for file in sorted(template.rglob("*")):
            target = directory / file.relative_to(template)
            if file.is_dir():
                target.mkdir()
            elif file.name == "state.json":
                write_file(target, file.read_bytes().replace(b'"step": 2,', f'"step": {mark},'.encode()))
            elif file.name != "manifest.json":
                write_file(target, file.read_bytes())

    Path.write_bytes = write_file  # pyright: ignore - the manifest goes this way
    os.fsync = killer.operation(noted_fsync)
    for name in ("rename", "unlink", "rmdir", "mkdir"):
        setattr(os, name, killer.operation(getattr(os, name)))
    with OutputDirectoryLock(output):
        save_checkpoint(output, step, write, save_total_limit=2)
    killer.budget = -1
    os.write(synced, f"total {killer.spent}\n".encode())


def lose_power(output: Path, synced: set[int], generator: random.Random) -> int:
    """What was not synced may be lost: cuts such files at a random place."""
    cut = 0
    for file in output.rglob("*"):
        status = file.stat()
        if file.is_file() and file.name != "run.lock" and status.st_size and status.st_ino not in synced:
            os.truncate(file, generator.randrange(status.st_size))
            cut += 1
    return cut


def test_200_kills_during_saves(template, tmp_path):
    generator = random.Random(0)

    def attempt(step: int, budget: float) -> tuple[int, list[str]]:
        reader, writer = os.pipe()
        child = fork(lambda: save_under(Killer(budget), template, tmp_path, step, writer))
        os.close(writer)
        with os.fdopen(reader) as lines:
            noted = lines.read().split("\n")[:-1]
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), noted

    synced: set[int] = set()
    for step in (1, 2, 3):
        code, noted = attempt(step, float("inf"))
        assert code == 0
        synced |= {int(line) for line in noted[:-1]}
    total = int(noted[-1].removeprefix("total "))

    step, published, losses, cut_files = 3, 0, 0, 0
    for trial in range(200):
        code, noted = attempt(step + 1, generator.randrange(total))
        assert code == -signal.SIGKILL, (trial, code)
        synced |= {int(line) for line in noted}
        if trial % 2:
            losses += 1
            cut_files += lose_power(tmp_path, synced, generator)
        path, skipped = newest_valid_checkpoint(tmp_path)
        assert not skipped, (trial, skipped)
        assert path is not None, trial
        found = int(path.name.removeprefix("checkpoint-"))
        assert found in (step, step + 1), (trial, found, step)
        assert load_training_state(path)["step"] == found
        assert AutoModelForCausalLM.from_pretrained(path).num_parameters() > 0
        published += found - step
        step = found
    assert attempt(step + 1, float("inf"))[0] == 0
    assert [s for s, _ in list_checkpoints(tmp_path)] == [step, step + 1]  # what the kills left lying is cleared away
    assert not list(tmp_path.glob(".checkpoint-*"))
    print(
        f"\n200 of 200 kills: resumed from a valid checkpoint, {published} from the one being written, "
        f"{200 - published} from the one before; after {losses} of them power was lost too ({cut_files} files cut)"
    )
    assert 0 < published < 200


def test_200_kills_while_a_checkpoint_is_replaced(template, tmp_path):
    """A run that started anew saves the same step again: there is always the old one or the new one, whole."""
    generator = random.Random(2)

    def attempt(budget: float, mark: int) -> tuple[int, list[str]]:
        reader, writer = os.pipe()
        child = fork(lambda: save_under(Killer(budget), template, tmp_path, 3, writer, mark))
        os.close(writer)
        with os.fdopen(reader) as lines:
            noted = lines.read().split("\n")[:-1]
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), noted

    assert attempt(float("inf"), 100)[0] == 0
    code, noted = attempt(float("inf"), 101)
    assert code == 0
    total, there, replaced = int(noted[-1].removeprefix("total ")), 101, 0
    for trial in range(200):
        # Every second one near the end, where the names are exchanged.
        budget = generator.randrange(total - 10 * Killer.OPERATION if trial % 2 else 0, total)
        assert attempt(budget, 102 + trial)[0] == -signal.SIGKILL, trial
        with OutputDirectoryLock(tmp_path):  # as the next run does: it puts back what a kill left under another name
            path, skipped = newest_valid_checkpoint(tmp_path)
        assert path == tmp_path / "checkpoint-3", trial
        assert not skipped, trial
        found = load_training_state(path)["step"]
        assert found in (there, 102 + trial), (trial, found, there)
        replaced += found != there
        there = found
    assert attempt(float("inf"), 999)[0] == 0
    assert load_training_state(tmp_path / "checkpoint-3")["step"] == 999
    assert not list(tmp_path.glob(".checkpoint-*"))
    print(f"\n200 of 200 kills: {replaced} left the new checkpoint of the same step, {200 - replaced} the old one")
    assert 0 < replaced < 200


def test_a_disk_that_is_full_from_any_write_on(template, tmp_path):
    """At each of the writes of a save: the save fails, the checkpoints before it are whole, the next save works."""

    def attempt(first: float, step: int) -> int:
        child = fork(lambda: save_under(FullDisk(first), template, tmp_path, step, os.open(os.devnull, os.O_WRONLY)))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert attempt(float("inf"), 1) == attempt(float("inf"), 2) == 0
    first, published = 0, 0
    while True:
        first += 1
        code = attempt(first, 3)
        path, skipped = newest_valid_checkpoint(tmp_path)
        assert path is not None
        assert not skipped, first
        if code == 0:
            break
        # A save may fail after the checkpoint stands, while older ones are cleared away.
        assert path.name in ("checkpoint-2", "checkpoint-3"), first
        published += path.name == "checkpoint-3"
        if path.name == "checkpoint-3":
            shutil.rmtree(path)
    assert path.name == "checkpoint-3"
    assert not list(tmp_path.glob(".checkpoint-*"))
    print(f"\n{first - 1} of {first - 1} full disks: the older checkpoints were whole; {published} of them came after")
    assert first > 20


def test_20_real_kills_of_a_training_run_change_nothing(tmp_path):
    """Killed 20 times at random moments and resumed, a run ends with the weights of one that was left alone."""
    generator = random.Random(1)

    def train(descriptor: int, until: float) -> None:
        with OutputDirectoryLock(tmp_path):
            path, skipped = newest_valid_checkpoint(tmp_path)
            assert not skipped
            run = Run()
            if path is not None:
                run.resume(path)
            os.write(descriptor, b"ready\n")
            while run.step < until:
                run.train()
                save_checkpoint(tmp_path, run.step, run.write, save_total_limit=2)
                os.write(descriptor, f"{run.step}\n".encode())

    resumed: list[int] = []
    for _ in range(20):
        reader, writer = os.pipe()
        child = fork(lambda descriptor=writer: train(descriptor, float("inf")))
        os.close(writer)
        with os.fdopen(reader) as lines:
            assert lines.readline() == "ready\n"
            steps = [int(lines.readline()) for _ in range(generator.randrange(4))]
            time.sleep(generator.random() / 5)
            os.kill(child, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            steps += [int(line) for line in lines.read().split("\n")[:-1]]
        path, skipped = newest_valid_checkpoint(tmp_path)
        assert not skipped
        found = int(path.name.removeprefix("checkpoint-")) if path else 0
        newest = steps[-1] if steps else resumed[-1] if resumed else 0
        assert found - newest in (0, 1)
        resumed.append(found)

    assert resumed[-1] > 20
    last = resumed[-1] + 5
    with open(os.devnull, "w") as nowhere:
        train(nowhere.fileno(), last)
    final, reference = Run(), Run()
    final.resume(tmp_path / f"checkpoint-{last}")
    while reference.step < last:
        reference.train()
    for name, weight in reference.model.state_dict().items():
        assert torch.equal(weight, final.model.state_dict()[name]), name
    for name, average in reference.ema.averages.items():
        assert torch.equal(average, final.ema.averages[name]), name
    expected, found_state = reference.optimizers.state_dict(), final.optimizers.state_dict()
    for index, parameters in expected.items():
        for name, values in parameters.items():
            assert all(torch.equal(value, found_state[index][name][key]) for key, value in values.items()), name
    print(f"\n20 of 20 SIGKILLs survived, at steps {resumed}; the weights after {last} steps are bit for bit the same")


def test_1000_bit_flips_are_all_detected(template, tmp_path):
    path = tmp_path / "checkpoint-2"
    shutil.copytree(template, path)
    verify_checkpoint(path)
    generator = random.Random(0)
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    sizes = [file.stat().st_size for file in files]
    filled = [file for file, size in zip(files, sizes, strict=True) if size]
    detected = 0
    for trial in range(1000):
        # Half of them anywhere, by size; half of them in turn over the files, most of which are small.
        file = generator.choices(files, sizes)[0] if trial % 2 else filled[trial // 2 % len(filled)]
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError) as caught:
            verify_checkpoint(path)
        assert str(file) in str(caught.value)
        detected += 1
        file.write_bytes(content)
    verify_checkpoint(path)
    print(f"\n{detected} of 1000 single-bit flips detected and named, in {len(files)} files of {sum(sizes)} bytes")


def test_50_truncations_of_every_file_are_all_detected(template, tmp_path):
    path = tmp_path / "checkpoint-2"
    shutil.copytree(template, path)
    generator = random.Random(0)
    files = [file for file in path.rglob("*") if file.is_file() and file.stat().st_size]
    detected = 0
    for file in files:
        content = file.read_bytes()
        for length in generator.choices(range(len(content)), k=50):
            file.write_bytes(content[:length])
            with pytest.raises(CheckpointError) as caught:
                verify_checkpoint(path)
            assert str(file) in str(caught.value)
            detected += 1
        file.write_bytes(content)
    verify_checkpoint(path)
    print(f"\n{detected} of {50 * len(files)} truncations detected and named, 50 in each of {len(files)} files")

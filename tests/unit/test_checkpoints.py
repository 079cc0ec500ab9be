import errno
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

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
from scratchgpt.training.training_state import load_tree, save_tree


def write_small(step: int) -> Callable[[Path], None]:
    """Stands for a model: a few files, one of them in a folder, one empty."""

    def write(directory: Path) -> None:
        content = random.Random(step)
        (directory / "model.safetensors").write_bytes(content.randbytes(3000))
        (directory / "config.json").write_text('{"model_type": "scratchgpt"}')
        (directory / "merges.txt").touch()
        save_training_state(directory, {"step": step, "moments": torch.full((8,), float(step))})

    return write


def save(output: Path, *steps: int, **options) -> Path:
    for step in steps:
        path = save_checkpoint(output, step, write_small(step), **options)
    return path


def steps_of(output: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(output)]


def fork(run: Callable[[], None]) -> int:
    """A child process that does `run` and nothing else; its id."""
    child = os.fork()
    if child == 0:
        try:
            run()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def test_a_checkpoint_is_a_model_directory_with_the_rest_beside(tmp_path):
    tokenizer = to_transformers(BPETokenizer.train(["the cat sat on the mat"] * 3, vocab_size=270))
    model = ScratchGPTForCausalLM(
        ScratchGPTConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    state = {"step": 7, "loss": 0.1 + 0.2, "rng": torch.get_rng_state()}

    def write(directory: Path) -> None:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        save_training_state(directory, state)

    path = save_checkpoint(tmp_path, 7, write)
    assert path == tmp_path / "checkpoint-7"
    verify_checkpoint(path)
    loaded = AutoModelForCausalLM.from_pretrained(path)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])
    assert AutoTokenizer.from_pretrained(path)("ab").input_ids == tokenizer("ab").input_ids
    again = load_training_state(path)
    assert again["step"] == 7
    assert again["loss"] == state["loss"]
    assert torch.equal(again["rng"], state["rng"])
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-7"]
    assert not [p for p in path.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".pth")]


def test_state_tree_is_exact(tmp_path):
    tree = {
        "floats": [0.1, 1e-300, math.pi, math.inf, -0.0],
        "integers": [0, -1, 2**70],
        "others": [None, True, "é\n", {}, []],
        "python_rng": [list(part) if isinstance(part, tuple) else part for part in random.getstate()],
        "tensors": {str(t.dtype): t for t in (torch.rand(3).bfloat16(), torch.rand(2, 2).T, torch.tensor(3))},
        "scalar": torch.tensor(0.1, dtype=torch.float64),
    }
    save_tree(tmp_path, "state", tree)
    loaded = load_tree(tmp_path, "state")
    tensors, expected = loaded.pop("tensors"), tree.pop("tensors")
    assert torch.equal(loaded.pop("scalar"), tree.pop("scalar"))
    assert loaded == tree
    assert math.copysign(1, loaded["floats"][-1]) == -1
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


@pytest.mark.parametrize("bad", [{"a": {1, 2}}, {"a": (1, 2)}, {1: 2}, {"$tensor": 1}, {"a": [object()]}])
def test_state_tree_refuses_what_it_cannot_restore(bad, tmp_path):
    with pytest.raises(TypeError):
        save_tree(tmp_path, "state", bad)


def test_damage_is_found_and_named(tmp_path):
    path = save(tmp_path, 1)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert len(files) == 6
    generator = random.Random(0)
    for file in files:
        content = file.read_bytes()
        for _ in range(10 if content else 0):
            broken = bytearray(content)
            broken[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            file.write_bytes(broken)
            with pytest.raises(CheckpointError, match=file.name):
                verify_checkpoint(path)
            file.write_bytes(content[: generator.randrange(len(content))])
            with pytest.raises(CheckpointError, match=file.name):
                verify_checkpoint(path)
        file.write_bytes(content + b"x")
        with pytest.raises(CheckpointError, match=file.name):
            verify_checkpoint(path)
        file.unlink()
        with pytest.raises(CheckpointError, match=file.name):
            verify_checkpoint(path)
        file.write_bytes(content)
        verify_checkpoint(path)
    (path / "notes.txt").write_text("a reader's own")
    verify_checkpoint(path)


def test_broken_checkpoints_are_named_and_skipped(tmp_path, caplog):
    assert newest_valid_checkpoint(tmp_path / "nothing") == (None, [])
    save(tmp_path, 9, 10, 100)
    (tmp_path / "checkpoint-100" / "config.json").unlink()
    (tmp_path / "checkpoint-10" / "manifest.json").unlink()
    (tmp_path / "checkpoint-old").mkdir()
    path, skipped = newest_valid_checkpoint(tmp_path)
    assert path == tmp_path / "checkpoint-9"
    assert [broken.name for broken, _ in skipped] == ["checkpoint-100", "checkpoint-10"]
    assert "config.json is missing" in skipped[0][1]
    assert "manifest.json cannot be read" in skipped[1][1]
    assert "config.json is missing" in caplog.text


def test_limit_keeps_the_newest_and_the_best(tmp_path):
    save(tmp_path, 1, 2, 3)
    assert steps_of(tmp_path) == [1, 2, 3]
    save(tmp_path, 4, save_total_limit=2, best_step=1)
    assert steps_of(tmp_path) == [1, 3, 4]
    save(tmp_path, 5, save_total_limit=1, best_step=4)
    assert steps_of(tmp_path) == [4, 5]
    save(tmp_path, 3, save_total_limit=1)  # never the one just written
    assert steps_of(tmp_path) == [3]


def test_limit_does_not_count_broken_ones_nor_remove_foreign_ones(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "checkpoint-2" / "config.json").unlink()
    (tmp_path / "checkpoint-0").mkdir()
    save(tmp_path, 3, save_total_limit=2)
    assert steps_of(tmp_path) == [0, 1, 3]


def test_a_step_saved_again_replaces_the_broken_one(tmp_path):
    path = save(tmp_path, 1)
    (path / "config.json").unlink()
    save(tmp_path, 1)
    verify_checkpoint(path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error")])
def test_failure_while_writing_leaves_older_ones(error, tmp_path):
    save(tmp_path, 1, 2)

    def write(directory: Path) -> None:
        write_small(2)(directory)
        raise error

    for step in (2, 3):
        with pytest.raises(
            CheckpointError, match=rf"checkpoint-{step} could not.*{error.args[-1]}.*disk at /.* GB free"
        ):
            save_checkpoint(tmp_path, step, write, save_total_limit=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    verify_checkpoint(tmp_path / "checkpoint-2")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk(tmp_path):
    """/dev/full refuses every write as a full disk does."""
    save(tmp_path, 1)

    def write(directory: Path) -> None:
        (directory / "model.safetensors").symlink_to("/dev/full")
        write_small(2)(directory)

    with pytest.raises(CheckpointError, match=r"No space left on device.*save_total_limit"):
        save_checkpoint(tmp_path, 2, write)
    assert newest_valid_checkpoint(tmp_path) == (tmp_path / "checkpoint-1", [])
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]


def test_failing_rename_puts_the_replaced_one_back(tmp_path, monkeypatch):
    path = save(tmp_path, 1)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CheckpointError, match="Input/output"):
        save(tmp_path, 1)
    monkeypatch.undo()
    verify_checkpoint(path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]


def test_everything_is_synced_before_it_is_published(tmp_path, monkeypatch):
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        events.append(f"rename {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    save(tmp_path, 1)
    save(tmp_path, 2, save_total_limit=1)
    events = events[events.index("rename checkpoint-1") + 2 :]
    published = events.index("rename checkpoint-2")
    files = {file.name for file in (tmp_path / "checkpoint-2").rglob("*")}
    assert files <= set(events[:published])
    assert events[published - 2 : published] == ["manifest.json", ".checkpoint-2.new"]
    assert events[published + 1 :] == [tmp_path.name, "rename .checkpoint-1.old"]


def test_second_run_on_a_directory_is_refused(tmp_path):
    with OutputDirectoryLock(tmp_path):
        with (
            pytest.raises(ValueError, match=rf"process {os.getpid()}.*another output_dir"),
            OutputDirectoryLock(tmp_path),
        ):
            pass
        with OutputDirectoryLock(tmp_path / "elsewhere"):
            pass
    with OutputDirectoryLock(tmp_path):
        pass


def test_deleting_the_lock_file_lets_no_second_run_in(tmp_path):
    with OutputDirectoryLock(tmp_path):
        (tmp_path / "run.lock").unlink()
        with pytest.raises(ValueError, match="Another run is writing"), OutputDirectoryLock(tmp_path):
            pass


def test_entering_clears_what_a_killed_run_left(tmp_path):
    for name in (".checkpoint-5.new", ".checkpoint-5.old", ".final.new"):
        (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / ".results.0123abcd.new.json").write_text("{")
    with OutputDirectoryLock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_lock_ends_with_its_process_though_a_child_lives_on(tmp_path):
    ready, write_end = os.pipe()

    def hold() -> None:
        with OutputDirectoryLock(tmp_path):
            grandchild = fork(lambda: time.sleep(30))
            os.write(write_end, f"{grandchild}\n".encode())
            time.sleep(30)

    child = fork(hold)
    grandchild = int(os.read(ready, 20))
    try:
        with pytest.raises(ValueError, match=f"process {child}"), OutputDirectoryLock(tmp_path):
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with OutputDirectoryLock(tmp_path):
            pass
    finally:
        os.kill(grandchild, signal.SIGKILL)
        os.close(ready)
        os.close(write_end)


def test_killed_writers_leave_a_valid_checkpoint(tmp_path):
    """Real SIGKILLs at random moments of a process that does nothing but save; the next run clears up and goes on."""
    generator = random.Random(0)
    for _ in range(8):
        reader, writer = os.pipe()

        def run(descriptor: int = writer) -> None:
            with OutputDirectoryLock(tmp_path):
                path, skipped = newest_valid_checkpoint(tmp_path)
                assert not skipped
                step = load_training_state(path)["step"] if path else 0
                while True:
                    step += 1
                    save_checkpoint(tmp_path, step, write_small(step), save_total_limit=2)
                    os.write(descriptor, f"{step}\n".encode())

        child = fork(run)
        os.close(writer)
        with os.fdopen(reader) as lines:
            published = int(lines.readline())  # on a busy machine the first one takes its time
            time.sleep(generator.random() * 0.2)
            os.kill(child, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            published = int([published, *lines.read().split()][-1])
        path, skipped = newest_valid_checkpoint(tmp_path)
        assert not skipped
        assert path is not None
        assert int(path.name.removeprefix("checkpoint-")) - published in (0, 1)
    with OutputDirectoryLock(tmp_path):
        assert not list(tmp_path.glob(".checkpoint-*"))
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(tmp_path: Path, place: int) -> None:
    """Between the two renames neither stands in its place, and the next start deleted both."""
    save(tmp_path, 4)
    real, count = os.rename, 0

    def counted(*arguments, **options) -> None:
        nonlocal count
        count += 1
        if count == place:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments, **options)

    def replace() -> None:
        os.rename = counted  # of the child alone
        save(tmp_path, 4)

    os.waitpid(fork(replace), 0)
    with OutputDirectoryLock(tmp_path):
        pass
    assert newest_valid_checkpoint(tmp_path) == (tmp_path / "checkpoint-4", [])


def test_a_lock_that_cannot_be_written_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk; the same process may try again."""

    def full(*arguments, **options) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            OutputDirectoryLock(tmp_path).__enter__()
    with OutputDirectoryLock(tmp_path):
        pass

"""Checkpoints on their way to the Hub while a run goes on; pushing itself is in tests/recipes/test_push_to_hub.py."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scratchgpt.hub import background_push
from scratchgpt.hub.background_push import BackgroundPush
from scratchgpt.hub.push import Pushed, PushError
from tests.runs import make_workplace, metrics, run_here

SECONDS = 20


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[str]]]:
    """What was pushed, by its message, with the names of its files; nothing goes anywhere."""
    found: list[tuple[str, set[str]]] = []

    def push(folder: Path, repo_id: str, *, commit_message: str, **_: object) -> Pushed:
        found.append((commit_message, {file.name for file in folder.rglob("*") if file.is_file()}))
        return Pushed(repo_id, "url", f"commit{len(found)}", True, 1, 0, 1)

    monkeypatch.setattr(background_push, "push", push)
    monkeypatch.setattr(background_push, "check_answers", lambda directory: None)
    return found


def checkpoint(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    (made / "training_state").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (made / "training_state" / "state.json").write_text("{}")
    return made


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_checkpoint_may_be_removed_while_it_is_pushed(tmp_path: Path, sent, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    pushing = BackgroundPush("me/model", True, None, None, lines.append)
    recorded, go_on = background_push.push, tmp_path / "go on"

    def slow(*arguments, **options) -> Pushed:
        wait_for(go_on.exists)
        return recorded(*arguments, **options)

    monkeypatch.setattr(background_push, "push", slow)
    first = checkpoint(tmp_path, 1)
    pushing.checkpoint(first)
    for file in sorted(first.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    wait_for(lambda: pushing._busy)
    pushing.checkpoint(checkpoint(tmp_path, 2))
    pushing.checkpoint(checkpoint(tmp_path, 3))  # before the second one's turn
    go_on.touch()
    pushing.finish(None, patience=SECONDS)
    assert sent == [(f"Training: checkpoint-{n}", {"config.json", "model.safetensors"}) for n in (1, 3)]
    assert lines[0] == (
        "On the Hub in me/model: checkpoint-1, checkpoint-3, the last as revision commit2. Not there: checkpoint-2 "
        "(a newer one came before its turn)."
    )
    assert not list(tmp_path.glob(".push*"))


def test_a_failure_is_one_line_and_the_next_is_tried(tmp_path: Path, sent, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    pushing = BackgroundPush("me/model", True, None, None, lines.append)
    works = background_push.push

    def fails(*_: object, **__: object) -> Pushed:
        raise PushError("the Hub has\na fault")

    monkeypatch.setattr(background_push, "push", fails)
    pushing.checkpoint(checkpoint(tmp_path, 1))
    wait_for(lambda: bool(lines))
    assert lines == ["checkpoint-1 is not on the Hub, and the run goes on: the Hub has a fault"]
    monkeypatch.setattr(background_push, "push", works)
    pushing.checkpoint(checkpoint(tmp_path, 2))
    pushing.finish(None, patience=SECONDS)
    assert lines[1].startswith("On the Hub in me/model: checkpoint-2,")
    assert "Not there: checkpoint-1" in lines[1]


def test_a_connection_that_hangs_is_left(tmp_path: Path, sent, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    pushing = BackgroundPush("me/model", True, None, None, lines.append)
    end = tmp_path / "end"
    monkeypatch.setattr(background_push, "push", lambda *_, **__: wait_for(end.exists))
    started = time.monotonic()
    pushing.checkpoint(checkpoint(tmp_path, 1))
    pushing.finish(None, patience=0.2)
    assert time.monotonic() - started < SECONDS / 2
    assert "The connection does not get on" in lines[0]
    end.touch()


def test_an_adapter_without_a_base_on_the_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hub_base_id"):
        BackgroundPush("me/adapter", True, str(tmp_path), None, print)
    BackgroundPush("me/adapter", True, str(tmp_path), "me/base", print)
    BackgroundPush("me/adapter", True, "me/base", None, print)


def test_a_run_pushes_and_is_the_same(tmp_path: Path, sent, capsys: pytest.CaptureFixture[str]) -> None:
    workplace = make_workplace(tmp_path)
    plain = run_here(workplace, "plain", save_steps=4)
    capsys.readouterr()
    pushed = run_here(workplace, "pushed", save_steps=4, save_total_limit=1, push_to_hub=True, hub_model_id="me/model")
    printed = capsys.readouterr().out
    assert [line["loss"] for line in metrics(pushed)] == [line["loss"] for line in metrics(plain)]
    assert sent[-1][0] == "Training: final"
    assert "Training: checkpoint-4" in [message for message, _ in sent]
    assert all("model.safetensors" in files and "state.json" not in files for _, files in sent)
    assert re.search(r"On the Hub in me/model: checkpoint-4, .*final, the last as revision commit\d", printed)


def test_a_run_without_a_network_ends_as_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here the client is offline; see conftest."""
    output = run_here(make_workplace(tmp_path), "run", push_to_hub=True)
    printed = capsys.readouterr().out
    assert (output / "final" / "model.safetensors").is_file()
    assert "is not on the Hub, and the run goes on: " in printed
    assert "HF_HUB_OFFLINE is set" in printed
    assert re.search(r"On the Hub in run: nothing. Not there: .*final \(see above\)", printed)

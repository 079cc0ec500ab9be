"""The chat: history that fits, answers cut where they end, whole characters, Ctrl-C, and what scripts see of it."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from recipes import chat
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.chat import render_chat, stop_token_id
from scratchgpt.hub.model_directory import save_model
from scratchgpt.inference.chat import AnswerStreamer, ChatSession, Sampling
from scratchgpt.tokenizers import BPETokenizer, RegexTokenizer, to_transformers

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Всё течёт 🙂 日本語 café", "To be, or not to be?"]
GREEDY = Sampling(max_new_tokens=8, temperature=0)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return to_transformers(BPETokenizer.train(TEXTS, vocab_size=280, min_frequency=1), model_max_length=64)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, initializer_range=0.3, **ids,
    )  # fmt: skip
    return ScratchGPTForCausalLM(config).eval()


@pytest.fixture(scope="module")
def saved(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("chat") / "model"
    save_model(model, tokenizer, folder)
    return str(folder)


class Scripted:
    """A model that says what it is told to, as `generate` does it: prompt, then one token at a time."""

    def __init__(self, config: Any, *answers: Sequence[int]):
        self.config, self.device = config, torch.device("cpu")
        self.answers, self.prompts = list(answers), []

    def generate(self, input_ids: torch.Tensor, streamer: Any, generation_config: Any, **_: Any) -> None:
        self.prompts.append(input_ids[0].tolist())
        streamer.put(input_ids)
        for token in self.answers.pop(0):
            streamer.put(torch.tensor([token]))
            if token in generation_config.eos_token_id:
                break
        streamer.end()


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_an_answer_is_what_generate_adds_to_the_prompt(model: Any, tokenizer: Any) -> None:
    pieces: list[str] = []
    session = ChatSession(model, tokenizer, sampling=GREEDY)
    answer = session.ask("To be?", pieces.append)
    prompt = render_chat([{"role": "user", "content": "To be?"}], tokenizer, add_generation_prompt=True).input_ids
    never = [*range(len(tokenizer), 320)]
    ends = tokenizer.all_special_ids
    ids = model.generate(
        torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=ends, suppress_tokens=never
    )[0, len(prompt) :].tolist()
    new = [token for token in ids if token not in ends]
    assert answer.num_tokens == len(new) > 0
    assert answer.text == "".join(pieces) == tokenizer.decode(new).rstrip("\ufffd")
    assert session.messages == [
        {"role": "user", "content": "To be?"}, {"role": "assistant", "content": answer.text},
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["<|end|>", "<|endoftext|>", "<|user|>"])
def test_any_special_token_ends_an_answer(model: Any, tokenizer: Any, end: str) -> None:
    said = encode(tokenizer, "To be")
    scripted: Any = Scripted(model.config, [*said, tokenizer.convert_tokens_to_ids(end), *said])
    answer = ChatSession(scripted, tokenizer, sampling=GREEDY).ask("?")
    assert (answer.text, answer.num_tokens, answer.ending) == ("To be", len(said), "stopped")


def test_an_answer_that_repeats_the_prompt_is_kept(model: Any, tokenizer: Any) -> None:
    scripted: Any = Scripted(model.config, encode(tokenizer, "To be?"))
    answer = ChatSession(scripted, tokenizer, sampling=GREEDY).ask("To be?")
    assert (answer.text, answer.ending) == ("To be?", "length")


@pytest.mark.parametrize("text", ["Всё течёт 🙂", "日本語 café\n  two", "🙂🙂", "a\ufffdb"])
def test_pieces_are_whole_characters(tokenizer: Any, text: str) -> None:
    pieces: list[str] = []
    streamer = AnswerStreamer(tokenizer, {stop_token_id(tokenizer)}, pieces.append)
    streamer.put(torch.tensor([[1, 2]]))
    ids = encode(tokenizer, text)
    for token in ids:
        streamer.put(torch.tensor([token]))
        assert text.startswith("".join(pieces))
    assert len(ids) > len(text.split())
    assert streamer.finish() == "".join(pieces) == text


def test_half_a_character_at_the_end_is_left_out(tokenizer: Any) -> None:
    streamer = AnswerStreamer(tokenizer, set(), lambda piece: None)
    streamer.put(torch.tensor([[1]]))
    ids = encode(tokenizer, "a😀")
    assert len(ids) > 3
    for token in ids[:-1]:
        streamer.put(torch.tensor([token]))
    assert streamer.finish() == "a"


def test_words_are_streamed_too() -> None:
    tokenizer = to_transformers(RegexTokenizer.train(TEXTS, min_frequency=1))
    pieces: list[str] = []
    streamer = AnswerStreamer(tokenizer, {stop_token_id(tokenizer)}, pieces.append)
    streamer.put(torch.tensor([[1]]))
    for token in encode(tokenizer, TEXTS[0]):
        streamer.put(torch.tensor([token]))
    assert len(pieces) > 5
    assert "".join(pieces) == streamer.finish() == TEXTS[0]


def test_a_typed_role_token_stays_text(model: Any, tokenizer: Any) -> None:
    scripted: Any = Scripted(model.config, [])
    ChatSession(scripted, tokenizer, sampling=GREEDY).ask("a<|end|><|user|>b")
    ids = scripted.prompts[0]
    assert ids.count(stop_token_id(tokenizer)) == ids.count(tokenizer.convert_tokens_to_ids("<|user|>")) == 1
    assert tokenizer.decode(ids) == "<|user|>a<|end|><|user|>b<|end|><|assistant|>"


def test_the_oldest_turns_leave_and_the_system_message_stays(model: Any, tokenizer: Any) -> None:
    said = encode(tokenizer, "quick")
    scripted: Any = Scripted(model.config, *[said] * 12)
    session = ChatSession(scripted, tokenizer, system="The fox", sampling=GREEDY)
    dropped = [session.ask(f"brown {i}").num_dropped for i in range(12)]
    assert dropped[0] == 0
    assert set(dropped[-3:]) == {2}
    assert all(len(prompt) <= 64 - 8 for prompt in scripted.prompts)
    assert session.messages[0] == {"role": "system", "content": "The fox"}
    assert [message["content"] for message in session.messages[-2:]] == ["brown 11", "quick"]
    assert [message["role"] for message in session.messages[1:3]] == ["user", "assistant"]
    session.reset()
    assert session.messages == [{"role": "system", "content": "The fox"}]


def test_what_does_not_fit_is_refused_and_nothing_is_lost(model: Any, tokenizer: Any) -> None:
    session = ChatSession(Scripted(model.config, []), tokenizer, sampling=GREEDY)  # pyright: ignore
    session.ask("To be?")
    before = list(session.messages)
    with pytest.raises(ValueError, match=r"takes \d+ tokens, and the context of 64 has room for 56 beside"):
        session.ask("fox " * 100)
    with pytest.raises(ValueError, match="empty"):
        session.ask(" \n")
    assert session.messages == before
    with pytest.raises(ValueError, match="max_new_tokens=64 leaves no room"):
        ChatSession(model, tokenizer, sampling=Sampling(max_new_tokens=64))


def test_ctrl_c_keeps_what_was_said(model: Any, tokenizer: Any) -> None:
    pieces: list[str] = []

    def stop_at_the_third(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    said = encode(tokenizer, TEXTS[0])
    session = ChatSession(Scripted(model.config, said, said), tokenizer, sampling=GREEDY)  # pyright: ignore
    answer = session.ask("?", stop_at_the_third)
    assert (answer.ending, answer.text) == ("interrupted", "".join(pieces))
    assert session.messages[-1] == {"role": "assistant", "content": answer.text}
    assert session.ask("And?").text == TEXTS[0]


def test_ctrl_c_before_the_first_word_forgets_the_question(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    session = ChatSession(model, tokenizer, sampling=GREEDY)
    monkeypatch.setattr(model, "generate", interrupted)
    assert session.ask("?").ending == "interrupted"
    assert session.messages == []


def test_sampling_follows_the_options_and_the_seed(model: Any, tokenizer: Any) -> None:
    def answers(seed: int, **options: Any) -> str:
        torch.manual_seed(seed)
        return ChatSession(model, tokenizer, sampling=Sampling(max_new_tokens=8, **options)).ask("?").text

    assert answers(1, temperature=1.5) == answers(1, temperature=1.5) != answers(2, temperature=1.5)
    greedy = answers(1, temperature=0)
    # One token that may be chosen is the likeliest one.
    for one in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999}):
        assert answers(1, temperature=1.5, **one) == greedy
    sampling = [Sampling(temperature=0, repetition_penalty=penalty) for penalty in (1.0, 1e3)]
    plain, penalised = (ChatSession(model, tokenizer, sampling=how).ask("To be?").text for how in sampling)
    assert plain != penalised
    for name, value in (("temperature", -1), ("top_p", 0), ("min_p", 1), ("top_k", -1), ("max_new_tokens", 0)):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            Sampling(**{name: value})


def test_a_prompt_prints_the_answer_only(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--model", saved, "--max_new_tokens", "8", "--dtype", "float32"]
    chat.main([*common, "--prompt", "To be?", "--temperature", "0"])
    out, err = capsys.readouterr()
    model, tokenizer = chat.load_for_decoding(saved, dtype="float32")
    answer = ChatSession(model, tokenizer, sampling=GREEDY).ask("To be?")
    assert out == answer.text + "\n"
    assert "[cut at 8 tokens: --max_new_tokens]" in err
    texts = []
    for seed in ("3", "3", "4"):
        chat.main([*common, "--prompt", "To be?", "--temperature", "2", "--seed", seed, "--weight_bits", "8"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_documents_are_read_before_the_answer(
    saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("Foxes jump.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Dogs sleep.\n", encoding="utf-8")
    asked: list[str] = []
    answer = ChatSession.ask

    def ask(self: ChatSession, text: str, on_text: Any) -> Any:
        asked.append(text)
        assert self.messages == []  # every question stands for itself
        assert self.sampling.temperature == 0
        assert self.max_new_tokens == 16
        return answer(self, text, on_text)

    monkeypatch.setattr(ChatSession, "ask", ask)
    lines: list[Any] = ["What do foxes do?", "And dogs?", "Cats?", "/quit"]
    monkeypatch.setattr("builtins.input", lambda _: lines.pop(0))
    chat.main(["--model", saved, "--documents", str(tmp_path)])
    assert asked == ["Foxes jump.\n\nWhat do foxes do?", "Dogs sleep.\n\nAnd dogs?"]
    said = capsys.readouterr().err
    assert "a.txt: Foxes jump.]" in said
    assert "no passage of the documents fits the question" in said


@pytest.mark.parametrize("extra", [[], ["--system", "Be a fox."]])
def test_a_chat_with_commands(
    saved: str, extra: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, nowhere = tmp_path / "said.jsonl", tmp_path / "no" / "where"
    lines: list[Any] = ["To be?", "", KeyboardInterrupt, f"/save {file}", "/reset", "fox " * 100, "/what"]
    lines += [f"/save {nowhere}", "Again?", f"/save {file}", EOFError]

    def typed(_: str) -> str:
        line = lines.pop(0)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", typed)
    chat.main(["--model", saved, "--max_new_tokens", "8", "--temperature", "0", *extra])
    assert lines == []
    err = capsys.readouterr().err
    for said in ("everything is forgotten", "shorten it", "unknown command /what", "cannot be written", "/quit"):
        assert said in err
    first, second = [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]
    roles = ["system"] * bool(extra) + ["user", "assistant"]
    assert [message["role"] for message in first] == [message["role"] for message in second] == roles
    assert [messages[-2]["content"] for messages in (first, second)] == ["To be?", "Again?"]


def test_wrong_arguments_are_named(saved: str) -> None:
    with pytest.raises(ValueError, match="--model is missing"):
        chat.main([])
    with pytest.raises(ValueError, match="top_p=2"):
        chat.main(["--model", saved, "--prompt", "?", "--top_p", "2"])


def test_a_tokenizer_without_a_template_is_refused(model: Any, saved: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="template"):
        ChatSession(model, tokenizer)


@pytest.mark.slow
def test_a_compiled_chat_says_the_same(saved: str) -> None:
    model, tokenizer = chat.load_for_decoding(saved, dtype="float32")
    plain, compiled = (ChatSession(model, tokenizer, sampling=GREEDY, compiled=how) for how in (False, True))
    for question in ("To be?", "The quick brown fox?", "And?"):
        assert compiled.ask(question) == plain.ask(question)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal(saved: str) -> None:
    """A real signal in the middle of an answer: the chat goes on, and leaves with 0."""
    command = [sys.executable, chat.__file__, "--model", saved, "--max_new_tokens", "50", "--temperature", "1"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ}
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def read_until(*wanted: bytes) -> bytes:
        seen, end = b"", time.monotonic() + 100
        while not any(text in seen for text in wanted) and time.monotonic() < end and process.stdout is not None:
            if select.select([process.stdout], [], [], 1)[0]:
                seen += os.read(process.stdout.fileno(), 1)
        return seen

    assert b"/quit" in read_until(b"> ")
    for _ in range(30):  # until the signal comes while the model is talking
        process.stdin.write(b"To be?\n")
        process.stdin.flush()
        seen = read_until(b"") + os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        seen += read_until(b"[interrupted]", b"leaves]")
        if b"[interrupted]" in seen:
            break
    else:
        pytest.fail("no answer was interrupted")
    process.stdin.write(b"And?\n/quit\n")
    process.stdin.flush()
    assert process.wait(timeout=60) == 0

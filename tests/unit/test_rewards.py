"""Rewards of the package by hand, and functions of the user's that do whatever such functions do."""

from pathlib import Path

import pytest

from scratchgpt.data.prompts import Prompt
from scratchgpt.evaluation.rewards import RewardError, Rewards, exact_match, number_match

FUNCTIONS = """
import math, os, sys, time

def length(prompt, answer, row):
    print("seen", answer)          # must not disturb what is said to the run
    return len(answer) * row["factor"]

def is_five(prompt, answer, row):
    return answer == "5"           # a bool is a number

def raises(prompt, answer, row):
    return row["missing"]

def hangs(prompt, answer, row):
    while True:
        pass

def sleeps(prompt, answer, row):
    time.sleep(60)

def none(prompt, answer, row):
    pass

def nan(prompt, answer, row):
    return math.nan

def infinite(prompt, answer, row):
    return -math.inf

def text(prompt, answer, row):
    return "1"

def many(prompt, answer, row):
    return [1, 2]

def exits(prompt, answer, row):
    sys.exit(3)

def dies(prompt, answer, row):
    os._exit(7)
"""


def prompt(question: str = "What is 2 + 3?", **row: object) -> Prompt:
    return Prompt([{"role": "user", "content": question}], {"answer": "5", "factor": 2, **row})


@pytest.fixture
def my_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(FUNCTIONS)
    (tmp_path / "broken_rewards.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("answer", "right", "exact", "number"),
    [
        ("5", "5", 1, 1),
        (" 5 \n", "5", 1, 1),
        ("It is 5.", "5", 0, 1),
        ("5, or 6", "5", 0, 0),
        ("-5", "5", 0, 0),
        ("5.0", "5", 0, 1),
        ("about 1,000", "It is\n#### 1000", 0, 1),
        ("", "5", 0, 0),
        ("five", "5", 0, 0),
    ],
)
def test_rewards_of_the_package(answer: str, right: str, exact: int, number: int) -> None:
    assert exact_match("?", answer, {"answer": right}) == exact
    assert number_match("?", answer, {"answer": right}) == number


def test_the_weighted_sum() -> None:
    rewards = Rewards(["number_match=2", "format=0.5"], pattern=r"It is \d+\.")
    found = rewards([prompt()] * 4, ["It is 5.", "5", "It is 6.", "It is 5. Or not."])
    assert found.tolist() == [2.5, 2, 0.5, 2]
    other = Rewards(["number_match=2", "format=0.25"], pattern=r"It is \d+\.")
    assert rewards.fingerprint() != other.fingerprint()


def test_a_function_of_the_users(my_rewards: None, tmp_path: Path) -> None:
    rewards = Rewards(["my_rewards:length", "my_rewards:is_five=10"])
    assert rewards([prompt(), prompt(factor=3)], ["abc", "5"]).tolist() == [6, 13]
    assert rewards([prompt()] * 3000, ["abc" * 20] * 3000).sum() == 3000 * 120  # more than a pipe holds
    before = rewards.fingerprint()
    rewards.close()
    (tmp_path / "my_rewards.py").write_text(FUNCTIONS + "\n# changed")
    again = Rewards(["my_rewards:length", "my_rewards:is_five=10"])
    assert again.fingerprint() != before
    again.close()


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (
            "raises",
            r"my_rewards:raises raised KeyError: 'missing' \(my_rewards.py, line 12\) for the answer '7' to 'Wh",
        ),
        ("hangs", r"my_rewards:hangs took more than 0.5 s for the answer '7' to 'What is 2 \+ 3\?'"),
        ("sleeps", "my_rewards:sleeps took more than 0.5 s"),
        ("none", "my_rewards:none returned None, not a number for the answer '7'"),
        ("nan", "my_rewards:nan returned nan for the answer '7'"),
        ("infinite", "my_rewards:infinite returned -inf for the answer '7'"),
        ("text", "my_rewards:text returned '1', not a number"),
        ("many", r"my_rewards:many returned \[1, 2\], a list, not a number"),
        ("exits", "my_rewards:exits ended its process with exit code 3"),
        ("dies", "my_rewards:dies ended its process with exit code 7"),
    ],
)
def test_what_gives_no_number_is_named_in_one_line(my_rewards: None, function: str, complaint: str) -> None:
    rewards = Rewards([f"my_rewards:{function}"], limit=0.5)
    with pytest.raises(RewardError, match=complaint) as raised:
        rewards([prompt()], ["7"])
    assert "\n" not in str(raised.value)
    (worker,) = rewards.workers.values()
    worker.process.wait(10)  # nothing is left behind


def test_what_cannot_be_a_reward(my_rewards: None) -> None:
    for names, complaint in (
        ([], "reward is empty"),
        (["right"], "reward=right is unknown"),
        (["my_rewards:"], "reward=my_rewards: is unknown"),
        (["my_rewards:of_no_name"], "my_rewards has no function of_no_name"),
        (
            ["broken_rewards:length"],
            "broken_rewards:length cannot be imported: ModuleNotFoundError: No module named 'nothing",
        ),
        (["exact_match=nan"], "the weight after = must be a number"),
        (["format"], "needs --answer_format"),
    ):
        with pytest.raises(ValueError, match=complaint):
            Rewards(names)
    with pytest.raises(ValueError, match="is no regular expression"):
        Rewards(["format"], pattern="(")
    with pytest.raises(ValueError, match="no other needs it"):
        Rewards(["exact_match"], pattern=".*")
    with pytest.raises(ValueError, match=r"here: 1 questions have no answer that exact_match could compare with"):
        Rewards(["exact_match"]).check([prompt(), Prompt(prompt().messages, {})], "here")

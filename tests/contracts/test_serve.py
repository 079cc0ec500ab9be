"""`transformers serve` with a model of ours: one request over loopback, to the interface of OpenAI."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from scratchgpt import ScratchGPTForCausalLM, ScratchGPTTokenizer
from scratchgpt.hub.model_directory import save_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SERVE = Path(__file__).resolve().parents[2] / "recipes" / "serve.py"


def request(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON answer to a GET, or to a POST of `body`; straight to the address, whatever proxies are set."""
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    message = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with opener.open(message, timeout=120) as answer:
        return json.load(answer)


def test_a_chat_is_served(make_config: Any, tokenizer: ScratchGPTTokenizer, tmp_path: Path) -> None:
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name, reason="needs the extra [serve]")
    model = ScratchGPTForCausalLM(make_config("modern")).eval()
    save_model(model, tokenizer, tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVE), str(tmp_path / "model"), "--device", "cpu", "--host", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port)], env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(150):
            assert process.poll() is None, "the server ended"
            try:
                request(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(1)
        messages = [{"role": "user", "content": "To be?"}]
        body = {"model": str(tmp_path / "model"), "messages": messages, "max_tokens": 8, "temperature": 0}
        answer = request(f"http://127.0.0.1:{port}/v1/chat/completions", body)
    finally:
        process.terminate()
        process.wait(timeout=30)
    prompt: Any = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt["input_ids"].shape[1], len(said))
    assert answer["choices"][0]["message"]["content"] == tokenizer.decode(said, skip_special_tokens=True)

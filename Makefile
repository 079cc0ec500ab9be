# Every target sets up what it needs in .venv by itself; nothing but Python 3.11+, pip and make is expected.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# Two test processes with one thread each: more threads than cores make small models slower, not faster.
WORKERS ?= 2

# Everything that make demo writes.
DEMO := runs/demo

# What make reports reads, and what it writes. SIZE=gpu takes recipes/configs/*/reports_gpu.yaml.
REPORTS ?=
SIZE ?=
GPT2 ?= openai-community/gpt2
RUN := runs/reports
DEVICE := $(if $(filter gpu,$(SIZE)),--device cuda)

TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help demo reports test test-newest test-oldest test-versions lint format bench bench-gpu clean

help:
	@echo "make demo     tokenizer, base model, classifier, chat model, from the documentation of Python: ten to twenty minutes"
	@echo "make reports  three models that know the PDFs in a folder, compared: make reports REPORTS=folder (docs/reports.md)"
	@echo "make test     the test suite (PYTEST='-m slow' and the like are passed on)"
	@echo "make test-newest, test-oldest   the tests on the newest and the oldest versions that pyproject.toml allows"
	@echo "make test-versions   the tests on many versions of transformers; writes docs/versions.md"
	@echo "make lint     ruff, pyright, transformers-mlinter"
	@echo "make format   let ruff rewrite the files"
	@echo "make bench    measure against the peers and rewrite the results in README.md"
	@echo "make bench-gpu   on one NVIDIA GPU: the tests that are about it, then its speed and memory (NANOGPT=model.py)"
	@echo "make clean    remove .venv and caches"

# torch comes first and alone: its version is settled before anything else can ask for one with gigabytes of CUDA.
.venv/torch.stamp: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt "$(TORCH)"
	@touch $@

.venv/run.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/reports.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) install -c constraints.txt -e '.[pdf,eval]'
	@touch $@

.venv/dev.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

.venv/bench.stamp: .venv/dev.stamp
	$(PIP) install -c constraints.txt -e '.[dev,bench]'
	$(PIP) install -c constraints.txt --no-deps litgpt
	@touch $@

# Run again after an interruption, it goes on; rm -r runs/demo starts anew.
demo: .venv/run.stamp
	@test -d $(DEMO)/options || $(BIN)/python -m scratchgpt.training.demo_time $(DEMO)/options \
		recipes/configs/pretrain/demo.yaml recipes/configs/finetune_instruct/demo.yaml
	@test -d $(DEMO)/data || $(BIN)/python data_builders/python_docs.py --output_dir $(DEMO)/data
	@test -d $(DEMO)/tokenizer || $(BIN)/python recipes/train_tokenizer.py recipes/configs/train_tokenizer/demo.yaml
	@test -f $(DEMO)/base/results.json || $(BIN)/python recipes/pretrain.py recipes/configs/pretrain/demo.yaml \
		$$(cat $(DEMO)/options/pretrain) --resume_from_checkpoint true
	@test -f $(DEMO)/evaluation/results.json || $(BIN)/python recipes/evaluate.py --model $(DEMO)/base/final \
		--text $(DEMO)/data/text --train_text $(DEMO)/data/text --output_dir $(DEMO)/evaluation
	@grep -qs evaluated_on $(DEMO)/classifier/results.json || $(BIN)/python recipes/finetune_classifier.py \
		recipes/configs/finetune_classifier/demo.yaml --resume_from_checkpoint true
	@test -f $(DEMO)/chat/responses.json || $(BIN)/python recipes/finetune_instruct.py \
		recipes/configs/finetune_instruct/demo.yaml $$(cat $(DEMO)/options/finetune_instruct) \
		--resume_from_checkpoint true
	@test -f $(DEMO)/passages/comparison.md || $(BIN)/python recipes/evaluate.py --suite passages \
		--model $(DEMO)/base/final --model $(DEMO)/chat/final --data $(DEMO)/data/passages --split test \
		--count 600 --max_new_tokens 48 --batch_size 64 --output_dir $(DEMO)/passages
	@$(BIN)/python recipes/results_page.py --run_dir $(DEMO)/base --data $(DEMO)/data/text \
		--evaluation_dir $(DEMO)/evaluation --classifier_dir $(DEMO)/classifier --chat_dir $(DEMO)/chat \
		--passages_dir $(DEMO)/passages --output $(DEMO)/RESULTS.md

# The same; rm -r runs/reports starts anew. pdf_reports.py ends with 3 where it skipped a file, and has said which.
reports: .venv/reports.stamp
	@! test -f $(RUN)/asked || echo "$(REPORTS) $(SIZE)" | cmp -s - $(RUN)/asked || \
		{ echo "$(RUN) is of REPORTS, SIZE = $$(cat $(RUN)/asked): rm -r $(RUN) starts anew"; exit 2; }
	@test -d $(RUN)/data/passages || $(BIN)/python data_builders/pdf_reports.py --source $(REPORTS) \
		--output_dir $(RUN)/data --overwrite true || test $$? = 3
	@echo "$(REPORTS) $(SIZE)" > $(RUN)/asked
	@test -d $(RUN)/chats || $(BIN)/python data_builders/instructions.py --source $(RUN)/data --output_dir $(RUN)/chats
	@set -e; for model in words bpe; do here=$(RUN)/$$model; \
		test -d $$here/tokenizer || $(BIN)/python recipes/train_tokenizer.py \
			recipes/configs/train_tokenizer/reports_$$model.yaml; \
		test -f $$here/base/results.json || $(BIN)/python recipes/pretrain.py \
			recipes/configs/pretrain/reports$(SIZE:%=_%).yaml --tokenizer $$here/tokenizer \
			--output_dir $$here/base --resume_from_checkpoint true; \
		test -f $$here/chat/results.json || $(BIN)/python recipes/finetune_instruct.py \
			recipes/configs/finetune_instruct/reports$(SIZE:%=_%).yaml --model_name_or_path $$here/base/final \
			--output_dir $$here/chat --resume_from_checkpoint true; \
	done
	@test -d $(RUN)/gpt2/base/final || $(BIN)/python recipes/import_gpt2.py --model_name_or_path $(GPT2) \
		--output_dir $(RUN)/gpt2/base/final || \
		{ test $$? = 2 && echo "The table is without GPT-2: GPT2=folder names its weights."; }
	@! test -d $(RUN)/gpt2/base/final || test -f $(RUN)/gpt2/chat/results.json || $(BIN)/python \
		recipes/finetune_instruct.py recipes/configs/finetune_instruct/reports_gpt2.yaml --resume_from_checkpoint true
	@$(BIN)/python recipes/evaluate.py $$(printf -- '--model %s ' $(RUN)/*/base/final $(RUN)/*/chat/final) \
		--suite answers --data $(RUN)/chats --split test $(DEVICE) $(BERTSCORE:%=--bertscore_model %) \
		--output_dir $(RUN)/evaluation
	@set -e; for answers in $(if $(JUDGE),$(RUN)/evaluation/*/answers.jsonl); do $(BIN)/python recipes/judge.py \
		--answers $$answers --judge $(JUDGE) $(DEVICE) --output_dir $$(dirname $$answers)/judge; done
	@$(if $(JUDGE),$(BIN)/python -m scratchgpt_cli compare $$(dirname $(RUN)/evaluation/*/answers.jsonl) \
		--output $(RUN)/evaluation)
	@echo "The table: $(RUN)/evaluation/comparison.md"

test: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST)

# The versions that pip resolves today, whatever constraints.txt says; torch stays (see above).
.venv-newest/stamp: always
	@test -d .venv-newest || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip -q install "$(TORCH)"
	.venv-newest/bin/pip -q install --upgrade --upgrade-strategy eager "$(TORCH)" -e '.[dev]'
	@touch $@

# Exactly the lower bounds.
.venv-oldest/stamp: pyproject.toml constraints.txt .ci/lowest_versions.py
	$(PYTHON) -m venv --clear .venv-oldest
	$(PYTHON) .ci/lowest_versions.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip -q install "$(TORCH)"
	.venv-oldest/bin/pip -q install -c .venv-oldest/constraints.txt "$(TORCH)" -e '.[dev]'
	@touch $@

# One version of transformers, and what is newest beside it.
.venv-transformers-%/stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-transformers-$*
	.venv-transformers-$*/bin/pip -q install "$(TORCH)"
	.venv-transformers-$*/bin/pip -q install "$(TORCH)" "transformers==$*" -e '.[dev]'
	@touch $@

.PHONY: always
test-newest test-oldest: test-%: .venv-%/stamp
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n $(WORKERS) $(PYTEST)

VERSIONS := oldest transformers-5.10.4 transformers-5.16.1 transformers-5.19.0 transformers-5.20.2 \
	transformers-5.23.0 transformers-5.24.0 newest
test-versions: $(VERSIONS:%=.venv-%/stamp)
	$(PYTHON) .ci/versions.py $(VERSIONS:%=.venv-%/bin/python)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python .ci/lint_hub_files.py

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/bench.stamp
	$(BIN)/python benchmarks/tokenization.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/model.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/tuning_memory.py
	$(BIN)/python benchmarks/preferences.py
	$(BIN)/python benchmarks/learning.py
	$(BIN)/python benchmarks/classification.py
	$(BIN)/python benchmarks/report.py

# On one NVIDIA GPU, with the python that has its torch; below ten minutes.
bench-gpu:
	CUDA_VISIBLE_DEVICES=0 PYTHONPATH=src $(PYTHON) -m pytest -m gpu
	PYTHONPATH=src $(PYTHON) benchmarks/gpu.py $(if $(NANOGPT),--nanogpt $(NANOGPT))

clean:
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .hypothesis build dist

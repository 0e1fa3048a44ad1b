# make demo · make doctor · make test · make fast-test · make unit-tests · make workflow-tests · make checkout-tests · make long-tests · make environment-tests · make dgl-tests · make lint · make format · make fuzz · make slurm-test · make slurm-soak · make hours · make hcrl_sa DATA=… · make seeds DATA=… · make folds DATA=… · make leaderboard DATA=… · make sweep · make cross-vehicle · make fusion-ablation · make score CAPTURE=… RUN=… · make follow SOURCE=… RUN=… · make enrol CAPTURE=… PROFILE=… · make manifest DIR=… · make track · make mlflow-ui · make new-pipeline NAME=… · make new-module NAME=… · make resources · make bench · make docs · make rulegraph · make readme-results · make lock · make clean

PYTHON ?= python3
# For CPU builds of torch where the default index serves CUDA builds: make demo TORCH_INDEX=<index of CPU wheels>
TORCH_INDEX ?=
# Python compiles what is imported when it is; pip would compile all 20,000 files, which takes longer than to unpack them.
PIP_ARGS = --quiet --disable-pip-version-check --no-compile --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# A relative path, and `python -m` in place of commands: the checkout's own path may hold blanks and quotes.
BIN = .venv/bin
RUN_MODULE = $(BIN)/python -m
SNAKEMAKE = $(RUN_MODULE) snakemake --profile shared/profiles/local $(PROGRESS)
# A value as one word of the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
# A live view on a terminal, elsewhere one line per finished job; MAKE_TERMERR is set (since make 4.1) if messages go to a terminal.
PROGRESS = --logger $(if $(MAKE_TERMERR),rich,lines)
SOURCES = shared modules tests bench examples conftest.py
SNAKEFILES = $(wildcard modules/*/Snakefile pipelines/*/Snakefile examples/own_detector/Snakefile examples/own_detector/*/Snakefile)
# Files that a Snakefile includes, and the example that takes its modules by URL.
PARTS = $(wildcard modules/*/*.smk) examples/preprocess_by_url/Snakefile
# The packages of the examples are not installed.
LINT = PYTHONPATH="examples/own_detector:$$PYTHONPATH" $(RUN_MODULE) snakemake --lint

# Without a target: the chores, as the first line of this file lists them.
help:
	@sed -n '1{s/^# //;s/ · /\n/g;p}' $(call quoted,$(strip $(MAKEFILE_LIST)))

.PHONY: help demo test unit-tests workflow-tests checkout-tests long-tests slurm-test slurm-soak slurm-packages environment-tests dgl-tests fast-test fuzz lint types snakefiles format hcrl_sa folds leaderboard seeds hours sweep cross-vehicle fusion-ablation score follow enrol doctor manifest track mlflow-ui resources bench docs rulegraph readme-results new-pipeline new-module lock clean
.DELETE_ON_ERROR:

# The main job on the built-in simulated vehicles; OPTIONS='--config preset=smoke' for a look at the chain alone.
demo: .venv/runtime
	$(SNAKEMAKE) -s pipelines/kd_fusion/Snakefile $(OPTIONS)
	@cat results/simulated/summary/results.md
	@echo
	@echo "Report: results/simulated/summary/report.html"

# The main job on real captures: DATA is the folder that holds hcrl_sa/.
hcrl_sa: .venv/runtime
	@test -n $(call quoted,$(DATA)) || { echo "make hcrl_sa DATA=FOLDER: FOLDER holds hcrl_sa/ with train_*/*.csv and test_*/*.csv" >&2; exit 1; }
	@test -d $(call quoted,$(DATA)/hcrl_sa) || { echo "no folder "$(call quoted,$(DATA)/hcrl_sa)": set DATA to the folder that holds hcrl_sa/" >&2; exit 1; }
	$(SNAKEMAKE) -s pipelines/kd_fusion/Snakefile --configfile pipelines/kd_fusion/hcrl_sa.yaml --config $(call quoted,data_root=$(DATA))
	@cat results/hcrl_sa/summary/results.md

# Where choices are made: folds of the real training captures (attacks and vehicles left out), three seeds each.
folds: .venv/runtime
	@test -d $(call quoted,$(DATA)/hcrl_sa) || { echo "no folder "$(call quoted,$(DATA)/hcrl_sa)": make folds DATA=FOLDER, which holds hcrl_sa/" >&2; exit 1; }
	$(SNAKEMAKE) -s pipelines/kd_fusion/Snakefile --configfile pipelines/kd_fusion/hcrl_sa.yaml pipelines/kd_fusion/hcrl_sa_folds.yaml --config $(call quoted,data_root=$(DATA)) -- all_folds
	@cat results/hcrl_sa/folds/results.md

# All methods on vehicles and kinds of attack never met, three seeds: DATA holds hcrl_sa/, ctt_a/, ctt_c/ and benign/, or a folder
# leaderboard/ with a manifest of its own, such as tests/data (OPTIONS=preset=smoke).
leaderboard: .venv/runtime
	@test -d $(call quoted,$(DATA)/hcrl_sa) -o -f $(call quoted,$(DATA)/leaderboard/manifest.yaml) || { echo "no folder "$(call quoted,$(DATA)/hcrl_sa)": make leaderboard DATA=FOLDER, which holds hcrl_sa/, ctt_a/, ctt_c/ and benign/, or leaderboard/manifest.yaml" >&2; exit 1; }
	$(SNAKEMAKE) -s pipelines/leaderboard/Snakefile --config 'datasets=[leaderboard]' $(call quoted,data_root=$(DATA)) $(OPTIONS)
	@awk '/^## /{shown = $$0 == "## In short"} shown' results/leaderboard/leaderboard/leaderboard.md
	@echo "The whole table: results/leaderboard/leaderboard/leaderboard.md and .html"

# The main job on hours of simulated driving: false alarms an hour, detection delay over many episodes.
hours: .venv/runtime
	$(SNAKEMAKE) -s pipelines/kd_fusion/Snakefile --config 'datasets=[simulated_hours]'
	@cat results/simulated_hours/summary/results.md

# The main job on the real captures with two more seeds, into one table.
seeds: .venv/runtime
	@test -d $(call quoted,$(DATA)/hcrl_sa) || { echo "no folder "$(call quoted,$(DATA)/hcrl_sa)": make seeds DATA=FOLDER, which holds hcrl_sa/" >&2; exit 1; }
	$(SNAKEMAKE) -s pipelines/kd_fusion/Snakefile --configfile pipelines/kd_fusion/hcrl_sa.yaml pipelines/kd_fusion/hcrl_sa_seeds.yaml --config $(call quoted,data_root=$(DATA))
	$(RUN_MODULE) canids_evaluate.compare --markdown results/hcrl_sa/window_baselines experimentruns/hcrl_sa/eval_large experimentruns/hcrl_sa/eval_small_kd experimentruns/hcrl_sa/eval_small_nokd experimentruns/hcrl_sa/eval_*@seed-*

# Options of one stage over a table or a space of points, compared on `select`; OPTIONS='--configfile FILE' names another sweep.
sweep: .venv/runtime
	$(SNAKEMAKE) -s pipelines/sweep/Snakefile $(OPTIONS)

# One vehicle left out after the other, and all fusion baselines of the policy: on folds of the training captures.
cross-vehicle fusion-ablation: .venv/runtime
	$(SNAKEMAKE) -s pipelines/$(subst -,_,$@)/Snakefile $(OPTIONS)

# Alarms on any capture by a finished run: CAPTURE is the file, RUN the folder of a policy.
score: .venv/runtime
	@test -n $(call quoted,$(CAPTURE)) -a -n $(call quoted,$(RUN)) || { echo "make score CAPTURE=FILE RUN=experimentruns/simulated/dqn_large" >&2; exit 1; }
	$(SNAKEMAKE) -s pipelines/score/Snakefile --config $(call quoted,capture=$(CAPTURE)) $(call quoted,run=$(RUN)) $(OPTIONS)
	@$(RUN_MODULE) canids_shared.scoring $(call quoted,$(CAPTURE)) $(call quoted,$(RUN)) $(OPTIONS)

# What is installed, what is missing, and the remedies; by any Python.
doctor:
	@PYTHONPATH=shared $(firstword $(wildcard $(BIN)/python) $(PYTHON)) -m canids_shared.tools.doctor

# Alarms while a log grows, or on a bus: SOURCE is the log or interface:channel, RUN the folder of a policy. Ctrl-C ends it.
follow: .venv/runtime
	@test -n $(call quoted,$(SOURCE)) -a -n $(call quoted,$(RUN)) || { echo "make follow SOURCE=drive.log (or socketcan:can0) RUN=experimentruns/simulated/dqn_large" >&2; exit 1; }
	@$(RUN_MODULE) canids_shared.scoring.following $(call quoted,$(SOURCE)) $(call quoted,$(RUN)) $(OPTIONS)

# The profile of a vehicle from attack-free traffic of it: CAPTURE is the file, PROFILE what is written. OPTIONS='--seconds 60'
enrol: .venv/runtime
	@test -n $(call quoted,$(CAPTURE)) -a -n $(call quoted,$(PROFILE)) || { echo "make enrol CAPTURE=quiet_drive.log PROFILE=mycar.safetensors" >&2; exit 1; }
	@$(RUN_MODULE) canids_preprocess.enrol $(call quoted,$(CAPTURE)) --output $(call quoted,$(PROFILE)) $(OPTIONS)

# Draft a manifest for a folder of captures, to be checked: DIR is the folder.
manifest: .venv/runtime
	@test -n $(call quoted,$(DIR)) || { echo "make manifest DIR=FOLDER: FOLDER holds a dataset's captures" >&2; exit 1; }
	$(RUN_MODULE) canids_preprocess.draft $(call quoted,$(DIR))

# Time and memory of finished runs, and a profile that requests as much: results/resources/profile.
resources: .venv/runtime
	$(SNAKEMAKE) -s modules/evaluate/Snakefile --forcerun resources -- all_resources
	@cat results/resources/resources.md

# All finished runs into MLflow, also those that no pipeline has tracked yet: after folds, or when a server came back.
# URI is a server, or sqlite:///FILE; by default $$MLFLOW_TRACKING_URI, else the store of make mlflow-ui. EXPERIMENT as in the config.
track: .venv/runtime
	$(RUN_MODULE) canids_track.sync $(if $(URI),--uri $(call quoted,$(URI))) $(if $(EXPERIMENT),--experiment $(call quoted,$(EXPERIMENT)))

# Tracked runs in the browser: http://127.0.0.1:5000, or PORT.
mlflow-ui: .venv/runtime
	@test -f experimentruns/mlflow.db || { echo "nothing is tracked here yet: run a pipeline, or make track" >&2; exit 1; }
	MLFLOW_DISABLE_TELEMETRY=true $(RUN_MODULE) mlflow ui --workers 1 --port $(or $(PORT),5000) --backend-store-uri sqlite:///experimentruns/mlflow.db --artifacts-destination experimentruns/mlflow-artifacts

# Speed, against a peer in the same run or a limit: bench/results.json (bench/README.md).
bench: .venv/runtime
	$(BIN)/python bench/preprocess.py
	$(BIN)/python bench/train.py
	$(BIN)/python bench/distillation.py
	$(BIN)/python bench/fusion.py
	$(BIN)/python bench/plan.py
	$(BIN)/python bench/follow.py
	$(BIN)/python bench/starts.py
	$(BIN)/python bench/demo.py

# All at once: together they keep two cores busy. Tests that take minutes more, root or gigabytes have targets of their own:
# long-tests, slurm-test, environment-tests.
test: .venv/development
	@$(MAKE) --no-print-directory -j4 unit-tests workflow-tests checkout-tests dgl-tests

LONG_TESTS = $(wildcard tests/examples/*.py) tests/unit/track/test_store.py
# The whole main job in a folder whose name has blanks and quotes; workflow-tests trains one model there.
LONG_TEST = tests/pipelines/test_awkward_folder.py::test_the_main_job_and_scoring_run_to_their_end
long-tests: .venv/development
	$(RUN_MODULE) pytest -q tests/pipelines/test_kd_fusion.yml $(LONG_TESTS) $(LONG_TEST)

unit-tests: .venv/development
	$(RUN_MODULE) pytest -q tests/unit $(addprefix --ignore=,$(LONG_TESTS))

# Tests that run Snakemake in fresh checkouts; workflow-tests runs the workflows of the YAML files and checks their results.
CHECKOUT_TESTS = tests/test_documents.py tests/pipelines/test_cache.py $(wildcard tests/modules/test_[ens]*.py)
checkout-tests: .venv/development
	$(RUN_MODULE) pytest -q $(CHECKOUT_TESTS)

workflow-tests: .venv/development
	$(RUN_MODULE) pytest -q $(addprefix --ignore=,tests/unit tests/environments tests/slurm $(CHECKOUT_TESTS) $(LONG_TESTS)) --deselect $(LONG_TEST) tests pipelines

# Each module in a new environment of its own: some minutes and 5 GB.
environment-tests: .venv/development
	$(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)) $(RUN_MODULE) pytest -q tests/environments

# The profiles on a Slurm of three virtual nodes on this machine, as root on Debian: daemons, files and links are gone
# afterwards, also after a failure; the packages stay.
SLURM_PACKAGES = slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge slurmdbd mariadb-server
SLURM_TESTS = tests/slurm
slurm-test: .venv/development slurm-packages
	@$(RUN_MODULE) pytest -q $(SLURM_TESTS) --durations=10; status=$$?; PYTHONPATH=tests $(RUN_MODULE) slurm.cluster stop; exit $$status

slurm-packages:
	@dpkg -s $(SLURM_PACKAGES) >/dev/null 2>&1 || { apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(SLURM_PACKAGES); } >/dev/null

# The faults of slurm-test, SOAK times at random moments: memory, cancelled, node failure, preemption, time limit.
SOAK = 20
slurm-soak: .venv/development slurm-packages
	@SOAK=$(SOAK) $(RUN_MODULE) pytest -q -s -m soak tests/slurm; status=$$?; PYTHONPATH=tests $(RUN_MODULE) slurm.cluster stop; exit $$status

# The backend dgl, in its own environment.
dgl-tests: .venv-dgl/ready
	CANIDS_NEEDS_DGL=1 .venv-dgl/bin/python -m pytest -q -p no:cacheprovider -o addopts= tests/unit/train_gnn/test_backends.py

# Unit tests that take less than ten seconds.
fast-test: .venv/development
	$(RUN_MODULE) pytest -q -m "not slow" tests/unit

# Mutated files beyond those of the tests: FUZZ of them or for SECONDS, from SEED on. CASE is a file that failed, to be read again.
fuzz: .venv/development
	@PYTHONPATH=tests/unit:tests $(BIN)/python -m fuzz.campaign $(if $(FUZZ),--count $(FUZZ)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(call quoted,$(CASE)))

lint: .venv/development
	$(RUN_MODULE) ruff check $(SOURCES)
	$(RUN_MODULE) ruff format --check $(SOURCES)
	@$(MAKE) --no-print-directory -j2 types snakefiles

types: .venv/development
	$(RUN_MODULE) mypy

snakefiles: .venv/development
	$(RUN_MODULE) snakefmt --check $(SNAKEFILES) $(PARTS)
	@printf '%s\n' $(SNAKEFILES) | xargs -I {} sh -c 'echo "snakemake --lint -s {}"; $(LINT) -s {}'

format: .venv/development
	$(RUN_MODULE) ruff check --fix $(SOURCES)
	$(RUN_MODULE) ruff format $(SOURCES)
	$(RUN_MODULE) snakefmt $(SNAKEFILES) $(PARTS)

# The documentation, to build/site/index.html.
docs: .venv/development
	NO_MKDOCS_2_WARNING=1 $(RUN_MODULE) mkdocs build --quiet
	@echo "Documentation: build/site/index.html"

# The rule graph of a pipeline as Mermaid text: PIPELINE is a folder of pipelines/, by default kd_fusion.
rulegraph: .venv/runtime
	@$(RUN_MODULE) snakemake -s pipelines/$(or $(PIPELINE),kd_fusion)/Snakefile --rulegraph mermaid-js --forceall --quiet $(OPTIONS)

# The tables of results in the READMEs, from finished runs: make leaderboard, make seeds, make folds, make hours.
readme-results: .venv/runtime
	@if test -f results/leaderboard/leaderboard/leaderboard.json; then $(RUN_MODULE) canids_evaluate.readme --leaderboard results/leaderboard/leaderboard/leaderboard.json --document README.md; \
	else echo "README.md keeps its leaderboard: make leaderboard DATA=FOLDER makes another"; fi
	$(RUN_MODULE) canids_evaluate.readme --datasets hcrl_sa --document README.md --methods fusion gat vgae hysteresis cusum logistic
	$(RUN_MODULE) canids_evaluate.readme --datasets hcrl_sa --document modules/evaluate/README.md --folds
	$(RUN_MODULE) canids_evaluate.readme --datasets simulated_hours --document modules/evaluate/README.md --marks hours \
		--metrics false_alarms_per_hour recall detection_delay_s --methods fusion gat vgae fixed_weight hysteresis cusum logistic

# A folder under pipelines/ that passes lint and tests as it is. Tests run in copies of what git tracks, hence `git add`.
new-pipeline: .venv/runtime
	@test -n $(call quoted,$(NAME)) || { echo "make new-pipeline NAME=late_fusion" >&2; exit 1; }
	$(RUN_MODULE) canids_shared.tools.scaffold pipeline $(call quoted,$(NAME))
	@if git rev-parse --git-dir > /dev/null 2>&1; then git add pipelines/$(NAME); fi

# Likewise a folder under modules/, with its package in pyproject.toml, which is then installed.
new-module: .venv/runtime
	@test -n $(call quoted,$(NAME)) || { echo "make new-module NAME=late_alarms" >&2; exit 1; }
	$(RUN_MODULE) canids_shared.tools.scaffold module $(call quoted,$(NAME))
	@if git rev-parse --git-dir > /dev/null 2>&1; then git add modules/$(NAME) tests/modules/test_module_$(NAME).py; fi
	@$(MAKE) --no-print-directory .venv/development

# The newest versions that install together, written to constraints.txt.
lock:
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev]'
	{ echo "# Exact versions that the project is tested with; made by 'make lock'."; .venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt
	rm -r .venv-lock

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "canids needs Python 3.11 or newer: make demo PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/runtime: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv (some minutes at first)"
	$(RUN_MODULE) pip install $(PIP_ARGS) -e '.[preprocess,train-gnn,train-drl,evaluate,track,progress]'
	@touch $@

# In one step with what runs need: the extra `dev` has all their extras.
.venv/development: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv, with the packages of tests and checks (some minutes at first)"
	$(RUN_MODULE) pip install $(PIP_ARGS) -e '.[dev]'
	@touch .venv/runtime $@

.venv-dgl/ready: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing the environment of the backend dgl"
	test -x .venv-dgl/bin/python || $(PYTHON) -m venv .venv-dgl
	.venv-dgl/bin/python -m pip install $(PIP_ARGS) -e '.[preprocess,dgl]' pytest hypothesis
	@touch $@

# Delete files that can be made again. Captures, the cache between workflows, runs (models, tracking, the log of test readings) and
# drafted manifests stay.
clean:
	@if test -d results; then find results/ ! -type d ! -regex 'results/[^/]*/manifest.yaml' -delete; find results/ -type d -empty -delete; fi
	rm -rf .snakemake .venv .venv-dgl .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make demo   the whole job on this machine, on embedded defaults
#   make test   the default tests
# Both set up .venv first. torch is installed before anything that depends on it, as constraints.txt
# pins it; set PIP_EXTRA_INDEX_URL to an index of CPU builds to avoid the CUDA packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
OHIF := tests/viewers/ohif/package/dist/index.html
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: audit-dependencies demo docs freeze-fixture test npm ohif test-image test-install test-start test-viewer test-web test-histories lint train-demo parity bench bench-decode bench-encode bench-receive bench-web bench-gpu soak soak-kill clean

demo: $(VENV)/.work
	$(BIN)/dicomnode demo

# What runs nodes and kills them has the machine for itself; the rest runs in two processes.
ALONE := tests/e2e tests/faults
test: $(VENV)/.test npm
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ALONE:%=--ignore %); first=$$?; \
	$(BIN)/python -m pytest $(ALONE) && exit $$first

# The viewer's decoder, for the tests; those are skipped by name where there is no npm.
NPM := tests/viewers/node_modules/.package-lock.json
npm:
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory $(NPM); fi

$(NPM): tests/viewers/package-lock.json
	npm ci --prefix tests/viewers --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# The documents as a static site, below site/; a dead link is an error.
docs: $(VENV)/.test
	$(BIN)/mkdocs build --quiet

# The results in OHIF, in Debian's chromium, over Orthanc's DICOMweb: minutes. It needs apt's chromium,
# orthanc and orthanc-dicomweb. DICOMNODE_PICTURES=docs/images renews the pictures in the documents.
test-viewer: $(VENV)/.test $(OHIF)
	DICOMNODE_VIEWER=1 $(BIN)/python -m pytest tests/viewer

# Its ready build alone: `npm ci` would fetch all that it was built from.
OHIF_VERSION := 3.13.2
$(OHIF): tests/viewers/ohif.sha512
	mkdir -p tests/viewers/ohif
	cd tests/viewers/ohif && npm pack --silent @ohif/app@$(OHIF_VERSION) \
	  && sha512sum --check --quiet ../ohif.sha512 \
	  && tar xzf ohif-app-$(OHIF_VERSION).tgz && rm ohif-app-$(OHIF_VERSION).tgz
	touch $@

# OHIF for the Orthanc of docs/start.md, on http://127.0.0.1:3000, until it is ended. It needs npm.
ohif: $(VENV)/.work $(OHIF)
	$(BIN)/python tests/viewer_site.py 8043 3000

# docs/start.md from a clone and nothing else, installation included: minutes. What a browser then
# shows in OHIF is looked at where chromium and npm are.
test-start: $(VENV)/.test
	DICOMNODE_START=1 $(BIN)/python -m pytest -s --timeout 3600 tests/e2e/test_start.py

# `pip install .` into an empty environment, first without extras, then to the demonstration.
test-install: $(VENV)/.test
	DICOMNODE_INSTALL=1 $(BIN)/python -m pytest --timeout 1800 tests/e2e/test_install.py

# The Dockerfile built by buildah, and its roles run as the image's user: minutes, as root.
test-image: $(VENV)/.test
	DICOMNODE_IMAGE=1 $(BIN)/python -m pytest --timeout 1800 tests/e2e/test_image_build.py

# The operator's page in a real browser, on a node with real traffic, behind nginx, and scraped by
# Prometheus: two minutes. Needs apt's chromium, orthanc, dcmtk, nginx-light and prometheus.
test-web: $(VENV)/.test
	DICOMNODE_BROWSER=1 $(BIN)/python -m pytest \
	  tests/web/test_browser.py tests/web/test_proxy.py tests/web/test_prometheus.py

# Thousands of histories of studies through the ledger: minutes.
test-histories: $(VENV)/.test
	DICOMNODE_HISTORIES=20 $(BIN)/python -m pytest tests/properties/test_assembly_histories.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What the newest schema leaves on a disk, packed for the versions to come; needs Orthanc.
freeze-fixture: $(VENV)/.test
	$(BIN)/python tests/upgrade_kit.py

# Known vulnerabilities of what is installed; says so where no data on them can be reached.
audit-dependencies: $(VENV)/.test
	$(BIN)/python tests/audit_dependencies.py

# Hostile peers and damaged files, for some minutes; FUZZ=200000 for a night.
FUZZ ?= 2000
fuzz: $(VENV)/.test
	DICOMNODE_FUZZ_EXAMPLES=$(FUZZ) $(BIN)/python -m pytest --timeout 0 \
	  tests/properties/test_hostile_files.py tests/faults/test_hostile_peers.py

# Label for label against the real TotalSegmentator 1.5.7 and 2.18, in environments of their own.
parity: $(VENV)/.test
	PYTHON=$(PYTHON) tests/parity/environments.sh
	DICOMNODE_PARITY=1 $(BIN)/python -m pytest -s tests/parity

# Speed against TotalSegmentator 2.18 on the same weights and image, and memory on a long CT.
bench: $(VENV)/.test
	PYTHON=$(PYTHON) tests/parity/environments.sh
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bench_inference
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bench_memory
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bench_encode

# From the files of a series to HU, beside SimpleITK's GDCM reader; fails below 2.5 times its speed.
bench-decode: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bench_decode

# From a label map of 104 structures to SEG and SR, beside plain highdicom and dcmqi; fails below 4
# times highdicom's speed. `long` does 2,000 slices.
bench-encode: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bench_encode

# Reception side by side with storescp and Orthanc; fails where it is too slow. Then 1 GB at once.
bench-receive: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bench_receive
	DICOMNODE_LARGE=1 $(BIN)/python -m pytest -k gigabyte tests/integration/test_receive_load.py

# Studies from four senders at once, with inference and Orthanc as the archive: speed, and the memory
# of each process. Some 8 minutes on two idle cores; DICOMNODE_HURRIED=1 where others use them, too.
STUDIES ?= 100
SLICES ?= 100
MATRIX ?= 128
soak: $(VENV)/.test
	DICOMNODE_STUDIES=$(STUDIES) DICOMNODE_SLICES=$(SLICES) DICOMNODE_MATRIX=$(MATRIX) \
	  $(BIN)/python -m pytest -s -W ignore tests/faults/test_soak.py

# kill -9 at random moments of a node under load; SEED=N kills the same again.
KILLS ?= 100
SEED ?= 0
soak-kill: $(VENV)/.test
	DICOMNODE_KILLS=$(KILLS) DICOMNODE_SEED=$(SEED) $(BIN)/python -m pytest -s -W ignore \
	  tests/faults/test_rampage.py tests/faults/test_disk.py

# The page with 100,000 studies; fails where an answer takes more than 300 ms.
bench-web: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bench_web

bench-gpu: $(VENV)/.test
	$(BIN)/python -m pytest tests/unit/inference/test_engines.py -k cuda
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bench_gpu

# Hours on two cores, minutes on a GPU; resumes where it was interrupted.
train-demo: $(VENV)/.work
	$(BIN)/python -m inference.training

$(VENV)/.work: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "dicomnode needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch $(TORCH) and the rest into $(VENV); the first time takes minutes ..."
	$(PIP) torch==$(TORCH)
	$(PIP) --editable '.[work,web]'
	@$(BIN)/python -c 'import torch, sys; sys.exit(torch.__version__.split("+")[0] != "$(TORCH)")' \
	  || { echo "the set-up has replaced torch $(TORCH)"; exit 1; }
	touch $@

$(VENV)/.test: $(VENV)/.work
	$(PIP) --editable '.[work,web,postgres,test,docs]'
	@$(BIN)/python -c 'import torch, sys; sys.exit(torch.__version__.split("+")[0] != "$(TORCH)")' \
	  || { echo "the set-up has replaced torch $(TORCH)"; exit 1; }
	touch $@

clean:
	rm -rf $(VENV) build dist site demo-output tests/viewers/node_modules tests/viewers/ohif .mypy_cache .pytest_cache .ruff_cache .hypothesis

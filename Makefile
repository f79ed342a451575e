# CI calls these targets too (.ci/run).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CRD := crds/maplatencyprobes.maplatency.dev.yaml
# The chart's own copy, since Helm takes nothing from outside of a chart.
CHART_CRD := charts/maplatency/files/$(notdir $(CRD))
# Through a file, so that a run that fails is not taken for an empty definition. Without `-p`, as cargo
# then chooses the features of dependencies for the whole workspace, and builds them once.
PRINT_CRD = mkdir -p target && cargo run -q --locked --bin maplatency-operator -- crd > target/crd.yaml

# Pages of docs/ that are printed.
PAGES := metrics resource
PRINT_PAGES = mkdir -p target/docs && for page in $(PAGES); do \
	cargo run -q --locked --bin maplatency-operator -- docs $$page > target/docs/$$page.md; done

VM = VM_LOGS=$${CARGO_TARGET_DIR:-target}/vm $${CARGO_TARGET_DIR:-target}/debug/maplatency-vm

KIND = $${CARGO_TARGET_DIR:-target}/debug/maplatency-kind
# As above, for the features of the whole workspace.
KIND_BUILD = cargo build --workspace --locked --bin maplatency-kind

.PHONY: help setup demo check test cluster cluster-down cluster-test e2e e2e-programs vm-test vm-count bench accuracy aggregation crds docs chart-readme images images-check fmt clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## Check this machine and install the Debian packages that are missing
	@scripts/setup.sh check demo test

demo: ## Measure an example program on this host for 30 s (as root; no cluster)
	@scripts/setup.sh demo
	cargo build --release --locked -p maplatency-agent -p maplatency-workload
	@scripts/demo.sh

check: ## Format, lints, generated files, licences
	@scripts/setup.sh check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(PRINT_CRD)
	@for crd in $(CRD) $(CHART_CRD); do \
		diff -u $$crd target/crd.yaml || { echo "error: $$crd differs from the Rust types; run: make crds" >&2; exit 1; }; \
	done
	@$(PRINT_PAGES)
	@for page in $(PAGES); do \
		diff -u docs/$$page.md target/docs/$$page.md || { echo "error: docs/$$page.md differs from the code; run: make docs" >&2; exit 1; }; \
	done
	@scripts/licences.sh

test: ## Build and run all tests, against the running kernel and a real API server (as root)
	@scripts/setup.sh test
	@scripts/test.sh

# Another image: MAPLATENCY_NODE_IMAGE=kindest/node:v1.36.1 make cluster.
cluster: ## Bring up a cluster of three nodes on this machine (kind; docs/testing.md)
	@scripts/setup.sh cluster
	$(KIND_BUILD)
	@$(KIND) up

cluster-down: ## Take that cluster down, and put the machine back as it was
	$(KIND_BUILD)
	@$(KIND) down

# The first part wants no cluster, and the second makes one for all of its tests.
RIG = cargo test --workspace --locked --test rig -- --ignored --test-threads=1
cluster-test: ## Test that cluster itself: what it can do, and that nothing is left of it
	@scripts/setup.sh e2e
	$(KIND_BUILD)
	$(RIG) machine::
	@$(KIND) up
	@status=0; $(RIG) cluster:: || status=$$?; $(KIND) down; exit $$status

PRODUCT = cargo test --workspace --locked --test product -- --ignored --test-threads=1
# A test that hangs must not hang CI; all of them take ten minutes, and on a slow machine twenty.
PRODUCT_LIMIT = timeout --kill-after=30 $${MAPLATENCY_STEP_TIMEOUT:-2400}
# In the cluster of KUBECONFIG, which is left as it was, or in one that is made and taken down again.
e2e: ## Test the product in a cluster of nodes: KUBECONFIG's, or one that is made (as root)
	@scripts/setup.sh e2e images
	@scripts/images.sh
	cargo build --workspace --locked --bins
	@export MAPLATENCY_NOT_RUN=$$(mktemp); trap 'sed "s/^/not run here: /" $$MAPLATENCY_NOT_RUN; rm $$MAPLATENCY_NOT_RUN' EXIT; \
	if [ -n "$${KUBECONFIG:-}" ]; then $(PRODUCT_LIMIT) $(PRODUCT); exit; fi; \
	before=0; $(KIND) status > /dev/null || before=1; $(KIND) up; \
	status=0; $(PRODUCT_LIMIT) $(PRODUCT) || status=$$?; \
	[ $$before = 0 ] || $(KIND) down; exit $$status

e2e-programs: ## Build what `make e2e` takes where no image can be pulled: Kubernetes, kind, and the programs of the images
	@scripts/setup.sh cluster images
	e2e/controlplane/build.sh --node
	e2e/kind/build.sh kind crictl coredns netd pause
	scripts/image-programs.sh images/programs

# A part of it: VM_KERNELS=6.12:full,6.1:none make vm-test.
vm-test: ## Run the kernel tests on Debian's kernels, in virtual machines without KVM
	@scripts/setup.sh vm-test
	cargo build --workspace --locked --all-targets
	@$(VM) test

vm-count: ## Count the instructions that measuring adds, in a virtual machine; writes bench/instructions.json
	@scripts/setup.sh vm-test bench
	cargo build --workspace --locked --all-targets
	@$(VM) count

BENCH = $${CARGO_TARGET_DIR:-target}/release
BENCH_BUILD = cargo build --release --locked -p maplatency-agent -p maplatency-workload -p maplatency-bench
BENCH_RUN = $(BENCH)/maplatency-bench --agent $(BENCH)/maplatency-agent --workload $(BENCH)/maplatency-workload

# One part again, such as MODES=load make bench, leaves the figures of the others as they are.
MODES ?= cost load drain
bench: ## Measure what measuring costs, beside bpftrace and perf; writes docs/performance.md (idle machine, 12 min)
	@scripts/setup.sh bench
	$(BENCH_BUILD)
	@for mode in $(MODES); do $(BENCH_RUN) $$mode; done

# Quiet minutes are told in full; QUIET=1m make accuracy is a try.
QUIET ?= 10m
accuracy: ## Compare the figures with callers' own clocks; writes docs/accuracy.md (idle machine, 15 min)
	@scripts/setup.sh bench
	$(BENCH_BUILD)
	@$(BENCH_RUN) accuracy
	@$(BENCH_RUN) quiet --for $(QUIET)

aggregation: ## Compare the strategies of aggregation; writes docs/aggregation.md (idle machine, four minutes)
	@scripts/setup.sh bench
	$(BENCH_BUILD)
	@$(BENCH_RUN) aggregation

crds: ## Write crds/, and the chart's copy, from the Rust types
	@scripts/setup.sh check
	$(PRINT_CRD)
	mkdir -p $(dir $(CRD) $(CHART_CRD)) && cp target/crd.yaml $(CRD) && cp target/crd.yaml $(CHART_CRD)

chart-readme: ## Write the README of the Helm chart from the comments in its values
	@scripts/chart-readme.sh

images: ## Build the images of operator and agent, with docker
	@scripts/setup.sh images
	@scripts/images.sh

images-check: ## Build the programs of the images twice, and compare the layers
	@scripts/setup.sh images
	@scripts/images.sh --check

docs: ## Write docs/metrics.md and docs/resource.md, the pages that come from the code
	@scripts/setup.sh check
	$(PRINT_PAGES)
	cp $(PAGES:%=target/docs/%.md) docs/

fmt: ## Format the Rust code
	cargo fmt --all

clean: ## Remove what was built here (not what is in the user's cache)
	cargo clean

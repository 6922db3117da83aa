# Strandline. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(CURDIR)/.cache
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)
PROMETHEUS := github.com/prometheus/prometheus/cmd/prometheus@v0.316.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME := 60s
SEEDS := 100000
ROUNDS := 0
export PATH := $(CACHE)/bin:$(PATH)

.PHONY: help build run cluster setup test check race fuzz soak bench bench-cluster bench-live microbench

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

build: ## build bin/strandline
	go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/strandline ./cmd/strandline

run: build ## build, then serve on ./data at 127.0.0.1:9595
	./bin/strandline serve --data ./data

CLUSTER := n1=127.0.0.1:9701,n2=127.0.0.1:9702,n3=127.0.0.1:9703

cluster: build ## build, then run three nodes on ./data/n1 to n3, at 127.0.0.1:9601 to 9603
	@trap 'trap - TERM INT EXIT; kill 0; wait' TERM INT EXIT; \
	for i in 1 2 3; do \
		./bin/strandline serve --data ./data/n$$i --listen 127.0.0.1:960$$i --cluster-node n$$i --cluster-peers '$(CLUSTER)' 2>&1 | sed -u "s/^/n$$i /" & \
	done; \
	until curl -fs 127.0.0.1:9601/-/ready >/dev/null; do sleep 0.2; done; \
	printf '%s\n' '' 'Three nodes are up; any of them takes reads and writes:' \
		'  curl -s 127.0.0.1:9601/api/v1/cluster/status | jq     who leads what' \
		"  curl -s '127.0.0.1:9602/api/v1/query?query=up'" \
		"  curl -s '127.0.0.1:9603/api/v1/query?query=up&consistency=linearizable'" \
		"  pkill -9 -f '[d]ata/n2 '                              lose one; the others go on" ''; \
	wait

setup: ## fetch the programs that the tests run beside us, where that is possible
	@mkdir -p $(CACHE)/bin
	@missing=; for p in prometheus-node-exporter chromium ip:iproute2 strace mkfs.ext4:e2fsprogs losetup:mount; do \
		command -v $${p%:*} >/dev/null || missing+=" $${p#*:}"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && for p in $$missing; do apt-get install -qy --no-install-recommends $$p || true; done || true; fi
	@[ -x $(CACHE)/bin/prometheus ] || GOBIN=$(CACHE)/bin go install $(PROMETHEUS) || true

# -count=1: the end-to-end tests build the binary themselves, which a cached result would not see.
test: setup ## run all tests, after fetching what they need, and every fuzz target for 5 s
	@go test -count=1 -tags invariants -timeout 14m ./...
	@$(MAKE) --no-print-directory fuzz FUZZTIME=5s
	@missing=; \
	command -v prometheus-node-exporter >/dev/null || missing+=' prometheus-node-exporter (apt-get install prometheus-node-exporter)'; \
	command -v chromium >/dev/null || missing+=' chromium (apt-get install chromium)'; \
	[ -x $(CACHE)/bin/prometheus ] || missing+=' prometheus (GOBIN=$(CACHE)/bin go install $(PROMETHEUS))'; \
	if [ -n "$$missing" ]; then echo "Left out the tests that need:$$missing"; [ "$${CI:-}" != true ]; fi

check: ## format, vet, staticcheck, import direction
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	go vet -stdmethods=false -tags invariants ./...  # stdmethods takes a chunkenc.Iterator's Seek for an io.Seeker's
	go run $(STATICCHECK) -tags invariants ./...
	go test -run TestImportDirection ./cmd/strandline

# The end-to-end tests build the binary with the detector too; -count=1 as in test.
race: ## run all tests under the race detector
	go test -race -count=1 -tags invariants -timeout 60m ./...

# Each package is built for fuzzing once, and two targets run at a time, a worker each.
# Fuzzing by time can end in a bare "context deadline exceeded" when the time runs out
# inside an input (go.dev/issue/75804): that alone, with no failing input, is a pass.
fuzz: ## run every fuzz target for FUZZTIME (default 60s)
	@rm -rf $(CACHE)/fuzz; mkdir -p $(CACHE)/fuzz $(CACHE)/corpus
	@targets=$$(grep -rnoE --include='*_test.go' --exclude-dir='.*' '^func Fuzz\w+' [a-z]* | sed -E 's,^(.*)/[^/]*:[0-9]+:func ,\1 ,'); \
	for pkg in $$(cut -d' ' -f1 <<<"$$targets" | sort -u); do \
		go test -c -tags invariants -fuzz . -o $(CACHE)/fuzz/$${pkg//\//-}.test ./$$pkg; \
	done; \
	xargs -P 2 -L 1 bash -c ' \
		log=$(CACHE)/fuzz/$$1.log; cd $$0; \
		$(CACHE)/fuzz/$${0//\//-}.test -test.run "^$$" -test.fuzz "^$$1\$$" -test.fuzztime $(FUZZTIME) -test.parallel 1 \
			-test.fuzzcachedir $(CACHE)/corpus/$${0//\//-} >$$log 2>&1 || \
			{ grep -q "^    context deadline exceeded$$" $$log && ! grep -q "Failing input" $$log; } || \
			{ echo "fuzz $$0 $$1"; cat $$log; exit 255; }; \
		echo "fuzz $$0 $$1: $$(grep execs: $$log | tail -1)"' <<<"$$targets"

soak: setup ## run the fault tests at full size: some hours
	go test -count=1 -tags invariants -timeout 12h -run TestSimulation ./cluster -args -seeds $(SEEDS)
	go test -count=1 -tags invariants -timeout 12h -v ./cmd/strandline/e2e -run 'TestKillUnderIngest|TestPowerCut|TestFailpoints|TestClusterFaults|TestPartitions|TestLinks|TestLinearizable|TestBlackout|TestRejoin|TestLive|TestLaggards' -args -soak -rounds $(ROUNDS)

bench: build setup ## measure the binary beside victoria-metrics and prometheus on the same bodies, then a restart
	@command -v victoria-metrics >/dev/null || { echo "make bench needs victoria-metrics: apt-get install victoria-metrics"; exit 1; }
	go run ./bench ingest
	go run ./bench replay --serve-args "--head-bytes=4GiB --flush-interval=24h"

bench-cluster: build ## measure three nodes: CPU, fsyncs, idle, latency, failing over, catching up
	go run ./bench cluster

bench-live: build ## measure live queries and dashboards under ingest: latency, memory, CPU
	go run ./bench live

microbench: ## run every package's Go benchmarks
	go test -run '^$$' -bench . -benchmem ./...

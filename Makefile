# Short names for daily commands. .ci/run is the whole check that a change must pass.
.DEFAULT_GOAL := help
.PHONY: help test short long lint fuzz bench bench-plots docs mutants ci

export FUZZTIME ?= 10s
RUNS ?= 1

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

short: ## quick tests of the library: half a minute
	go test -short ./...

test: ## all tests of the library: 2.5 minutes
	go test ./...

long: ## all tests with the race detector, with all cases, the examples: half an hour
	go test -race -timeout=25m ./...
	go test -count=1 -timeout=25m . ./vip ./internal/certs ./internal/lease ./internal/mixed ./internal/durable ./internal/durable/boltlog ./internal/durable/journal ./internal/durable/raftlog -long
	cd examples && GOWORK=off go test -count=1 -timeout=10m ./...
	cd examples/s3backup && GOWORK=off go test -count=1 -timeout=10m ./...
	cd metrics && GOWORK=off go test -count=1 -timeout=10m ./...
	cd internal/page/browsertest && GOWORK=off go test -count=1 -timeout=15m ./...

lint: ## gofmt, vet, staticcheck, tidy modules, commit subjects
	.ci/lint

fuzz: ## every fuzz target for FUZZTIME, by default 10s
	.ci/fuzz

bench: ## benchmarks, for a machine that does nothing else
	go test -run='^$$' -bench=. ./...
	cd bench && GOWORK=off go test -run='^$$' -bench=. -timeout=0 ./...

bench-plots: ## measure growth, slow disks and a simulated day; plots in bench/plots: 15 minutes a run, RUNS=1
	cd bench && printf 'date: %s\nmachine: %s\ncommit: %s\n' \
		"$$(date +%F)" "$$(getconf _NPROCESSORS_ONLN) processors" "$$(git describe --always --dirty)" >plots/figures.txt
	cd bench && GOWORK=off go test -run='^$$' -bench='SlowDisk|Day|Growth' -benchtime=1x -count=$(RUNS) -timeout=0 . >>plots/figures.txt
	cd bench && GOWORK=off go run ./plots -dir plots <plots/figures.txt

docs: ## write the generated files: table of mutants, api/*.txt
	go run ./internal/mutants -markdown
	go run ./internal/apicheck -write

mutants: ## break each guard and see a test fail; ARGS='-only role.go'
	go run ./internal/mutants $(ARGS)

ci: ## everything that a change must pass: half an hour
	.ci/run

# What there is to do here. Each target is one command that can also be run by hand.

# A release is a commit with a tag; any other build names its commit by itself.
RELEASE := $(shell git describe --tags --exact-match --dirty 2>/dev/null)

.PHONY: build test torture demo bench fuzz clean

build: # bin/varve, without cgo
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.released=$(RELEASE)' -o bin/varve ./cmd/varve

test: # everything: formatting, analysis, a little fuzzing, the binary end to end, the race detector
	scripts/test

torture: # what time, accidents and enemies do to repositories, thousands of times: root, about half an hour
	scripts/torture

demo: # five days of a disk: backup, history, prune, restore, verify
	scripts/demo

bench: # against restic, borg and zpaq; writes docs/benchmarks.md (root, about 40 GB of disk, hours)
	scripts/bench

fuzz: # every fuzz target for a while: make fuzz FUZZTIME=10m
	scripts/fuzz $(or $(FUZZTIME),2m)

clean:
	rm -rf bin .demo .bench

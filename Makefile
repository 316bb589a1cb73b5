# Everything from a fresh Debian 12 in one command each: `make run`, `make test`.
BUILD := build
JOBS ?= $(shell nproc)

.PHONY: all build run test programs short-programs bench soak soak-engines asan tidy kmod setup-build setup-run setup-test setup-programs setup-kmod clean format

all: build

setup-build setup-run setup-test setup-programs setup-kmod: setup-%:
	@tools/setup.sh $*

build: setup-build
	@test -f $(BUILD)/build.ninja || cmake --preset release
	@cmake --build --preset release -j $(JOBS)

## The key-value server, on Linux and in a cell, with redis-benchmark as its client.
run: build setup-run
	@$(BUILD)/bin/xos doctor || true
	@examples/kvd/compare.py --kvd $(BUILD)/bin/kvd

## Every test, on this machine's /dev/kvm and on emulated SVM and VMX hardware.
test: build setup-test asan
	@tests/run.sh --but-programs $(BUILD)

## Real servers, interpreters and tool chains, natively and in a cell.
programs: build setup-test setup-programs
	@tests/run.sh --programs $(BUILD)

## Those of them that take a minute, all but CPython's own tests and the emulated machines.
short-programs: build setup-test setup-programs
	@tests/run.sh --short-programs $(BUILD)

asan: setup-build
	@test -f build-asan/build.ninja || cmake --preset asan
	@cmake --build --preset asan -j $(JOBS)

## The optional kernel module, for the running kernel or the one whose headers are installed.
kmod: setup-kmod
	@$(MAKE) -C kmod modules

bench: build
	@$(BUILD)/bin/xos bench

## The same tests again and again: for finding what happens rarely.
soak: build setup-test setup-programs
	@tests/run.sh --repeat $(or $(TIMES),20) $(BUILD)

## Hundreds of threads on one address space, on every engine.
soak-engines: build setup-test
	@tests/soak_engines.sh $(BUILD) $(SECONDS_EACH)

clean:
	rm -rf build build-debug build-asan

## clang-tidy over the sources.
tidy: build
	@tools/tidy.sh $(BUILD)

format:
	@git ls-files '*.cpp' '*.hpp' | xargs clang-format -i

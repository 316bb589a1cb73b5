# Everything from a fresh Debian 12 in one command each: `make run`, `make test`.
BUILD := build
JOBS ?= $(shell nproc)

.PHONY: all build build-tests run test test-fresh programs short-programs bench soak soak-engines asan tidy kmod \
  setup-build setup-run setup-bench setup-test setup-programs setup-kmod setup-tidy setup-fresh clean format
# Packages are installed one set after another, and before CMake looks for them.
.NOTPARALLEL:

all: build

setup-build setup-run setup-bench setup-test setup-programs setup-kmod setup-tidy setup-fresh: setup-%:
	@tools/setup.sh $*

# CMake looks anew each time, so it finds what has been installed in the meantime. Tests need more packages: they are
# built from the first time on that something asks for them.
configure = cmake --preset release $(1) >/dev/null
compile = cmake --build --preset release -j $(JOBS)

build: setup-build
	@$(call configure,$$(test -e $(BUILD)/CMakeCache.txt || echo -DXOS_BUILD_TESTS=OFF))
	@$(compile)

build-tests: setup-build setup-test
	@$(call configure,-DXOS_BUILD_TESTS=ON)
	@$(compile)

## The key-value server, on Linux and in a cell, with redis-benchmark as its client.
run: build setup-run
	@$(BUILD)/bin/xos doctor || true
	@examples/kvd/compare.py --kvd $(BUILD)/bin/kvd

## Every test, on this machine's /dev/kvm and on emulated SVM and VMX hardware; or those whose name matches TESTS.
test: build-tests asan
	@tests/run.sh $(if $(TESTS),--only "$$TESTS",--but-programs) $(BUILD)

## `make run` and some of `make test` on a minimal Debian 12 that has nothing yet; HOW=--full for all of it.
test-fresh: setup-fresh
	@tests/fresh.sh $(HOW)

## Real servers, interpreters and tool chains, natively and in a cell.
programs: build-tests setup-programs
	@tests/run.sh --programs $(BUILD)

## Those of them that take a minute, all but CPython's own tests and the emulated machines.
short-programs: build-tests setup-programs
	@tests/run.sh --short-programs $(BUILD)

asan: setup-build
	@cmake --preset asan >/dev/null
	@cmake --build --preset asan -j $(JOBS)

## The optional kernel module, for the running kernel or the one whose headers are installed.
kmod: setup-kmod
	@$(MAKE) -C kmod modules

bench: build setup-bench
	@$(BUILD)/bin/xos bench

## The same tests again and again: for finding what happens rarely.
soak: build-tests setup-programs
	@tests/run.sh --repeat $(or $(TIMES),20) $(BUILD)

## Hundreds of threads on one address space, on every engine.
soak-engines: build-tests
	@tests/soak_engines.sh $(BUILD) $(SECONDS_EACH)

clean:
	rm -rf build build-debug build-asan

## clang-tidy over the sources.
tidy: build setup-tidy
	@tools/tidy.sh $(BUILD)

format: setup-tidy
	@git ls-files '*.cpp' '*.hpp' | xargs clang-format -i

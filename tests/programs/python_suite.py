#!/usr/bin/env python3
"""CPython's own regression tests, natively and under `xos run`: the same tests must pass.

    python_suite.py [--run-option=OPTION]... XOS [MODULE[:PATTERN,...]]...

MODULE is one of Debian's libpython3-testsuite, such as test_os. A pattern, as for unittest's -k, picks some of
its tests. Without a MODULE, a selection runs that takes about a minute; with XOS_SOAK=1, every module in full.
"""

import fnmatch
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

PYTHON = "/usr/bin/python3"
TIMEOUT = 900
EVERYTHING = ("test_os test_signal test_threading test_subprocess test_mmap test_socket test_select test_fork1"
              " test_thread test_multiprocessing_fork test_faulthandler test_time test_io test_ctypes").split()
# What the cell has most to do with, and no test that waits for seconds or cares how fast the machine is.
SELECTION = """
    test_fork1 test_thread test_mmap test_select
    test_signal:PosixTests,WakeupFDTests,WakeupSignalTests,SiginterruptTest,ItimerTest,PendingSignalsTests,StressTest
    test_threading:ThreadTests.test_various_ops,ThreadTests.test_foreign,ThreadTests.test_main_thread,ConditionTests,EventTests,ThreadJoinOnShutdown,MiscTestCase
    test_subprocess:ProcessTestCase.test_c,ProcessTestCase.test_s,ProcessTestCase.test_i,POSIXProcessTestCase.test_e,POSIXProcessTestCase.test_s
    test_os:ExecTests,SpawnTests,ProgramPriorityTests,ForkTests,TestScandir,ExtendedAttributeTests,EventfdTests,FDInheritanceTests,TestSendfile,PidTests
    test_multiprocessing_fork:WithProcessesTestProcess,WithProcessesTestQueue,WithProcessesTestSharedMemory
    test_socket:GeneralModuleTests,BasicTCPTest,SendmsgUnixStreamTest,RecvmsgUnixStreamTest,InterruptedRecvTimeoutTest
    test_faulthandler:test_sig,test_read_null,test_stack_overflow,test_register,test_dump
    test_time:TimeTestCase
    test_io:SignalsTest,CBufferedReaderTest
    test_ctypes
""".split()


# A child that has given up its right to open /dev/kvm cannot have a cell.
KNOWN = {"test.test_subprocess.POSIXProcessTestCase.test_user"}


def run_tests(module, patterns, results):
    """In the interpreter under test: writes `test outcome` lines."""
    import unittest

    from test import support

    support.use_resources = []
    support.verbose = 0
    out = open(results, "w", buffering=1)

    class Recorder(unittest.TestResult):
        def startTest(self, test):
            super().startTest(test)
            self.outcome = "passed"
            self.subfailures = []

        def note(self, test, outcome, detail=""):
            if not isinstance(test, unittest.TestCase):  # a module's or a class's set-up
                print(test.id(), outcome, file=out)
            self.outcome = outcome
            if detail:
                sys.stderr.write(f"{test.id()}: {outcome}\n{detail}\n")

        def addError(self, test, error):
            self.note(test, "error", self._exc_info_to_string(error, test))

        def addFailure(self, test, error):
            self.note(test, "failed", self._exc_info_to_string(error, test))

        def addSkip(self, test, reason):
            self.note(test, "skipped")

        def addExpectedFailure(self, test, error):
            self.note(test, "failed-as-expected")

        def addUnexpectedSuccess(self, test):
            self.note(test, "passed-unexpectedly")

        def addSubTest(self, test, subtest, error):
            if error is not None:
                self.note(test, "failed", self._exc_info_to_string(error, test))

        def stopTest(self, test):
            print(test.id(), self.outcome, file=out)
            super().stopTest(test)

    loader = unittest.TestLoader()
    if patterns:
        loader.testNamePatterns = [p if "*" in p else f"*{p}*" for p in patterns]
    name = module if module.startswith("ctypes.") else f"test.{module}"
    suite = loader.loadTestsFromName(name)
    suite.run(Recorder())
    print("end reached", file=out)


def run(prefix, module, patterns):
    with tempfile.TemporaryDirectory() as scratch:
        results = pathlib.Path(scratch) / "results"
        results.touch()
        work = pathlib.Path(scratch) / "work"
        work.mkdir()
        environment = dict(os.environ, TMPDIR=str(work), PYTHONDONTWRITEBYTECODE="1")
        command = [*prefix, PYTHON, "-bb", __file__, "--child", str(results), module, *patterns]
        log = open(pathlib.Path(scratch) / "log", "w+b")
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=work,
                                 env=environment, start_new_session=True)
        try:
            status = child.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            status = f"no end within {TIMEOUT} s"
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        log.seek(0)
        text = log.read().decode(errors="replace")
        outcomes = {}
        for line in results.read_text().splitlines():
            test, outcome = line.rsplit(" ", 1)
            outcomes[test] = outcome
        return status, outcomes, text


def compare(xos, options, module, patterns):
    native = run([], module, patterns)
    cell = run([xos, "run", *options, "--"], module, patterns)
    wrong = []
    if native[0] != cell[0]:
        wrong.append(f"exit status: natively {native[0]}, in the cell {cell[0]}")
    for test in sorted(native[1].keys() | cell[1].keys()):
        a, b = native[1].get(test, "not reached"), cell[1].get(test, "not reached")
        if test in KNOWN and b != "passed":
            print(f"  as documented: {test}: natively {a}, in the cell {b}")
        elif a in ("failed", "error") and b == "passed":
            print(f"  {test} failed natively, and passes in the cell")
        elif a != b:
            wrong.append(f"{test}: natively {a}, in the cell {b}")
    passed = sum(outcome == "passed" for outcome in native[1].values())
    if not passed:
        wrong.append("no test passes natively")
    print(f"{'FAIL' if wrong else 'ok  '} {module}: {len(native[1]) - 1} tests, {passed} pass natively", flush=True)
    for line in wrong:
        print("    " + line)
    if wrong:
        for name, text in (("natively", native[2]), ("in the cell", cell[2])):
            print(f"  what it wrote {name}:\n" + "\n".join("    " + line for line in text.splitlines()[-200:]))
    return not wrong


def main():
    marker = "--run-option="
    options = [a[len(marker):] for a in sys.argv[1:] if a.startswith(marker)]
    xos, *wanted = [a for a in sys.argv[1:] if not a.startswith(marker)]
    wanted = wanted or (EVERYTHING if os.environ.get("XOS_SOAK") else SELECTION)
    for module in (item.partition(":")[0] for item in wanted):
        if not pathlib.Path(f"/usr/lib/python3.11/test/{module}.py").exists():
            print(f"python_suite: there is no {module}: run tools/setup.sh programs", file=sys.stderr)
            return 1
    failed = 0
    for item in wanted:
        module, _, patterns = item.partition(":")
        failed += not compare(os.path.abspath(xos), options, module, patterns.split(",") if patterns else [])
    print(f"{len(wanted) - failed} modules the same, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_tests(sys.argv[3], sys.argv[4:], sys.argv[2])
    else:
        sys.exit(main())

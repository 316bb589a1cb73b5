#!/usr/bin/env bash
# run_test.sh XOS: tests what `xos run` says and returns, for good and bad programs.
set -euo pipefail
xos=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect NAME STATUS PATTERN COMMAND...: PATTERN (extended) must be in standard error; `-` for no check.
expect() {
    local name=$1 wanted=$2 pattern=$3 status=0
    shift 3
    timeout 60 "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
    if [[ $status != "$wanted" ]]; then
        echo "FAIL $name: status $status, not $wanted: $(head -c 300 "$work/err")"
        failures=$((failures + 1))
    elif [[ $pattern != - ]] && ! grep -Eq -- "$pattern" "$work/err"; then
        echo "FAIL $name: standard error lacks '$pattern': $(head -c 300 "$work/err")"
        failures=$((failures + 1))
    else
        echo "ok   $name"
    fi
}

cat >"$work/static.c" <<'C'
int main(void) { return 0; }
C
gcc -static -o "$work/static" "$work/static.c"
printf 'not a program\n' >"$work/text"
head -c 100 /bin/true >"$work/truncated"
chmod +x "$work/truncated"
printf '#!/bin/sh\nexit 9\n' >"$work/script"
chmod +x "$work/script"

expect status 7 - "$xos" run -- sh -c 'exit 7'
expect killed 143 - "$xos" run -- sh -c 'kill -TERM $$'
expect not-found 127 'not found' "$xos" run -- no-such-program-anywhere
expect not-executable 126 'ermission denied' "$xos" run -- "$work/text"
expect truncated 126 'xec format' "$xos" run -- "$work/truncated"
expect static 0 - "$xos" run -- "$work/static"
expect static-own 0 - "$xos" run --loader=own -- "$work/static"
expect static-preload 126 'statically linked.*--loader=own' "$xos" run --loader=preload -- "$work/static"
expect script 9 - "$xos" run -- "$work/script"
expect bad-ring 2 'ring' "$xos" run --ring=7 -- true
expect bad-fallback 2 'fallback' "$xos" run --fallback=maybe -- true
expect bad-fallback-variable 125 'XOS_FALLBACK' env XOS_FALLBACK=maybe LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
expect no-program 2 - "$xos" run
expect options-of-program 0 - "$xos" run -- sh -c 'test "$1" = --stats' sh --stats
expect options-without-mark 7 - "$xos" run --quiet sh -c 'exit $1' --stats 7
expect unknown-option 2 'no-such-option' "$xos" run --no-such-option true
# Word for word: what looks like a list, a subcommand, a mark or an option of `xos run`'s.
words=(run bench -- '' '[a,b]' '[' '{}' --stats -x=1 "a b" $'line\nline' --)
printf '<%s>' "${words[@]}" >"$work/words"
expect arguments 0 - "$xos" run printf '<%s>' "${words[@]}"
cmp "$work/words" "$work/out" || failures=$((failures + 1))
expect arguments-after-mark 0 - "$xos" run -- printf '<%s>' "${words[@]}"
cmp "$work/words" "$work/out" || failures=$((failures + 1))
expect bad-mode 125 'XOS_MODE' env XOS_MODE=nonsense LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
expect stats 0 'system calls' "$xos" run --stats -- ls /
for wanted in 'entries +1' 'exits' 'getdents64 +[0-9]+ +emulated' 'exit_group +1 +emulated' 'mode (pvm|ring0)'; do
    if ! grep -Eq "$wanted" "$work/err"; then
        echo "FAIL stats: lacks '$wanted'"
        failures=$((failures + 1))
    fi
done
if [[ $(grep -c 'mode pvm' "$work/err") == 1 ]]; then
    expect ring0-refused 125 'need hardware virtualization' "$xos" run --ring=0 -- true
    expect ring3-refused 125 'need hardware virtualization' "$xos" run --ring=3 -- true
fi
expect mem-bad 125 'XOS_MEM' "$xos" run --mem=5X -- true
expect pager-window-bad 2 'pager' "$xos" run --pager=window:0 -- true
expect pager-bad 2 'pager' "$xos" run --pager=none -- true
for memory in "" --mem=64M --pager=system --pager=huge --pager=demand --pager=populate --pager=window --pager=window:3; do
    expect "memory inside $memory" 0 'mmap +[0-9]+ +local' \
        "$xos" run $memory --stats -- python3 -c 'assert sum(bytearray(30 << 20)) == 0'
done
expect memory-of-linux 0 'mmap +[0-9]+ +emulated' "$xos" run --mem=0 --stats -- python3 -c 'bytearray(30 << 20)'
if grep -Eq 'mmap +[0-9]+ +local' "$work/err"; then
    echo "FAIL memory-of-linux: mmap was served inside"
    failures=$((failures + 1))
fi
expect bad-transport 2 'transport' "$xos" run --transport=pigeon -- true
expect bad-transport-variable 125 'XOS_TRANSPORT' env XOS_TRANSPORT=pigeon LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
expect transport-exit 0 'transport exit' "$xos" run --transport=exit --stats -- true
expect bad-event-loops 2 'event-loops' "$xos" run --event-loops=pigeon -- true
expect bad-event-loops-variable 125 'XOS_EVENT_LOOPS' env XOS_EVENT_LOOPS=pigeon LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
expect event-loops 0 'transport exit' "$xos" run --event-loops=batched --stats -- true
expect event-loops-module 125 'exclude each other' "$xos" run --event-loops=batched --transport=module -- true
if [[ ! -e /dev/xos ]]; then
    expect no-module 125 'module is not loaded' "$xos" run --transport=module -- true
fi
# Which malloc the program has.
mapped='grep -q libjemalloc /proc/self/maps'
expect malloc-jemalloc 0 - "$xos" run --malloc=jemalloc -- sh -c "$mapped"
expect malloc-by-environment 0 - env XOS_MALLOC=jemalloc "$xos" run -- sh -c "$mapped"
expect malloc-option-first 1 - env XOS_MALLOC=jemalloc "$xos" run --malloc=system -- sh -c "$mapped"
expect malloc-system 1 - "$xos" run -- sh -c "$mapped"
expect malloc-preload-kept 0 - env LD_PRELOAD=libm.so.6 "$xos" run --malloc=jemalloc -- sh -c "$mapped && grep -q libm.so /proc/self/maps"
expect malloc-unknown 2 'malloc' "$xos" run --malloc=other -- true
expect malloc-unknown-in-environment 2 'malloc: other' env XOS_MALLOC=other "$xos" run -- true
# /dev/null over the library, where only this command sees it.
hide='for f in /usr/local/lib /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib; do
          [ ! -e $f/libjemalloc.so.2 ] || mount --bind /dev/null $f/libjemalloc.so.2 || exit 99; done; exec "$@"'
expect malloc-not-installed 125 'libjemalloc.so.2 is not installed: apt-get install libjemalloc2' \
    unshare --map-root-user --mount env -u LD_LIBRARY_PATH sh -c "$hide" sh "$xos" run --malloc=jemalloc -- true
# Its memory comes from the cell, not from Linux.
expect malloc-without-exits 0 'mmap +[0-9]+ +local' "$xos" run --malloc=jemalloc --stats -- \
    /usr/bin/python3 -c 'x = [bytes(100000) for i in range(1000)]'

# Every option by its variable; the option goes first.
expect mode-variable 0 - env XOS_MODE=auto "$xos" run -- true
expect mode-variable-bad 2 'ring' env XOS_MODE=ring7 "$xos" run -- true
expect mode-option-first 0 - env XOS_MODE=ring7 "$xos" run --ring=auto -- true
expect transport-variable 0 'transport exit' env XOS_TRANSPORT=exit "$xos" run --stats -- true
expect transport-variable-bad 2 'transport' env XOS_TRANSPORT=pigeon "$xos" run -- true
expect mem-variable 0 'mmap +[0-9]+ +emulated' env XOS_MEM=0 "$xos" run --stats -- python3 -c 'bytearray(30 << 20)'
expect mem-option-first 0 'mmap +[0-9]+ +local' env XOS_MEM=0 "$xos" run --mem=64M --stats -- python3 -c 'bytearray(30 << 20)'
expect pager-variable-bad 2 'pager' env XOS_PAGER=none "$xos" run -- true
expect stats-variable 0 'system calls' env XOS_STATS=1 "$xos" run -- true
expect stats-variable-off 0 '^$' env XOS_STATS=0 "$xos" run -- sh -c 'echo >&2'
expect trace-variable 0 '^[0-9]+ exit_group\(0\) = \? <emulated>$' env XOS_TRACE=1 "$xos" run -- true
expect trace-variable-off 0 '^$' env XOS_TRACE= "$xos" run -- sh -c 'echo >&2'
expect quiet-variable-bad 2 'quiet' env XOS_QUIET=perhaps "$xos" run -- true
expect variables-empty 0 - env XOS_MODE= XOS_TRANSPORT= XOS_MEM= XOS_VCPUS= XOS_PAGER= XOS_STATS= XOS_TRACE= XOS_QUIET= \
    LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
for variable in MODE TRANSPORT MALLOC MEM PAGER STATS TRACE QUIET; do
    "$xos" run --help | grep -q "Env:XOS_$variable" || {
        echo "FAIL help: XOS_$variable is missing"
        failures=$((failures + 1))
    }
done

# The trace.
expect trace 0 '^[0-9]+ openat\(AT_FDCWD, "/nonexistent", 0x[0-9a-f]+, 00\) = -1 ENOENT <exit [0-9]+\.[0-9]us>$' \
    "$xos" run --trace -- python3 -c 'import os
try: os.open("/nonexistent", 0)
except FileNotFoundError: pass'
expect trace-file 0 - env -C "$work" "$xos" run --trace=log --transport=exit -- \
    sh -c 'cd /; echo one; /bin/echo two; (exit 3); exec cat /dev/null'
for wanted in 'execve\("/bin/echo", \["/bin/echo", "two"\], 0x[0-9a-f]+ /\* [0-9]+ strings \*/\) = \? <emulated>' \
    'write\(1, "one\\n", 4\) = 4 <exit' 'write\(1, "two\\n", 4\) = 4' 'exit_group\(3\) = \?' 'wait4' 'exit_group\(0\)'; do
    grep -Eq "$wanted" "$work/log" || {
        echo "FAIL trace-file: lacks '$wanted'"
        failures=$((failures + 1))
    }
done
if grep -Evq '^[0-9]+ [a-z_0-9]+\(.*\) = .* <(exit|emulated|local)( [0-9]+\.[0-9]us)?>$' "$work/log"; then
    echo "FAIL trace-file: a line is broken: $(grep -Ev '^[0-9]+ [a-z_0-9]+\(.*\) = .* <' "$work/log" | head -3)"
    failures=$((failures + 1))
fi
expect trace-nowhere 125 'trace: /nonexistent/log: No such file' "$xos" run --trace=/nonexistent/log -- true
expect trace-nowhere-later 7 'XOS_TRACE: /nonexistent/log cannot be opened' \
    env XOS_TRACE=/nonexistent/log LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" sh -c 'exit 7'
expect trace-without-stderr 0 - sh -c '"$0" run --trace -- sh -c "echo x >\"\$1\"/f; cat \"\$1\"/f" sh "$1" 2>&-' "$xos" "$work"
# A reader that goes away does not take the program along.
expect trace-reader-gone 0 - sh -c '{ "$0" run --trace -- sh -c "for i in 1 2 3; do cd /; done; exec 2>/dev/null; echo whole >$1/whole"; } 2>&1 | head -n 1' "$xos" "$work"
[[ $(cat "$work/whole") == whole ]] || { echo "FAIL trace-reader-gone: the program did not end"; failures=$((failures + 1)); }

# Statistics as JSON.
expect stats-json-bad 2 'json:FILE' "$xos" run --stats=xml:"$work/j" -- true
expect stats-json-no-file 2 'json:FILE' "$xos" run --stats=json: -- true
expect stats-json-nowhere 125 'nonexistent' "$xos" run --stats=json:/nonexistent/j -- true
expect stats-variable-bad 125 'XOS_STATS' env XOS_STATS=xml LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
# The program's name may be anything but NUL.
odd="$work/"$'odd "\\\n\xff\xc3\xa9'
cp /bin/ls "$odd"
expect stats-json 0 - "$xos" run --stats=json:"$work/json" -- sh -c \
    '"$1" / ; python3 -c "sum(bytearray(30 << 20))"; (exit 3); exec true' sh "$odd"
python3 - "$work/json" <<'PYTHON' || failures=$((failures + 1))
import json, sys
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
objects = [json.loads(line) for line in lines]
of = lambda name: [o for o in objects if o["program"].split("/")[-1].startswith(name)]
assert len({o["pid"] for o in objects}) >= 4, objects
assert sorted(o["why"] for o in of("dash") if o["pid"] == of("true")[0]["pid"]) == ["exec"], objects
python, = of("python3")
assert python["syscalls"]["mmap"]["local"] >= 1 and python["memory_inside"]["usable"] > 30 << 20, python
assert python["memory_inside"]["used"] <= python["memory_inside"]["usable"] <= python["memory_inside"]["reserved"]
ls, = of("odd")
assert ls["program"].endswith('odd "\\\n\ufffd\u00e9') and ls["why"] == "exit" and ls["entries"] == 1, ls
paths = ls["syscalls"]["openat"]
assert set(paths) <= {"exit", "module"} and sum(paths.values()) >= 2, ls
assert ls["exits"]["system_call"] >= sum(c for paths in ls["syscalls"].values() for p, c in paths.items() if p != "local" and p != "module")
assert ls["syscalls"]["exit_group"] == {"emulated": 1} and ls["mode"] in ("pvm", "ring0", "ring3") and ls["vcpus"] == 1
assert any(o["syscalls"].get("exit_group") and o["pid"] for o in of("dash"))
print("ok   stats-json is JSON, a line a process")
PYTHON

# What cannot be supported says so, once.
cat >"$work/refused.c" <<'C'
#include <errno.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    int good = 0;
    for (int i = 0; i < 2; i++) {
        good += syscall(SYS_modify_ldt, 0, 0, 0) == -1 && errno == ENOSYS;
        good += syscall(SYS_iopl, 3) == -1 && errno == ENOSYS;
        good += syscall(SYS_ioperm, 0, 1, 1) == -1 && errno == ENOSYS;
        good += syscall(SYS_arch_prctl, 0x5001, 1) == -1;
        good += syscall(SYS_arch_prctl, 0x1012, 0) == -1;
        good += syscall(SYS_arch_prctl, 0x1011, 0) >= 0;
    }
    if (fork() == 0) _exit(syscall(SYS_iopl, 3) == -1 ? 0 : 1);
    int status;
    wait(&status);
    return status == 0 ? good : 100;
}
C
gcc -o "$work/refused" "$work/refused.c"
expect refused 12 '^xos: process [0-9]+: iopl cannot be supported' "$xos" run -- "$work/refused"
[[ $(grep -c '^xos: process' "$work/err") == 4 && $(wc -l <"$work/err") == 4 ]] &&
    grep -q ': modify_ldt cannot' "$work/err" && grep -q ': ioperm cannot' "$work/err" && grep -q 'arch_prctl(ARCH_SHSTK_ENABLE) cannot' "$work/err" || {
    echo "FAIL refused: not a line for each: $(cat "$work/err")"
    failures=$((failures + 1))
}
for quiet in XOS_QUIET=1 XOS_QUIET=0; do
    option=$([[ $quiet == *0 ]] && echo --quiet || true)
    expect "refused-quietly $quiet $option" 12 - env $quiet "$xos" run $option -- "$work/refused"
    [[ ! -s $work/err ]] || { echo "FAIL refused-quietly: $(cat "$work/err")"; failures=$((failures + 1)); }
done
expect quiet-bad 125 'XOS_QUIET' env XOS_QUIET=2 LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true

# A thread more than there are vCPUs: the program hears EAGAIN, and a line says why, once.
cat >"$work/threads.c" <<'C'
#include <pthread.h>
#include <unistd.h>
static void* wait_for_end(void* ends) { char c; return (void*)read(*(int*)ends, &c, 1); }
int main(void) {
    int ends[2], n = 0, failed = 0, error = 0;
    pthread_t threads[8];
    if (pipe(ends)) return 100;
    for (int i = 0; i < 8 && failed < 3; i++) {
        if (!(error = pthread_create(&threads[n], 0, wait_for_end, ends))) n++;
        else failed++;
    }
    close(ends[1]);
    for (int i = 0; i < n; i++) pthread_join(threads[i], 0);
    return 10 * n + error;
}
C
gcc -pthread -o "$work/threads" "$work/threads.c"
expect threads 80 - "$xos" run --vcpus=9 -- "$work/threads"
expect threads-refused 41 'a thread cannot be created: all 4 vCPUs are in use; raise --vcpus' "$xos" run --vcpus=4 -- "$work/threads"
[[ $(wc -l <"$work/err") == 1 ]] || { echo "FAIL threads-refused: more than a line: $(cat "$work/err")"; failures=$((failures + 1)); }
expect threads-quietly 41 - "$xos" run --quiet --vcpus=4 -- "$work/threads"
[[ ! -s $work/err ]] || { echo "FAIL threads-quietly: $(cat "$work/err")"; failures=$((failures + 1)); }
expect bad-vcpus 2 'vcpus' "$xos" run --vcpus=5000 -- true
expect bad-vcpus-variable 125 'XOS_VCPUS' env XOS_VCPUS=0 LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
expect vcpus-most 80 - "$xos" run --vcpus=4096 -- "$work/threads"

# What tells a program that it may use restartable sequences says no, also to a constructor, and to both loaders' programs.
cat >"$work/rseq.c" <<'C'
#include <stddef.h>
#include <sys/auxv.h>
#include <unistd.h>
extern const unsigned __rseq_size __attribute__((weak));
static int before = -1;
static int says(void) { return (&__rseq_size && __rseq_size) + (getauxval(27) || getauxval(28)); }
__attribute__((constructor)) static void look(void) { before = says(); }
int main(void) { return before * 10 + says(); }
C
gcc -o "$work/rseq" "$work/rseq.c"
gcc -static -o "$work/rseq-static" "$work/rseq.c"
expect rseq 0 - "$xos" run -- "$work/rseq"
expect rseq-own 0 - "$xos" run --loader=own -- "$work/rseq"
expect rseq-static 0 - "$xos" run -- "$work/rseq-static"
# A cell in a cell: said at once, whoever it is that wants one.
status=0
timeout 60 "$xos" run -- "$xos" doctor >"$work/out" 2>"$work/err" </dev/null || status=$?
if [[ $status != 1 ]] || ! grep -Eq 'fail +cell +does not start: this process is in a cell already' "$work/out" ||
    ! grep -q 'without `xos run`' "$work/out" ||
    grep -q 'bug of libxos' "$work/out"; then
    echo "FAIL nested: status $status: $(grep -E 'fail' "$work/out") $(head -c 300 "$work/err")"
    failures=$((failures + 1))
fi
expect nested-without-follow 0 - "$xos" run --follow=none -- sh -c '"$0" run -- true' "$xos"

# A limit that is too low is named, and what can be done.
expect limit-of-data 125 'RLIMIT_DATA .ulimit -d.*--mem' sh -c 'ulimit -d 100000; exec "$0" run -- true' "$xos"
expect limit-of-address-space 125 'RLIMIT_AS .ulimit -v.*--mem' sh -c 'ulimit -v 200000; exec "$0" run -- true' "$xos"

# The program's output is its own: statistics go to standard error, also when it has closed that.
"$xos" run --stats -- sh -c 'echo one; exec 2>&-' >"$work/out" 2>"$work/err"
[[ $(cat "$work/out") == one ]] && grep -q 'system calls' "$work/err" || {
    echo "FAIL stats with standard error closed"
    failures=$((failures + 1))
}
exit $((failures != 0))

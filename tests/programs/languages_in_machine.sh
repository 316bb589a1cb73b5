#!/usr/bin/env bash
# languages_in_machine.sh XOS [--run-option=OPTION | ENGINE-OPTION]...: runs bash, gcc and some of python3's own tests
# natively and in a cell, in an emulated machine. They are taken there with their libraries and the files that they read.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
xos=$(realpath "$1")
shift
preload=$(realpath "$(dirname "$xos")/../lib/libxos-preload.so")

options=() run_options=()
for option; do
    if [[ $option == --run-option=* ]]; then run_options+=("$option"); else options+=("$option"); fi
done

loader=$(dirname "$preload")/xos/xos-loader
pack=(--program "$xos" --file "$preload=$preload" --file "$loader=$loader" --file "$here=/programs")
need() {
    [[ -e $1 ]] || { echo "languages_in_machine: $1 is missing; run tools/setup.sh test" >&2; exit 1; }
}
for name in as bash cat diff env false gcc head ld mkfifo python3 sed seq sh sha256sum sleep sort tac tee tr true wc yes; do
    need "/usr/bin/$name"
    pack+=(--program "/usr/bin/$name")
done
compiler=$(dirname "$(gcc -print-file-name=cc1)")
libraries=/usr/lib/x86_64-linux-gnu
for name in cc1 collect2; do
    need "$compiler/$name"
    pack+=(--program "$compiler/$name")
done
for file in /usr/include/stdc-predef.h "$compiler"/{crtbeginS.o,crtendS.o,libgcc.a,libgcc_s.so,liblto_plugin.so} \
            "$libraries"/{Scrt1.o,crti.o,crtn.o,libc.so,libc_nonshared.a,libgcc_s.so.1,libcrypto.so.3,libffi.so.8}; do
    need "$file"
    pack+=(--file "$(realpath "$file")=$file")
done
need /usr/lib/python3.11/test/test_threading.py
for file in /usr/lib/python3.11/*; do
    case ${file##*/} in
        # The rest of its tests would be most of the machine's memory.
        test) ;;
        __pycache__ | idlelib | tkinter | lib2to3 | pydoc_data | distutils | ensurepip) ;;
        *) pack+=(--file "$file=$file") ;;
    esac
done
for file in __init__.py support subprocessdata fork_wait.py signalinterproctester.py lock_tests.py \
            test_{signal,subprocess,thread,threading,fork1}.py; do
    [[ -e /usr/lib/python3.11/test/$file ]] &&
        pack+=(--file "/usr/lib/python3.11/test/$file=/usr/lib/python3.11/test/$file")
done
modules=(test_fork1 test_thread
         "test_threading:ThreadTests.test_various_ops,ThreadTests.test_foreign,ThreadTests.test_main_thread,Condition,Barrier,ThreadingException"
         "test_signal:PosixTests,WakeupSignal,SiginterruptTest,ItimerTest,PendingSignalsTests,StressTest"
         "test_subprocess:ProcessTestCase.test_c,POSIXProcessTestCase.test_pa")
exec "$here/../engines/qemu-svm.sh" --mem 2048 --timeout 840 "${options[@]}" "${pack[@]}" -- sh -c "
    cd /; status=0
    mkdir /tmp/compiled && bash /programs/scripts/compile.sh /tmp/compiled || { echo 'gcc fails natively'; status=1; }
    python3 /programs/pairs.py ${run_options[*]} '$xos' /programs/machine.list || status=1
    python3 /programs/python_suite.py ${run_options[*]} '$xos' ${modules[*]} || status=1
    exit \$status"

#!/bin/sh
# lifetime.sh MODULE-TEST: runs inside an emulated machine, with xos.ko loaded (tests/engines/*.sh --module).
#
# It runs the module's own tests in both of the module's forms, and between them does things to the module: it removes
# it while it is in use and afterwards, reloads KVM at another address, takes processors away, and locks the kernel down.
set -u

fail() {
    echo "lifetime: $*"
    exit 1
}
references() { cat /sys/module/xos/refcnt; }
free() { [ "$(references)" = 0 ] || fail "$1 has left $(references) references to the module"; }
# Files are closed for good a little after the process that had them has ended.
settled() {
    for _ in $(seq 1000); do [ "$(references)" = 0 ] && return; done
    free "$1"
}
load_kvm() { for m in kvm.ko $(grep -E '^kvm-' /modules/order); do insmod "/modules/$m" || fail "cannot load $m"; done; }
remove_kvm() {
    for m in $(lsmod | awk '/^kvm_/ { print $1 }') kvm; do rmmod "$m" || fail "cannot remove $m"; done
}

test=$1
simple="a call is made for the thread that rings"

echo "== the tests, calls made on KVM's bus"
"$test" || fail "the tests failed"
settled "a test"

echo "== KVM is loaded again while the module stays"
remove_kvm
load_kvm
"$test" "$simple" || fail "after KVM had been loaded again"
settled "a test"

echo "== the module is removed and loaded again"
rmmod xos || fail "the module cannot be removed"
[ ! -e /dev/xos ] || fail "/dev/xos outlives its module"
insmod /modules/xos.ko loop=1 || fail "the module cannot be loaded again"

echo "== the tests, calls made in a loop around KVM_RUN"
XOS_TEST_LOOP=1 "$test" || fail "the tests failed with loop=1"
settled "a test"
rmmod xos
insmod /modules/xos.ko || fail "the module cannot be loaded a third time"

if [ -w /sys/devices/system/cpu/cpu1/online ]; then
    echo "== processors come and go"
    "$test" "signals in great number lose no call,vCPUs ring at the same time" &
    for _ in 1 2 3; do
        echo 0 >/sys/devices/system/cpu/cpu1/online
        echo 1 >/sys/devices/system/cpu/cpu1/online
    done
    wait $! || fail "the tests failed while processors came and went"
    settled "a test"
fi

echo "== without KVM there is nothing to attach"
remove_kvm
"$test" "$simple" >/dev/null && fail "a VM without KVM"
load_kvm

echo "== a locked-down kernel"
mount -t securityfs none /sys/kernel/security
echo integrity >/sys/kernel/security/lockdown || fail "this kernel has no lockdown"
(exec 3<>/dev/xos) 2>/dev/null && fail "/dev/xos opens on a locked-down kernel"
rmmod xos || fail "the module cannot be removed"
insmod /modules/xos.ko 2>/dev/null && fail "the module loads on a locked-down kernel"
echo "lifetime: passed"

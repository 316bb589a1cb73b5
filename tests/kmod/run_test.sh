#!/bin/sh
# run_test.sh XOS: tests, inside an emulated machine with xos.ko loaded, what the command says of the module and what
# programs see of it.
xos=$1
export LC_ALL=C
failures=0
check() {
    if eval "$2"; then
        echo "ok   $1"
    else
        echo "FAIL $1"
        sed 's/^/     /' /tmp/err
        failures=$((failures + 1))
    fi
}
xos() { "$xos" "$@" >/tmp/out 2>/tmp/err; }
said() { grep -Eq -- "$1" /tmp/err; }

xos run --stats -- /bin/ls /
check "auto takes the module" 'said "transport module" && said "openat +[0-9]+ +module"'
xos run --transport=module --stats -- /bin/ls /
check "the module is there" 'said "transport module"'
xos run --transport=exit --stats -- /bin/ls /
check "an option switches it off" 'said "transport exit" && said "openat +[0-9]+ +exit"'
xos run --transport=module --trace=/tmp/log --stats -- /bin/ls /
check "a trace leaves nothing to the module" 'said "transport exit" && [ $(grep -c "openat.* <exit " /tmp/log) -ge 1 ] &&
    grep -q "exit_group(0) = ? <emulated>" /tmp/log'

# Processes, pipes, signals and files: the same as natively.
program='$SIG{ALRM} = sub { print "alarm\n" }; alarm 1; my $got = select(undef, undef, undef, 5);
    print "$!\n"; open(my $ls, "-|", "/bin/ls /") or die; my @all = <$ls>; close $ls; print scalar(@all), "\n";
    my $pid = fork; if (!$pid) { kill STOP => $$; sleep 1; exit 7 } waitpid($pid, 2); print $? >> 8, "\n";
    kill CONT => $pid; waitpid($pid, 0); print $? >> 8, "\n"; print `echo again | /usr/bin/sort`;'
/usr/bin/perl -e "$program" >/tmp/native 2>&1
xos run --transport=module -- /usr/bin/perl -e "$program"
check "a program does the same" 'cat /tmp/out /tmp/err | cmp - /tmp/native && [ $(wc -l </tmp/native) -ge 6 ]'

xos doctor
check "doctor" 'grep -Eq "^ok +xos.ko +usable; 16 MiB of fresh memory lie in [0-9]+ extents" /tmp/out'

rmmod xos
xos run --transport=module -- /bin/ls /
check "without a module, one that is wanted is an error" '[ $? != 0 ] && said "module is not loaded"'
xos run --stats -- /bin/ls /
check "without a module, auto goes without" 'said "transport exit"'
exit $failures

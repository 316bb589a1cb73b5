#!/usr/bin/env bash
# loader.sh XOS PROGRAMS [OPTION-OF-RUN]...: who runs in a cell and who does not, and what is left behind.
# REPEAT (100): how many programs are executed in a row.
set -euo pipefail
xos=$1 programs=$(realpath "$2")
shift 2
options=("$@")
repeat=${REPEAT:-100}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

failed() {
    echo "FAIL $*"
    failures=$((failures + 1))
}

# says NAME WANTED OPTIONS-OF-RUN -- COMMAND...: the words that the command prints.
says() {
    local name=$1 wanted=$2 extra=() got status=0
    shift 2
    while [[ $1 != -- ]]; do extra+=("$1"); shift; done
    got=$(timeout 100 "$xos" run "${options[@]}" "${extra[@]}" "$@" 2>"$work/err" </dev/null | tr '\n' ' ') || status=$?
    if [[ ${got% } == "$wanted" && $status == 0 ]]; then
        echo "ok   $name"
    else
        failed "$name: '${got% }', not '$wanted' (status $status): $(head -c 500 "$work/err")"
    fi
}

where=$programs/where static=$programs/where-static
for program in "$where" "$static" "$programs/where-musl"; do
    [[ -x $program ]] || { echo "loader: $program is missing; run tools/setup.sh test and build again" >&2; exit 1; }
    says "in a cell: ${program##*/}" cell -- "$program"
    says "in a cell: ${program##*/} by the own loader" cell --loader=own -- "$program"
    says "without an environment: ${program##*/}" cell -- env -i "$program"
    says "executed by a static program: ${program##*/}" cell -- "$programs/execs-static" execv "$program"
    says "without an environment, by a static program: ${program##*/}" cell -- "$programs/execs-static" no-environment "$program"
    says "spawned: ${program##*/}" 'cell status 0 cell status 0 cell status 0' -- "$programs/execs" spawn "$program"
    says "followed: ${program##*/}" 'cell cell' --follow=all -- sh -c "$program; env -i $program"
    says "not followed: ${program##*/}" 'linux linux linux' --follow=none -- sh -c "$program; env -i $program; $programs/execs execv $program"
    says "first, not followed: ${program##*/}" cell --follow=none -- "$program"
    printf '#!%s\n' "$program" >"$work/script"
    chmod +x "$work/script"
    says "script of ${program##*/}" 'cell cell' -- sh -c "$work/script; env -i $work/script"
done
says 'a variable of the application' 'cell linux' -- sh -c "$where; XOS_FOLLOW=none sh -c $where"
says 'descriptor that closes' cell -- "$programs/execs" fexecve-closing "$static"
says 'from a thread' cell -- "$programs/execs" thread "$static"

# Rights.
cp "$static" "$work/own"
chmod u+s,g+s "$work/own"
says 'set-user-ID to whom it runs as' cell -- sh -c "$work/own"
if [[ $(id -u) == 0 ]]; then
    chmod 755 "$work"
    for kind in user group; do
        cp "$static" "$work/$kind"
        chown 65534:65534 "$work/$kind"
        chmod "$([[ $kind == user ]] && echo u+s || echo g+s)" "$work/$kind"
        says "set-$kind-ID to another" linux --stats -- sh -c "$work/$kind; true"
        grep -q "starts $work/$kind outside: it is set-$kind-ID" "$work/err" || failed "set-$kind-ID: --stats does not say so"
        says "set-$kind-ID to another, first" linux -- "$work/$kind"
        grep -q "is set-$kind-ID: it runs outside" "$work/err" || failed "set-$kind-ID: xos run does not say so"
    done
fi
# Executable, but not readable, which root always is.
cp "$where" "$work/unreadable"
chmod 111 "$work/unreadable"
says 'unreadable' cell -- sh -c "$work/unreadable"

# /proc/self/exe, where the process may not tell Linux, and where it may.
for drop in -setpcap -sys_admin,-checkpoint_restore; do
    for program in start start-static start-musl; do
        for option in auto own; do
            said=$(timeout 60 "$xos" run "${options[@]}" --loader=$option -- setpriv --bounding-set=$drop "$programs/$program" 2>&1 | grep -aE '^(exe|comm|wrong:) ') || true
            [[ $said == "exe $programs/$program"$'\n'"comm ${program:0:15}" ]] && echo "ok   /proc/self/exe of $program, $option, $drop" ||
                failed "/proc/self/exe of $program, $option, $drop: $said"
            # Executed by that name, too.
            says "executing /proc/self/exe, $option, $drop" 'argc 2' -- \
                setpriv --bounding-set=$drop sh -c "$programs/execs-static execv /proc/self/exe execv $programs/$program word | head -1"
        done
    done
done

# Nothing is left: descriptors, memory, children.
for way in repeat-fork repeat-spawn; do
    says "$repeat by $way of a static program" 'children left: -1' -- "$programs/execs" $way /bin/busybox "$repeat" true
    says "$repeat by $way of a dynamic program" 'children left: -1' -- "$programs/execs-static" $way /bin/true "$repeat"
done

# Nor processes after a kill at any moment.
session_of() { cut -d ')' -f 2 "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 5; }
in_session() {
    local process
    for process in /proc/[0-9]*; do
        [[ $(session_of "${process#/proc/}" || true) == "$1" ]] && echo "${process#/proc/}"
    done
    return 0
}
for ((round = 1; round <= ${KILLS:-10}; round++)); do
    setsid "$xos" run "${options[@]}" -- "$programs/execs-static" repeat-fork "$static" 1000000 >/dev/null 2>&1 &
    leader=$!
    usleep=$((RANDOM % 120))
    read -rt "0.$(printf %03d $usleep)" <> <(:) || true
    kill -9 "$leader"
    wait "$leader" 2>/dev/null || true
    # A child that it had just made ends by itself.
    for ((patience = 0; patience < 100; patience++)); do
        rest=$(in_session "$leader")
        [[ -z $rest ]] && break
        read -rt 0.1 <> <(:) || true
    done
    [[ -z $rest ]] || failed "killed after $usleep ms: $rest is still there"
done
echo "killed $((round - 1)) times"
exit $((failures != 0))

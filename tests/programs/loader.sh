#!/usr/bin/env bash
# loader.sh XOS PROGRAMS [OPTION-OF-RUN]...: tests which programs run in a cell and which do not, and that nothing is left
# behind. REPEAT (100 by default) is the number of programs that are executed in a row.
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
    # /dev/kvm is not everybody's.
    mkdir -p "$work/tree/bin" "$work/tree/lib/xos"
    cp "$xos" "$work/tree/bin/xos"
    cp "$(dirname "$xos")/../lib/libxos-preload.so" "$work/tree/lib"
    cp "$(dirname "$xos")/../lib/xos/xos-loader" "$work/tree/lib/xos"
    cp "$where" "$work/where"
    cp "$static" "$work/where-static"
    nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    # lacks_rights NAME WANTED COMMAND...: the command's output and status, and that a line says why.
    lacks_rights() {
        local name=$1 wanted=$2 got status=0
        shift 2
        got=$(timeout 100 "$@" 2>"$work/err" </dev/null) || status=$?
        if [[ "$got $status" == "$wanted" ]] && grep -q 'no permission to open /dev/kvm' "$work/err"; then
            echo "ok   without rights, $name"
        else
            failed "without rights, $name: '$got $status', not '$wanted': $(head -c 500 "$work/err")"
        fi
    }
    programs_without_rights=(where where-static)
    if "${nobody[@]}" test -w /dev/kvm; then
        echo "skip without rights: everybody may open /dev/kvm here"
        programs_without_rights=()
    fi
    for program in "${programs_without_rights[@]}"; do
        run=("$xos" run "${options[@]}")
        lacks_rights "$program" 'linux 0' "${run[@]}" "${nobody[@]}" "$work/$program"
        lacks_rights "$program, fail" ' 125' "${run[@]}" --fallback=fail "${nobody[@]}" "$work/$program"
        run=("${nobody[@]}" "$work/tree/bin/xos" run "${options[@]}")
        lacks_rights "first, $program" ' 125' "${run[@]}" "$work/$program"
        lacks_rights "first, $program, fail" ' 125' "${run[@]}" --fallback=fail "$work/$program"
        lacks_rights "first, $program, outside" 'linux 0' "${run[@]}" --fallback=outside "$work/$program"
        lacks_rights "first, $program, outside, own loader" 'linux 0' "${run[@]}" --fallback=outside --loader=own "$work/$program"
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

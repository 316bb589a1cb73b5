# What shell scripts do with processes: pipes, jobs, traps, substitutions, waiting.
cd "$1" || exit 1
echo "== pipes"
printf '%s\n' c a b | sort | tee sorted | tac | tr a-z A-Z
false | true | (exit 3) | cat
echo "${PIPESTATUS[@]}"
set -o pipefail
yes | head -1000 | wc -l; echo "status $?"
set +o pipefail
echo "== here documents"
cat <<A <<<"a string" 3<<B
not seen
A
seen by nobody
B
cat <<-'END'
	$not $(expanded)
	END
value=expanded
cat <<END
$value $((6 * 7)) $(echo substituted)
END
echo "== process substitution"
diff <(seq 5) <(seq 1 2 9)
mkfifo written
seq 3 > >(sed 's/^/written /' >written)
cat written
echo "== jobs"
(exit 7) & first=$!
(exit 8) & second=$!
wait $first; echo "first $?"
wait $second; echo "second $?"
wait 999999 2>/dev/null; echo "no child $?"
for status in 4 5 6; do (exit $status) & done
for _ in 1 2 3; do wait -n; statuses+=" $?"; done
tr ' ' '\n' <<<"$statuses" | sort | tr '\n' ' '; echo
wait -n; echo "none left $?"
echo "== traps"
trap 'echo "got USR1"' USR1
trap 'echo "got CHLD"; trap - CHLD' CHLD
kill -USR1 $$
/bin/true
(trap 'echo inner exit' EXIT; exit 2); echo "status $?"
trap 'echo "line failed"' ERR
false
trap - ERR
sleep 100 & kill -TERM $!; wait $!; echo "killed $?"
{ (kill -SEGV $BASHPID); } 2>/dev/null; echo "segv $?"
trap '' PIPE
(echo into nowhere; echo "status $?" >&2) 2>pipe-status | true
trap - PIPE
echo "== coprocess"
coproc UPPER { while read -r line; do echo "${line^^}"; done; }
echo hello >&"${UPPER[1]}"
read -r answer <&"${UPPER[0]}"; echo "$answer"
pid=$UPPER_PID
exec {UPPER[1]}>&-
wait "$pid"; echo "coprocess $?"
echo "== subshells and limits"
x=1; (x=2; echo $x); echo $x
(ulimit -n 30; ulimit -n; echo "$(echo nested "$(echo deeper)")")
f() { local n=$1; (( n == 0 )) && return 9; (f $((n - 1))); }
f 20; echo "depth $?"
for i in $(seq 40); do /bin/true & done; wait; echo "forty $?"
echo "== exec"
(exec -a renamed sh -c 'echo $0 $1' renamed last)
exec 5>file; echo to five >&5; exec 5>&-; cat file
read -rt 0.05 nothing < <(sleep 1); echo "timed out $(($? > 128))"
trap 'echo bye' EXIT
exec 6<sorted; read -r line <&6; echo "$line"
exit 11

#!/bin/bash
# Drives kvd with the tools of Redis and compares every reply with what is expected.
#
#     kvd_drive.sh ENGINE KVD_BINARY [extra kvd arguments]
#
# KVD_REQUESTS (20000 by default) sets the length of the benchmarks. KVD_TIMEOUT (120 by default) bounds each in seconds.
set -u -o pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 ENGINE KVD_BINARY [extra kvd arguments]" >&2
    exit 2
fi
engine=$1 kvd=$2
shift 2
requests=${KVD_REQUESTS:-20000}
limit=${KVD_TIMEOUT:-120}
for tool in redis-cli redis-benchmark; do
    command -v $tool >/dev/null || { echo "SKIP: no $tool" >&2; exit 77; }
done

work=$(mktemp -d)
server=
cleanup() {
    [ -n "$server" ] && { kill -KILL "$server"; wait "$server"; } 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    echo "FAIL: $*" >&2
    [ -s "$work/errors" ] && sed 's/^/  kvd: /' "$work/errors" >&2
    exit 1
}

mkfifo "$work/out"
"$kvd" --engine="$engine" --port 0 "$@" >"$work/out" 2>"$work/errors" &
server=$!
exec 3<"$work/out"
read -r -t 60 ready <&3 || fail "kvd did not say that it is ready"
[[ $ready =~ ^kvd:\ ready\ on\ 127\.0\.0\.1:([0-9]+)\ engine=$engine\ mode=[a-z0-9]+$ ]] ||
    fail "unexpected ready line: $ready"
port=${BASH_REMATCH[1]}

# Left of " => " a command line for redis-cli, right of it the reply as redis-cli words it.
cat >"$work/table" <<'EOF'
PING => PONG
PING "hello there" => "hello there"
ECHO "a\x00b" => "a\x00b"
FLUSHALL => OK
DBSIZE => (integer) 0
GET absent => (nil)
SET key value => OK
GET key => "value"
get KEY => (nil)
SET "bin\x00\r\n" "\xff\x00" => OK
GET "bin\x00\r\n" => "\xff\x00"
SET empty "" => OK
GET empty => ""
SET key other NX => (nil)
SET key other XX => OK
GET key => "other"
SET new v XX => (nil)
SET new v NX => OK
DEL new new absent => (integer) 1
EXISTS key key absent => (integer) 2
INCR n => (integer) 1
INCR n => (integer) 2
DECR n => (integer) 1
DECR m => (integer) -1
INCR key => (error) ERR value is not an integer or out of range
SET big 9223372036854775807 => OK
INCR big => (error) ERR increment or decrement would overflow
GET big => "9223372036854775807"
MSET a 1 b 2 c 3 => OK
MGET a absent c => 1) "1" 2) (nil) 3) "3"
MSET a 1 b => (error) ERR wrong number of arguments for 'mset' command
TTL absent => (integer) -2
TTL a => (integer) -1
PTTL a => (integer) -1
EXPIRE a 100 => (integer) 1
TTL a => (integer) 100
EXPIRE absent 100 => (integer) 0
SET a 1 => OK
TTL a => (integer) -1
SET a 1 EX 200 => OK
TTL a => (integer) 200
SET a 1 PX 300000 NX => (nil)
EXPIRE a -1 => (integer) 1
EXISTS a => (integer) 0
SET a 1 EX 0 => (error) ERR invalid expire time in 'set' command
SET a 1 EX ten => (error) ERR value is not an integer or out of range
SET a 1 EX => (error) ERR syntax error
SET a 1 NX XX => (error) ERR syntax error
SET a 1 EX 1 PX 1 => (error) ERR syntax error
SET a => (error) ERR wrong number of arguments for 'set' command
GET => (error) ERR wrong number of arguments for 'get' command
GET a b => (error) ERR wrong number of arguments for 'get' command
NOSUCH a => (error) ERR unknown command 'NOSUCH', with args beginning with: 'a' 
SELECT 0 => OK
SELECT 1 => (error) ERR DB index is out of range
CONFIG GET save => 1) "save" 2) ""
CONFIG GET appendonly => 1) "appendonly" 2) "no"
CONFIG GET nosuch => (empty array)
CLIENT SETNAME drive => OK
CLIENT SETINFO LIB-NAME drive => OK
COMMAND => (empty array)
FLUSHDB => OK
DBSIZE => (integer) 0
EOF
sed 's/ => .*//' "$work/table" >"$work/commands"
sed 's/^.* => //' "$work/table" >"$work/expected"
cli() { timeout "$limit" redis-cli -p "$port" "$@"; }

# One array a line: redis-cli puts the elements on lines of their own, the first one unindented.
cli --no-raw <"$work/commands" 2>&1 |
    awk '/^[2-9]\) / { line = line " " $0; next } NR > 1 { print line } { line = $0 }
         END { print line }' >"$work/replies" || fail "redis-cli failed"
if ! diff "$work/expected" "$work/replies" >/dev/null; then
    paste -d '\t' "$work/commands" "$work/expected" "$work/replies" |
        awk -F '\t' '$2 != $3 { print "  " $1 "\n    expected: " $2 "\n    got:      " $3 }' >&2
    fail "$engine: replies differ"
fi

check() {
    local expected=$1 got
    shift
    got=$(cli "$@" 2>&1) || fail "redis-cli $* failed: $got"
    [ "$got" = "$expected" ] || fail "redis-cli $*: expected '$expected', got '$got'"
}

# A key with much time left is there; one with little is asked for until it is gone.
check OK SET brief v PX 3600000
check 1 EXISTS brief
check OK SET brief v PX 200
deadline=$((SECONDS + 20))
until [ "$(cli EXISTS brief)" = 0 ]; do
    [ $SECONDS -lt $deadline ] || fail "a key with PX 200 is still there after 20 s"
done

# Raw connections: inline commands, and a protocol error that ends the connection.
raw() {
    exec 4<>"/dev/tcp/127.0.0.1/$port" || fail "cannot connect"
    printf "$1" >&4
    got=$(timeout "$limit" cat <&4 | tr -d '\r')
    exec 4>&-
    [ "$got" = "$2" ] || fail "raw '$1': expected '$2', got '$got'"
}
raw 'PING\r\nECHO "a b"\nQUIT\r\n' $'+PONG\n$3\na b\n+OK'
raw '*1\r\n$4\r\nPING\r\n*1\r\nPING\r\n' $'+PONG\n-ERR Protocol error: expected \'$\', got \'P\''
raw '*2\r\n$3\r\nGET\r\n$536870913\r\n' '-ERR Protocol error: invalid bulk length'

# A value far larger than the socket buffers goes in and out whole.
head -c 20000000 /dev/urandom >"$work/value"
check OK -x SET large <"$work/value"
cli --raw GET large | head -c -1 | cmp - "$work/value" || fail "a 20 MB value came back changed"
check 1 DEL large

bench() {
    timeout "$limit" redis-benchmark -p "$port" -q "$@" >"$work/bench" 2>&1 ||
        fail "redis-benchmark $*: exit status $?: $(tr '\r' '\n' <"$work/bench" | tail -n 3)"
    tr '\r' '\n' <"$work/bench" >"$work/bench.lines"
    if grep -iE 'error|warning|refused' "$work/bench.lines" >&2; then fail "redis-benchmark $*"; fi
    grep 'requests per second' "$work/bench.lines"
}
bench -n "$requests" -c 20 -t set,get,incr,mset
bench -n "$requests" -c 20 -t set,get,incr,mset -P 16
bench -n "$requests" -c 200 -t set,get -d 1000 -r 20

# What redis-benchmark left (twenty keys, each chosen many times): two INCR runs (the second in whole pipelines) and 1000-byte values.
increments=$((requests + (requests + 15) / 16 * 16))
check $((increments + 1)) INCR counter:__rand_int__
value=$(cli GET key:000000000007)
[ ${#value} -eq 1000 ] || fail "key:000000000007 has ${#value} bytes after the benchmark, not 1000"
check OK SET after benchmark
check benchmark GET after

info=$(cli INFO) || fail "INFO failed"
for field in "engine:$engine" mode: process_id: tcp_port:"$port" uptime_in_seconds: \
    connected_clients:1 total_commands_processed: total_connections_received: exits_total: \
    syscalls_forwarded: db0:keys=; do
    grep -q "^$field" <<<"$info" || fail "INFO lacks $field: $info"
done

# A client that never speaks must not hold up the end.
exec 5<>"/dev/tcp/127.0.0.1/$port"
kill -TERM "$server"
timeout 20 tail --pid="$server" -s 0.05 -f /dev/null || fail "kvd still runs 20 s after SIGTERM"
wait "$server"
status=$?
server=
[ $status -eq 0 ] || fail "kvd ended with status $status after SIGTERM"
echo "PASS: kvd engine=$engine"

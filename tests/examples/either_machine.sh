# The test of an example sources this file with its own arguments. They are PROGRAM, for this machine, or PROGRAM ENGINE
# MODE, for an emulated one (tests/engines), where PROGRAM must be static. The file sets `program`, and `command` to what
# starts it. The function `fail` shows `output`.
[ $# -eq 1 ] || [ $# -eq 3 ] || { echo "usage: $0 PROGRAM [ENGINE MODE]" >&2; exit 2; }
program=$1
example=$(basename "$0" _test.sh)
output=
fail() {
    echo "FAIL: $*" >&2
    sed "s/^/  $example: /" <<<"$output" >&2
    exit 1
}
if [ $# -eq 3 ]; then
    command=("$2" --timeout 400 --file "$program=/$example" -- "/$example" "--mode=$3")
else
    command=("$program")
fi

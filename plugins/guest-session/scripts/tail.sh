# shellcheck shell=bash disable=SC2154
# Prints the last $3 lines of the log $2 of the session in $1.
set -u
dir=$1 which=$2 lines=$3
log=$dir/$which
[[ -f $log && ! -L $log ]] || refuse 3 "the session has no $which"
registration=
trap leave EXIT
read_number "$log-start"
until enter "$dir" "$which" "${number:-0}"; do
    # The beginning was freed just now: `number` is the new one.
    :
done
if ((number == 0)) && [[ -z $registration ]]; then
    exec tail -n "$lines" -- "$log"
fi
# Not from a hole.
tail -c "+$((number + 1))" -- "$log" | tail -n "$lines"

# shellcheck shell=bash disable=SC2154
# Prints where in the log $2 of the session in $1 its last $3 lines begin.
set -u
log=$1/$2 lines=$3
[[ -f $log && ! -L $log ]] || refuse 3 "the session has no $2"
size=$(exec stat -c %s -- "$log") || exit 1
for _ in 1 2 3 4 5; do
    read_number "$log-start"
    start=${number:-0}
    # Read from the end; never more than is kept, for before that there are only zeros.
    length=$(tail -n "$lines" -- "$log" | head -c "$((size - start + 1))" | wc -c) || exit 1
    before=$size
    size=$(exec stat -c %s -- "$log") || exit 1
    # A log that has grown meanwhile is looked at again; one that always grows, not for ever.
    ((size != before)) || break
done
offset=$((before - length))
((offset >= start)) || offset=$start
printf '%s\n' "$offset"

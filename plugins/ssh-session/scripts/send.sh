# shellcheck shell=bash disable=SC2154
# Writes all of stdin to the input of the session in $1 in one piece, within $2 milliseconds.
set -u
export LC_ALL=C
dir=$1 limit_ms=$2
umask 077
open_input "$dir"

payload=$(mktemp "$dir/.send.XXXXXX") || exit 1
trap 'rm -f -- "$payload"' EXIT
cat >"$payload" || refuse 1 "the payload cannot be stored in the guest"
# A lost connection looks like end of file: what lacks the mark at its end was cut short.
mark=${BANGER_END_MARK:?}
end=$(tail -c "${#mark}" -- "$payload" | tr -d '\0')
[[ $end == "$mark" ]] || refuse 1 "the payload was cut short: nothing was written"
truncate -s "-${#mark}" -- "$payload" || exit 1
size=$(stat -c %s -- "$payload") || exit 1

now_ms
deadline=$((now + limit_ms))

# Sets `left` to the seconds left, at least a millisecond: 0 would mean no limit.
seconds_left() {
    now_ms
    local ms=$((deadline - now))
    ((ms > 0)) || ms=1
    printf -v left '%d.%03d' "$((ms / 1000))" "$((ms % 1000))"
}

seconds_left
flock -w "$left" 9 || refuse 4 "another sender was busy: 0 of $size bytes were written"
takes_input "$dir" || refuse 3 "the session is not running"

# A write of 4096 bytes (PIPE_BUF) to a pipe is done whole or not at all, so dd's count is exact
# also when it is interrupted in one that blocks.
seconds_left
report=$(timeout -s INT -k 5 "$left" dd bs=4096 iflag=fullblock <"$payload" 2>&1 >&7)
code=$?
written=0
[[ $report =~ (^|$'\n')([0-9]+)\ bytes?\ .*copied ]] && written=${BASH_REMATCH[2]}
if [[ $code -eq 0 ]]; then
    exit 0
elif [[ $code -eq 124 ]] && takes_input "$dir"; then
    refuse 4 "the program did not read within the time: $written of $size bytes were written"
fi
refuse 3 "the program ended before it had read everything: $written of $size bytes were written"

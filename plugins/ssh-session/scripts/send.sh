# shellcheck shell=bash disable=SC2015,SC2034,SC2154
# Writes all of stdin to the input of the session in $1 in one piece, within $2 milliseconds.
set -u
export LC_ALL=C
dir=$1 limit_ms=$2
umask 077
check_input "$dir"

payload=$dir/.send.$$
trap 'rm -f -- "$payload"' EXIT
exec 5>"$payload" && cat >&5 && position_of "$$" 5 ||
    refuse 6 "the payload cannot be stored in the guest"
exec 5>&-
# A lost connection looks like end of file: what lacks the mark at its end was cut short.
mark=${BANGER_END_MARK:?}
IFS= read -r -d '' end < <(exec tail -c "${#mark}" -- "$payload")
[[ $end == "$mark" ]] || refuse 6 "the payload was cut short: nothing was written"
size=$((position - ${#mark}))

now_ms
deadline=$((now + limit_ms))

# Sets `left` to the seconds left, at least a millisecond: 0 would mean no limit.
seconds_left() {
    now_ms
    local ms=$((deadline - now))
    ((ms > 0)) || ms=1
    printf -v left '%d.%03d' "$((ms / 1000))" "$((ms % 1000))"
}

exec 9>>"$dir/input-lock" || refuse 6 "the writers' lock cannot be opened"
seconds_left
flock -w "$left" 9 || refuse 4 "another sender was busy: 0 of $size bytes were written"
open_input "$dir"

told='' late=
start_dd iflag=fullblock,count_bytes count="$size" if="$payload"
seconds_left
if ! await_dd "$left"; then
    late=1
    kill -s INT "$mover" 2>/dev/null
    await_dd ''
fi
((written < size)) || exit 0
if [[ -n $late ]] && is_running "$dir"; then
    refuse 4 "the program did not read within the time: $written of $size bytes were written"
fi
refuse_reader_gone "$dir" "$written of $size bytes were written"

# shellcheck shell=bash disable=SC2154
# Types all of stdin into the session in $1 in one piece, within $2 milliseconds. A line feed
# becomes a carriage return, which is what Enter types: programs that read keys take that for a line's
# end, and a terminal that reads lines turns it back. What tmux has taken, the program gets.
set -u
export LC_ALL=C
limit_ms=$2
umask 077
enter_session "$1"

payload=$(mktemp ./.send.XXXXXX) || exit 1
trap 'rm -f -- "$payload"' EXIT
cat >"$payload" || refuse 6 "the payload cannot be stored in the guest"
# A lost connection looks like end of file: what lacks the mark at its end was cut short.
mark=${BANGER_END_MARK:?}
end=$(tail -c "${#mark}" -- "$payload" | tr -d '\0')
[[ $end == "$mark" ]] || refuse 6 "the payload was cut short: nothing was written"
truncate -s "-${#mark}" -- "$payload" || exit 1
[[ -s $payload ]] || exit 0

type_file "$payload" "" timeout -k 5 "$((limit_ms / 1000 + 1))"
code=$?
[[ $code -ne 0 ]] || exit 0
[[ $code -lt 124 ]] || refuse 4 "tmux did not answer within the time: nothing was written"
refuse 3 "the session is not running"

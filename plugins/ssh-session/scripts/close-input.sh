# shellcheck shell=bash disable=SC2154
# Closes the input of the session in $1 once all that was sent is written, within $2 milliseconds.
# It is fine where it was closed already.
set -u
dir=$1 limit_ms=$2
umask 077
[[ -e $dir/input-closed ]] || check_input "$dir"

now_ms
deadline=$((now + limit_ms))
printf -v left '%d.%03d' "$((limit_ms / 1000))" "$((limit_ms % 1000 + (limit_ms == 0)))"
exec 9>>"$dir/input-lock" || refuse 6 "the writers' lock cannot be opened"
flock -w "$left" 9 || refuse 4 "a sender was busy: the input was not closed"
if [[ ! -e $dir/input-closed ]]; then
    check_input "$dir"
    : >"$dir/input-closed" || refuse 6 "the state directory cannot be written"
fi
exec 9>&-

# The supervisor has the input open as fd 7. A killed one has not.
same_boot "$dir" && lives "$dir/monitor-pid" || exit 0
kill -s USR1 "$pid" 2>/dev/null
exec {quiet}<> <(:)
while [[ -e /proc/$pid/fd/7 ]]; do
    now_ms
    ((now < deadline + 10000)) || refuse 4 "the supervisor did not close the input"
    read -r -t 0.01 -u "$quiet" _
done
# Not what the last read gave.
exit 0

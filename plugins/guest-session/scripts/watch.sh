# shellcheck shell=bash disable=SC2154
# Prints the id of each session of the backend $2 below $1 whose state has changed, as supervisors
# append it to one file, until stdin ends. A supervisor that was killed tells nothing. The log
# keeper frees the file's beginning (see keeper.sh), which moves nothing.
set -u
umask 077
changes=$1/.changes-$2
[[ -d $1 ]] || mkdir -p -- "$1" || exit 1
exec 4>>"$changes" || exit 1
exec 4>&-
size=$(exec stat -L -c %s -- "$changes") || exit 1
exec 3<&0 </dev/null
# From here on tail begins at a byte that is known, whenever it starts.
printf '\n'
trap 'exit 143' TERM HUP INT
tail -c "+$((size + 1))" -f -- "$changes" 3<&- &
reader=$!
end_with_stdin "$reader" >/dev/null 2>&1 &
watcher=$!
# shellcheck disable=SC2064 # their numbers as they are now
trap "kill -s TERM $reader $watcher 2>/dev/null" EXIT
exec 3<&-
wait "$reader"
code=$?
[[ $code -eq 143 ]] || exit "$code"
exit 0

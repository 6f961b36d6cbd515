# shellcheck shell=bash disable=SC2154
# Types stdin into the session in $1 until end of file, as the writer $2. What tmux has taken is
# counted: it keeps that until the program reads.
set -u
writer=$2
umask 077
enter_session "$1"
trap '' PIPE

# One call for each writer: the earlier one ends what it has begun, then itself.
exec 9>>".input.$writer.lock"
if ! flock -n 9; then
    ! lives ".input.$writer.pid" || kill -s TERM "$pid" 2>/dev/null
    flock -w 30 9 || refuse 4 "this writer's earlier connection is still busy"
fi
chunk=.input.$writer.piece count=.input.$writer.count
started_of "$$" && printf '%s\n' "$$ $started" >".input.$writer.pid" || exit 1
ending=''
trap 'ending=1' TERM
total=0
! read_value "$count" 24 || [[ ! $value =~ ^[0-9]{1,18}$ ]] || total=$value
printf '%s\n' "$total"

while [[ -z $ending ]]; do
    dd bs=65536 count=1 of="$chunk" status=none <&0 9>&- &
    # A signal ends the wait, but not what has been read already.
    if ! wait "$!"; then
        kill "$!" 2>/dev/null
        wait "$!"
    fi
    [[ -s $chunk ]] || break
    size=$(stat -c %s -- "$chunk") || exit 1
    type_file "$chunk" -r || refuse 3 "the session has ended"
    total=$((total + size))
    # In place: the number never gets shorter.
    printf '%s\n' "$total" 1<>"$count" || exit 1
    printf '%s\n' "$total"
done

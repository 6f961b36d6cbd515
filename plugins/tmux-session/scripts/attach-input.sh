# shellcheck shell=bash disable=SC2154,SC2015
# Types stdin into the session in $1 until end of file, as the writer $2. What tmux has taken is
# counted: it keeps that until the program reads.
set -u
writer=$2
umask 077
enter_session "$1"
trap '' PIPE

# One call for each writer: the earlier one ends what it has begun, then itself.
count=writers/$writer chunk=writers/$writer.piece
exec 8<>"$count" || refuse 6 "the state directory cannot be written"
if ! flock -n 8; then
    ! lives "$count.pid" || kill -s USR1 "$pid" 2>/dev/null
    flock -w 30 8 || refuse 4 "an earlier connection of this writer does not end"
fi
ending='' reader=''
trap 'ending=1; [[ -z $reader ]] || kill "$reader" 2>/dev/null' USR1
trap 'rm -f -- "$chunk"' EXIT
started_of "$$" && printf '%s\n' "$$ $started" >"$count.pid" || refuse 6 "the state directory cannot be written"
read_number "$count"
total=${number:-0}
printf '%s\n' "$total"

while [[ -z $ending ]]; do
    dd bs=65536 count=1 of="$chunk" status=none <&0 8>&- &
    reader=$!
    [[ -z $ending ]] || kill "$reader" 2>/dev/null
    # A signal ends a wait early.
    while ! wait "$reader" && kill -0 "$reader" 2>/dev/null; do :; done
    reader=
    [[ -s $chunk ]] || break
    size=$(stat -c %s -- "$chunk") || exit 1
    type_file "$chunk" -r || refuse 3 "the session has ended"
    total=$((total + size))
    # In place: the number never gets shorter.
    printf '%s\n' "$total" 1<>"$count" || refuse 6 "the state directory cannot be written"
    printf '%s\n' "$total"
done

# Copies stdin to the input of the session in $1 until end of file. The writers' lock is taken for
# each chunk of what has arrived (64 KiB at most), so that nothing comes between the bytes of a sender,
# and a sender need not wait until this ends.
set -u
dir=$1
umask 077
open_input "$dir"

chunk=$(mktemp "$dir/.input.XXXXXX") || exit 1
trap 'rm -f -- "$chunk"' EXIT
while dd bs=65536 count=1 of="$chunk" status=none && [[ -s $chunk ]]; do
    flock 9
    takes_input "$dir" || refuse 3 "the session is not running"
    cat -- "$chunk" 2>/dev/null >&7 || refuse 3 "the program has ended or closed its input"
    flock -u 9
done

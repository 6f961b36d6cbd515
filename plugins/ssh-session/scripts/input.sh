# shellcheck shell=bash disable=SC2094
# Opens a session's input. Needs state.sh.

# $1: the state directory. Opens its FIFO for writing as fd 7 and the writers' lock as fd 9.
# Opening for both first cannot block; keeping only the end for writing, we learn when no reader is left.
open_input() {
    [[ -d $1 ]] || refuse 3 "there is no such session"
    [[ -p $1/stdin ]] || refuse 3 "the session takes no input: it was launched without a pipe"
    takes_input "$1" || refuse 3 "the session is not running"
    exec 9>>"$1/input-lock" 6<>"$1/stdin" 7>"$1/stdin" 6>&- || refuse 1 "the session's input cannot be opened"
    # A writer is told by an error rather than killed.
    trap '' PIPE
}

# $1: the state directory.
takes_input() {
    same_boot "$1" && lives "$1/pid"
}

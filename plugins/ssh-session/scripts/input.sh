# shellcheck shell=bash disable=SC2015,SC2034,SC2094,SC2154
# Writes to a session's input. Needs state.sh.

# $1: the state directory. Ends the script where the session takes no input.
check_input() {
    [[ -d $1 ]] || refuse 3 "there is no such session"
    is_running "$1" || refuse 3 "the session is not running"
    [[ ! -e $1/input-closed ]] || refuse 3 "the session's input was closed"
    [[ -p $1/stdin ]] || refuse 3 "the session's input is gone: $1/stdin is no pipe"
}

is_running() {
    same_boot "$1" && lives "$1/pid"
}

# $1: the state directory. Opens the session's input as fd 7. The writers' lock must be held, and fd 7
# be closed before it is released: the program reads its end once nobody has it open.
# Opening for both first cannot block; keeping only the end for writing, we learn when no reader is left.
open_input() {
    check_input "$1"
    exec 6<>"$1/stdin" 7>"$1/stdin" 6>&- && [[ -p /dev/fd/7 ]] ||
        refuse 1 "the session's input cannot be opened"
    # A writer is told by an error rather than killed.
    trap '' PIPE
}

# Starts "$@", which is a dd that writes to fd 7. A write of 4096 bytes (PIPE_BUF) to a pipe is done
# whole or not at all, so dd's count is exact also when SIGINT interrupts one that blocks.
start_dd() {
    exec 4< <(exec dd bs=4096 "$@" 2>&1 >&7 8>&- 9>&-)
    mover=$!
}

# Sets `written` to what dd has told on fd 4. $1: for how many seconds to wait, or empty.
# Fails where that was not enough.
await_dd() {
    local report='' code
    IFS= read -r -d '' ${1:+-t "$1"} -u 4 report
    code=$?
    told+=$report
    ((code <= 128)) || return 1
    exec 4<&-
    mover=
    written=0
    [[ $told =~ (^|$'\n')([0-9]+)\ bytes?\ .*copied ]] && written=${BASH_REMATCH[2]}
    return 0
}

# $1: the state directory, $2: how much was written. Ends the script.
refuse_reader_gone() {
    if is_running "$1"; then
        refuse 3 "the program has closed its input: $2"
    fi
    refuse 3 "the program ended before it had read everything: $2"
}

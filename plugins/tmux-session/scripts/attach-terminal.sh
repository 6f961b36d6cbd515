# shellcheck shell=bash disable=SC2154
# Shows the session in $1 on this terminal; where $2 is "observe", without keys and without a say
# in the size.
set -u
enter_session "$1"
known_terminal "${TERM:-}" xterm-256color xterm vt100
export TERM=$terminal
flags=()
[[ $2 != observe ]] || flags=(-f 'read-only,ignore-size')
tmux -u -S ./tmux.sock attach-session "${flags[@]}" -t =main
code=$?
# The session goes on, and this client was sent away or lost its terminal.
[[ $code -eq 0 ]] || ! lives pid || exit "$code"
flock -s -w 10 monitor-lock true
[[ -e exit-code ]] || lives pid || refuse 1 "the session's terminal is gone"
exit 0

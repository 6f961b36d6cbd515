# shellcheck shell=bash disable=SC2154
# Shows the session in $1 on this terminal; where $2 is "observe", without keys and without a say
# in the size.
set -u
enter_session "$1"
known_terminal "${TERM:-}" xterm-256color xterm vt100
export TERM=$terminal
flags=() fit=()
if [[ $2 == observe ]]; then
    flags=(-f 'read-only,ignore-size')
elif size=$(exec stty size) && [[ $size =~ ^([1-9][0-9]*)\ ([1-9][0-9]*)$ ]]; then
    # Before the first drawing; the server's hook follows the size from then on.
    fit=(resize-window -t "=main:" -x "${BASH_REMATCH[2]}" -y "${BASH_REMATCH[1]}" \;)
fi
tmux -u -S ./tmux.sock "${fit[@]}" attach-session "${flags[@]}" -t =main
code=$?
# The session goes on, and this client was sent away or lost its terminal.
[[ $code -eq 0 ]] || ! lives pid || exit "$code"
flock -s -w 10 monitor-lock true
[[ -e exit-code ]] || lives pid || refuse 1 "the session's terminal is gone"
exit 0

# shellcheck shell=bash disable=SC2154
# What stop.sh leaves: a tmux server whose supervisor was killed.
if [[ -S $dir/tmux.sock ]] && cd -- "$dir"; then
    tmux -S ./tmux.sock kill-server 2>/dev/null
fi
exit 0

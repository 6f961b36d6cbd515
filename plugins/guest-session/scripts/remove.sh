# shellcheck shell=bash disable=SC2154
# Removes the state directory $1. Refused while anything of the session runs.
set -u
dir=$1
[[ -e $dir || -L $dir ]] || exit 0
if same_boot "$dir"; then
    if lives "$dir/pid"; then
        refuse 3 "the session is running"
    fi
    if lives "$dir/monitor-pid"; then
        # The program is gone: the supervisor is about to record that, and to end.
        flock -s -w 10 "$dir/monitor-lock" true || refuse 3 "the session is running"
    elif read_value "$dir/status" 32 && [[ $value == starting ]] && lives "$dir/launcher"; then
        refuse 3 "the session is being launched"
    fi
fi
# Under another name first: half removed, it must not look like a session.
gone=${dir%/*}/.gone.${dir##*/}.$$
mv -T -- "$dir" "$gone" && rm -rf -- "$gone"

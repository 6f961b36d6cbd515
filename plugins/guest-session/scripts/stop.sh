# shellcheck shell=bash disable=SC2154,SC2034
# Ends the session in $1: TERM to its process group, KILL after $2 milliseconds, and waits until the
# end is recorded. A session that has ended already is fine.
set -u
dir=$1 grace_ms=$2

# Waits for 20 milliseconds without a process: nobody ever writes to this pipe.
exec {quiet}<> <(:)
nap() {
    local none
    read -r -t 0.02 -u "$quiet" none
}

# Whether anything of the group runs. The number of a group that has members is not given away,
# so while they are of the session of the same number, or of the supervisor's where that has the
# program's terminal, it is the one that was started.
group_lives() {
    local stat fields
    kill -0 -- "-$group" 2>/dev/null || return 1
    lives "$dir/pid" && return 0
    for stat in /proc/[0-9]*/stat; do
        { IFS= read -r -d '' fields; } 2>/dev/null <"$stat"
        [[ -n $fields ]] || continue
        read -r -a fields <<<"${fields##*) }"
        [[ ${fields[0]} != [ZXx] && ${fields[2]:-} == "$group" && ${fields[3]:-} =~ ^($group|$monitor)$ ]] && return 0
    done
    return 1
}

# $1: for how many milliseconds at most.
await_group() {
    now_ms
    local deadline=$((now + $1))
    while group_lives; do
        now_ms
        ((now < deadline)) || return 1
        nap
    done
    return 0
}

same_boot "$dir" || exit 0
lives "$dir/monitor-pid"
monitor=${pid:-none}
if lives "$dir/pid"; then
    group=$pid
    kill -s TERM -- "-$group" 2>/dev/null
    kill -s CONT -- "-$group" 2>/dev/null
    if ! await_group "$grace_ms"; then
        kill -s KILL -- "-$group" 2>/dev/null
        await_group 10000 || refuse 1 "the process group $group did not end within 10 s of SIGKILL"
    fi
elif ! lives "$dir/monitor-pid" && lives "$dir/launcher"; then
    refuse 3 "the session is being launched"
fi

# The supervisor holds this lock until it has recorded the end.
if [[ -e $dir/monitor-lock ]]; then
    flock -s -w 10 "$dir/monitor-lock" true || refuse 1 "the supervisor did not record the end within 10 s"
fi

# shellcheck shell=bash disable=SC2154,SC2015
# Starts a session of the backend $5 with the stdin $3. Stdin brings the supervisor, the command, the
# environment and the host's record, one after the other, of the lengths in $9 to $12. No shell ever
# parses a value. Prints what inspect.sh prints for this session.
set -u
root=$1 id=$2 kind=$3 cwd=$4 backend=$5 columns=$6 rows=$7 log_limit=$8
dir=$root/$id
login_umask=$(umask)
umask 077

for tool in bash setsid flock head stat mkdir mkfifo mv rm; do
    hash "$tool" 2>/dev/null || refuse 1 "the guest's PATH ($PATH) has no $tool"
done
[[ ! -e $dir && ! -L $dir ]] || refuse 3 "session $id exists already"
if [[ ! -d $root/.keeper ]]; then
    mkdir -p -- "$root/.keeper" || refuse 6 "the state root $root cannot be written"
fi

# What launches that were killed have left behind.
for old in "$root"/.new.*.*.*; do
    [[ $old =~ \.([0-9]+)\.([0-9]+)$ ]] || continue
    began=${BASH_REMATCH[2]}
    if ! started_of "${BASH_REMATCH[1]}" || [[ $started != "$began" ]]; then
        rm -rf -- "$old"
    fi
done

started_of "$$" || refuse 1 "/proc does not tell of this process"
new=$root/.new.$id.$$.$started
trap 'rm -rf -- "$new"' EXIT
unwritable="the state directory $dir cannot be written"
mkdir -- "$new" "$new/.put" "$new/readers" "$new/writers" || refuse 6 "$unwritable"

receive() {
    exec 5>"$new/$1" && head -c "$2" >&5 && position_of "$$" 5 || refuse 6 "$unwritable"
    [[ $position == "$2" ]] || refuse 6 "the launch was cut short"
    exec 5>&-
}
receive script "$9"
receive command "${10}"
receive environment "${11}"
receive host-record "${12}"

same_boot "$root/.keeper"
: >"$new/stdout" && : >"$new/stderr" &&
    printf '%s\n' "$boot_now" >"$new/boot-id" &&
    printf '%s\n' "$$ $started" >"$new/launcher" &&
    printf '%s\n' "$backend" >"$new/backend" &&
    printf '%s\n' "$columns $rows" >"$new/size" &&
    printf '%s\n' "$log_limit" >"$new/log-limit" &&
    printf '%s\n' starting >"$new/status" || refuse 6 "$unwritable"
# The end of a session can be recorded on a full disk also: `put` writes it over one of these.
for spare in 1 2 3 4; do
    printf '%4095s\n' '' >"$new/.put/.spare.$spare" || refuse 6 "$unwritable"
done
pipes=("$new/.put/notice")
if [[ $kind == pipe ]]; then
    pipes+=("$new/stdin")
fi
mkfifo -- "${pipes[@]}" || refuse 6 "$unwritable"

# Whole or not at all; and rename refuses a directory that is not empty, so one launch wins.
mv -T -- "$new" "$dir" || refuse 3 "session $id exists already"
trap - EXIT

export PATH HOME="${HOME:-~}" LANG="${LANG:-C.UTF-8}"
unset SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_ORIGINAL_COMMAND OLDPWD

# The log keeper looks for sessions once more after it has taken its name away, so it can't miss this.
if same_boot "$root/.keeper" && lives "$root/.keeper/pid"; then
    [[ ! -p $root/.keeper/wake ]] || printf '\n' 1<>"$root/.keeper/wake"
else
    setsid --fork bash "$dir/script" keep_logs "$root" '' '' '' </dev/null >/dev/null 2>&1
fi

# Ends once the supervisor has closed its stdout, or is gone.
outcome=$(setsid --fork bash "$dir/script" monitor "$dir" "$kind" "$login_umask" "$cwd" \
    </dev/null 2>/dev/null)
if [[ $outcome != running ]]; then
    if ! read_value "$dir/error" 4000; then
        value="the supervisor ended before the program ran"
        printf '%s\n' "$value" >"$dir/error"
        printf '%s\n' "$id" >>"$root/.changes-$backend"
    fi
    refuse 1 "$value"
fi
export LC_ALL=C
measure "$id"
printf 'banger-sessions-1\0'
tell "$id"
printf 'end\0'

# shellcheck shell=bash disable=SC2154,SC2015
# Starts a session of the backend $5 with the stdin $3. Stdin brings the supervisor, the command, the
# environment and the host's record, one after the other, of the lengths in $9 to $12. No shell ever
# parses a value.
set -u
root=$1 id=$2 kind=$3 cwd=$4 backend=$5 columns=$6 rows=$7 log_limit=$8
dir=$root/$id
login_umask=$(umask)
umask 077

[[ ! -e $dir && ! -L $dir ]] || refuse 3 "session $id exists already"
mkdir -p -- "$root" || exit 1

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
mkdir -- "$new" || exit 1
trap 'rm -rf -- "$new"' EXIT

receive() {
    head -c "$2" >"$new/$1" && [[ $(stat -c %s -- "$new/$1") == "$2" ]] ||
        refuse 6 "the launch was cut short"
}
receive script "$9"
receive command "${10}"
receive environment "${11}"
receive host-record "${12}"

: >"$new/stdout" && : >"$new/stderr" &&
    read_value /proc/sys/kernel/random/boot_id 64 && printf '%s\n' "$value" >"$new/boot-id" &&
    printf '%s\n' "$$ $started" >"$new/launcher" &&
    printf '%s\n' "$backend" >"$new/backend" &&
    printf '%s\n' "$columns $rows" >"$new/size" &&
    printf '%s\n' "$log_limit" >"$new/log-limit" &&
    printf '%s\n' starting >"$new/status" || refuse 1 "the state directory cannot be written"
if [[ $kind == pipe ]]; then
    mkfifo -- "$new/stdin" || exit 1
fi

# Whole or not at all; and rename refuses a directory that is not empty, so one launch wins.
mv -T -- "$new" "$dir" || refuse 3 "session $id exists already"
trap - EXIT

export PATH HOME="${HOME:-~}" LANG="${LANG:-C.UTF-8}"
unset SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_ORIGINAL_COMMAND OLDPWD

# Ends once the supervisor has closed its stdout, or is gone.
outcome=$(setsid --fork bash "$dir/script" monitor "$dir" "$kind" "$login_umask" "$cwd" \
    </dev/null 2>/dev/null)
if [[ $outcome != running ]]; then
    if ! read_value "$dir/error" 4000; then
        value="the supervisor ended before the program ran"
        printf '%s\n' "$value" >"$dir/error"
    fi
    refuse 1 "$value"
fi

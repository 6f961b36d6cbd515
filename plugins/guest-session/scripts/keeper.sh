# shellcheck shell=bash disable=SC2154,SC2015,SC2094
# The role `keep_logs` of a supervisor's script: one process for a state root, started by a launch
# that finds none, which ends once no session lives. It keeps each log's index of times, and frees
# the beginnings of logs that have outgrown their limit. Needs state.sh.
#
# A log is a file that the program appends to itself. Its beginning is freed as a hole, so byte n of
# the stream stays byte n of the file; `stdout-start` tells where what is kept begins. Where the file
# system has no holes, a log just grows. What a program's orphans write after its end is not limited.
#
# Files: .keeper/pid, boot-id, lock, wake (a pipe: whatever is written to it makes it look at once).

keep_logs() {
    local root=$dir pause=1 has_holes=
    local -A sizes=() lines=()
    trap '' HUP INT QUIT PIPE USR1 TSTP TTIN TTOU
    umask 077
    export LC_ALL=C
    shopt -s nullglob
    close_other_fds
    cd -- "$root" || exit 1
    exec 9>>.keeper/lock
    # Longer than another one takes for its last look.
    flock -w 5 9 || exit 0
    [[ -p .keeper/wake ]] || mkfifo .keeper/wake || exit 1
    exec 8<>.keeper/wake || exit 1
    same_boot .keeper || printf '%s\n' "$boot_now" >.keeper/boot-id
    started_of "$$" || exit 1
    local name="$$ $started"
    printf '%s\n' "$name" >.keeper/pid || exit 1
    while :; do
        if ! look; then
            # A launch makes its session first and looks for the keeper then: it either finds none,
            # or this finds the session.
            : >.keeper/pid
            look || exit 0
            printf '%s\n' "$name" >.keeper/pid || exit 1
        fi
        read -r -t "$pause" -u 8 _
    done
}

# Looks at all logs that may have grown; for all of them it starts one process. Fails where no
# session lives.
look() {
    local id file mode size blocks unit grown=0 logs=() ending=()
    for id in */; do
        id=${id%/}
        [[ ${#id} -le 32 && $id =~ ^[a-z0-9]+$ && ! -L $id && ! -e $id/.logs-kept ]] || continue
        # Asked before the logs are measured: the dead add nothing to them.
        may_write "$id" || ending+=("$id")
        logs+=("$id/stdout" "$id/stderr")
    done
    [[ ${#logs[@]} -gt 0 ]] || return 1
    local -A held=()
    while read -r file mode size blocks unit; do
        (((16#$mode & 8#170000) == 8#100000)) || continue
        if [[ $file == .changes-* ]]; then
            ((blocks * unit <= 1048576)) || punch "$file" $(((size - 65536) / 4096 * 4096))
        else
            keep "${file%/*}" "${file#*/}" "$size" $((blocks * unit)) || held[${file%/*}]=1
        fi
    done < <(exec stat -c '%n %f %s %b %B' -- "${logs[@]}" .changes-* 2>/dev/null)
    for id in "${ending[@]}"; do
        [[ -n ${held[$id]-} ]] || { : >"$id/.logs-kept"; } 2>/dev/null
    done
    if ((grown)); then
        pause=1
    else
        pause=$((pause < 4 ? pause * 2 : 4))
    fi
}

# $1: a session. Whether its program may still write.
may_write() {
    [[ ! -e $1/exit-code ]] && same_boot "$1" &&
        { lives "$1/monitor-pid" || lives "$1/pid" || lives "$1/launcher"; }
}

# $1: a session, $2: one of its logs, $3: its length, $4: how many bytes it takes on the disk.
# Fails where it would free more but for a reader.
keep() {
    local log=$1/$2 limit start wanted=0 slowest
    if [[ ${sizes[$log]:-0} != "$3" ]]; then
        sizes[$log]=$3 grown=1
        # Taken after the length was: what comes later begins there or later.
        now_ms
        epoch_ms
        { printf '%s\n' "$now $epoch $3" >>"$log-times"; } 2>/dev/null
        lines[$log]=$((${lines[$log]:-0} + 1))
        ((lines[$log] < 4096)) || thin "$log"
    fi
    read_number "$1/log-limit"
    limit=${number:-0}
    ((limit > 0 && $4 > limit + limit / 4)) || return 0
    read_number "$log-start"
    start=${number:-0}
    wanted=$((($3 - limit) / 4096 * 4096))
    ((wanted > start)) && can_punch || return 0
    find_slowest "$@"
    wanted=$((slowest / 4096 * 4096))
    ((wanted > start)) || return 1
    set_start "$log" "$wanted" || return 0
    # A reader registers first and reads the start then: it either sees the new one, or is seen here.
    find_slowest "$@"
    if ((slowest < wanted)); then
        set_start "$log" "$start"
        return 1
    fi
    punch "$log" "$wanted"
}

# $1: a log, $2: where it begins.
set_start() {
    { printf '%s\n' "$2" >"$1-start.new" && mv -T -f -- "$1-start.new" "$1-start"; } 2>/dev/null
}

# $1: a file, $2: what comes before that byte is freed.
punch() {
    fallocate --punch-hole --offset 0 --length "$2" -- "$1" 2>/dev/null
}

# Whether the file system has holes.
can_punch() {
    if [[ -z $has_holes ]]; then
        has_holes=no
        printf '\n' >.keeper/hole && punch .keeper/hole 4096 && has_holes=yes
    fi
    [[ $has_holes == yes ]]
}

# The arguments are those of `keep`. Sets `slowest` to the first byte that a reader of the log still
# needs, or to `wanted` where none needs an earlier one. Readers that are too far behind are ended;
# those that died are forgotten.
find_slowest() {
    local reader mover at fd alive began gone=()
    slowest=$wanted
    for reader in "$1/readers/"*".$2"; do
        [[ ${reader##*/} =~ ^([1-9][0-9]{0,6})\.([0-9]{1,19})\. ]] || continue
        alive='' began=${BASH_REMATCH[2]}
        started_of "${BASH_REMATCH[1]}" && [[ $started == "$began" ]] && alive=1
        at=0 mover=
        # "OFFSET", and then "OFFSET PID" with the process that prints. Half written, it reads as 0:
        # nothing is freed this time.
        if read_value "$reader" 64 && [[ $value =~ ^([0-9]{1,19})( ([1-9][0-9]{0,6}))?$ ]]; then
            at=${BASH_REMATCH[1]} mover=${BASH_REMATCH[3]}
        fi
        if [[ -n $mover ]]; then
            for fd in "/proc/$mover/fd/"*; do
                if [[ $fd -ef $1/$2 ]] && position_of "$mover" "${fd##*/}"; then
                    alive=1
                    ((position <= at)) || at=$position
                    # It has opened the log, so it is the right process.
                    if (($3 - at > 2 * limit)); then
                        kill -s USR1 "$mover" 2>/dev/null
                        continue 2
                    fi
                fi
            done
        fi
        if [[ -z $alive ]]; then
            gone+=("$reader")
        elif ((at < slowest)); then
            slowest=$at
        fi
    done
    if [[ ${#gone[@]} -gt 0 ]]; then
        rm -f -- "${gone[@]}"
    fi
}

# $1: a log. Makes its index of times shorter: the newest quarter stays, of the rest every other
# line, and none before the log's beginning.
thin() {
    local all=() few=() i
    mapfile -n 20000 -t all <"$1-times"
    read_number "$1-start"
    for ((i = 0; i < ${#all[@]}; i++)); do
        if ((i + 1024 >= ${#all[@]} || i % 2 == 0)) && [[ ${all[i]} =~ ^[0-9]+\ [0-9]+\ ([0-9]{1,18})$ ]] &&
            ((BASH_REMATCH[1] >= ${number:-0})); then
            few+=("${all[i]}")
        fi
    done
    lines[$1]=${#few[@]}
    [[ ${#few[@]} -gt 0 ]] && printf '%s\n' "${few[@]}" >"$1-times.new" && mv -T -f -- "$1-times.new" "$1-times"
}

# shellcheck shell=bash disable=SC2154,SC2015
# Copies stdin to the input of the session in $1 until end of file, and prints how many bytes of the
# writer $2 the input has ever taken: at the beginning, and after each piece. The writers' lock is taken
# for each piece (1 MiB at most, of what has arrived already), so that nothing comes between its
# bytes, and a sender need not wait until this ends.
set -u
export LC_ALL=C
umask 077
dir=$1 writer=$2
file=$dir/writers/$writer
check_input "$dir"

# Another connection of this writer takes over. What waits for input may end at once; in all else it
# must be known what the input took.
ended='' reading='' locker='' mover='' pump=''
take_leave() {
    ended=1
    [[ -z $reading ]] || end_here
    [[ -z $locker ]] || kill "$locker" 2>/dev/null
    [[ -z $mover ]] || kill -s INT "$mover" 2>/dev/null
}
end_here() {
    refuse 3 "another connection of this writer took over"
}
trap take_leave USR1
trap '' PIPE
trap '[[ -z $pump ]] || kill "$pump" 2>/dev/null' EXIT

# Removes the counts of the writers that were here least recently, beyond 32.
forget_writers() {
    local all=("$dir"/writers/*.pid) one oldest=
    while [[ ${#all[@]} -gt 32 ]]; do
        oldest=
        for one in "${!all[@]}"; do
            if lives "${all[one]}"; then
                unset "all[one]"
            elif [[ -z $oldest || ${all[one]%.pid} -ot ${all[oldest]%.pid} ]]; then
                oldest=$one
            fi
        done
        [[ -n $oldest ]] || return
        rm -f -- "${all[oldest]}" "${all[oldest]%.pid}"
        unset "all[oldest]"
    done
}

# Held until this process ends. Nobody but its holder changes the count.
known=
[[ ! -e $file ]] || known=1
exec 8<>"$file" || refuse 6 "the state directory cannot be written"
tries=0
while :; do
    lives "$file.pid" && kill -s USR1 "$pid" 2>/dev/null
    flock -w 1 8 && break
    ((++tries < 10)) || refuse 4 "an earlier connection of this writer does not end"
done
taken=0
read_value "$file" 24 && [[ $value =~ ^[0-9]{1,19}$ ]] && taken=$((10#$value))
# In place, in one write: a count is never half there, and needs no space on the disk.
keep_count() {
    printf '%019d\n' "$taken" 1<>"$file"
}
started_of "$$" && printf '%s\n' "$$ $started" >"$file.pid" && keep_count ||
    refuse 6 "the state directory cannot be written"
[[ -n $known ]] || forget_writers

# A pipe can be opened once more, to be read without blocking; what sshd gives may be a socket.
exec 3<&0
if [[ ! -p /dev/fd/3 ]]; then
    exec 3< <(exec cat <&3 8>&-)
    pump=$!
fi
exec </dev/null

# Reads a byte. Bash writes what it prints line by line, and each NUL must be known, so both end a
# piece that it shall write itself.
read_byte() {
    local byte
    if ! IFS= read -r -d '' -n 1 -u 3 byte; then
        eof=1
    elif [[ -z $byte ]]; then
        nul=1 full=1
    else
        piece+=$byte
        [[ $byte != $'\n' ]] || full=1
    fi
}

# Writes `piece`. It is short, so it is written whole or not at all, also where a signal comes.
write_piece() {
    if [[ -n $nul ]]; then
        printf '%s\0' "$piece" >&7
    else
        printf '%s' "$piece" >&7
    fi
} 2>/dev/null

printf '%s\n' "$taken" || exit 1
eof=
while :; do
    # A keystroke or a short line is read and written without a process.
    piece='' nul='' full=''
    reading=1
    read_byte
    while [[ -z $full$eof && ${#piece} -lt 64 ]] && read -r -t 0 -u 3 _; do
        read_byte
    done
    [[ -z $ended ]] || end_here
    reading=
    [[ -n $piece$nul ]] || break

    exec 9>>"$dir/input-lock" || refuse 6 "the writers' lock cannot be opened"
    flock 9 3<&- 8>&- &
    locker=$!
    # A signal ends the wait; it comes before or after the number is known.
    [[ -z $ended ]] || kill "$locker" 2>/dev/null
    wait "$locker" || { [[ -z $ended ]] && refuse 1 "the writers' lock cannot be taken"; }
    locker=
    [[ -z $ended ]] || end_here
    open_input "$dir"
    if write_piece; then
        taken=$((taken + ${#piece} + ${#nul}))
        keep_count
    elif [[ -z $ended ]]; then
        refuse_reader_gone "$dir" "$taken bytes were written"
    fi

    # More than that goes as fast as it comes.
    if [[ -z $ended$eof ]] && read -r -t 0 -u 3 _; then
        told=''
        start_dd if=/dev/fd/3 iflag=nonblock count=256
        [[ -z $ended ]] || kill -s INT "$mover" 2>/dev/null
        await_dd ''
        taken=$((taken + written))
        keep_count
        [[ $told != *"Broken pipe"* ]] || refuse_reader_gone "$dir" "$taken bytes were written"
    fi
    exec 7>&- 9>&-
    [[ -z $ended ]] || end_here
    printf '%s\n' "$taken" || exit 1
done

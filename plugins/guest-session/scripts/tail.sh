# Prints the last $3 lines of the log $2 of the session in $1.
set -u
log=$1/$2
[[ -f $log ]] || refuse 3 "the session has no $2"
exec tail -n "$3" -- "$log"

# shellcheck shell=bash disable=SC2154,SC2015
# Sends the signal $2 to the process group of the session in $1.
set -u
dir=$1
same_boot "$dir" && lives "$dir/pid" || refuse 3 "the session is not running"
kill -s "$2" -- "-$pid" 2>/dev/null || refuse 3 "the session is not running"

#!/bin/bash
# Removes directories of builds that died; in the namespace their files belong to the caller.
#
# usage: remove.sh DIR...
set -eu
rm -rf -- "$@"

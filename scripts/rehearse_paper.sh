#!/usr/bin/env bash
# Rehearses the paper's profile without a GPU: about half an hour on two free cores, 16 GB of memory, 20 GB of disk.
#
#   ./scripts/rehearse_paper.sh [--work DIR] [--docs FILE] [--narrow]
#
#   --work DIR   where everything goes; by default a temporary folder that is removed at the end
#   --docs FILE  write what was measured there as JSON, such as docs/rehearsal.json
#   --narrow     networks of a few channels: tries the notebooks in a fifth of the time, measures nothing
#
# It runs every notebook in the visa profile with full-size networks of random weights, and kills and resumes it once.
# See scripts/rehearse_paper.py for what is small in it.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case ${1:-} in -h | --help) sed -n '2,/^here/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;; esac
. "$here/environment.sh" || exit 1
exec "$python" "$here/rehearse_paper.py" "$@"

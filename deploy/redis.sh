#!/bin/sh
# The tests start Redis themselves; this installs the program where that needs no password.
set -eu
command -v redis-server >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server
else
    echo "redis-server is not installed, so the tests that need it are skipped; to run them: sudo apt-get install redis-server"
fi

#!/usr/bin/env bash
# The tests start a RabbitMQ of their own; where its programs are missing, Debian's are installed.
set -euo pipefail

if command -v rabbitmq-server >/dev/null || [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || [[ -n ${VITPRESS_TEST_RABBITMQ:-} ]]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "the tests need RabbitMQ: install its server programs, or set VITPRESS_TEST_RABBITMQ to a server's URL" >&2
    exit 1
fi
root=()
((EUID == 0)) || root=(sudo)
"${root[@]}" apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install --quiet=2 --yes --no-install-recommends rabbitmq-server >/dev/null

#!/bin/sh
# Become `llama-router run` with the demo's configuration, from the top of a checkout that environment.sh prepared.
# Environment: LISTEN, the address to serve. Each address has directories of its own, so copies run side by side.
# run.sh --clean removes the directories instead.
set -eu

# sun_path holds 107 bytes and a NUL (unix(7)); the names of the sockets in the runtime directory need some of them.
longest_runtime_dir=72

if [ "${1-}" = --clean ]; then
    for link in .run/*/runtime; do
        [ ! -L "$link" ] || rm -rf "$(readlink "$link")"
    done
    rm -rf .run
    exit 0
fi

listen=${LISTEN:-127.0.0.1:8080}
place=.run/$(printf %s "$listen" | tr -c 'A-Za-z0-9.-' _)
mkdir -p "$place"
runtime=$PWD/$place/runtime

if [ "$(printf %s "$runtime" | wc -c)" -gt "$longest_runtime_dir" ]; then
    # A link remembers the short directory, so that the next run and `make clean` find it again. -O: another user may have
    # taken the name since a reboot emptied /tmp.
    if ! { [ -L "$place/runtime" ] && [ -d "$place/runtime/" ] && [ -O "$place/runtime/" ]; }; then
        rm -rf "$place/runtime"
        ln -s "$(mktemp -d "${XDG_RUNTIME_DIR:-/tmp}/llama-router.XXXXXX")" "$place/runtime"
    fi
    runtime=$(readlink "$place/runtime")
    echo "This path is too long for UNIX sockets; they are in $runtime" >&2
fi

case $listen in
    /* | unix:*) where="--unix-socket ${listen#unix:} http://localhost" ;;
    0.0.0.0:* | '[::]':*) where=http://127.0.0.1:${listen##*:} ;;
    *) where=http://$listen ;;
esac

cat >&2 <<TEXT
Starting llama-router with packaging/demo/config.yaml. Once it is ready, try:

  curl $where/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}]}'

The dashboard opens with the link that it prints then, which works once. To sign in with a password, set one as below
with passwd in place of status.

The other commands need to know which one is meant:
  export LLAMA_ROUTER_RUNTIME_DIR='$runtime'; .venv/bin/llama-router status
Ctrl-C stops it and the models it runs.

TEXT

exec .venv/bin/llama-router run --config packaging/demo/config.yaml --listen "$listen" \
    --runtime-dir "$runtime" --state-dir "$PWD/$place/state"

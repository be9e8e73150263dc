"""Programs that only claim to be a llama-server: what they say to --help, and scripts that answer as it does."""

from __future__ import annotations

import sys
from pathlib import Path

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-m,    --model FNAME                    model path to load
                                        (env: LLAMA_ARG_MODEL)
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
--no-host                               bypass host buffer allowing extra buffers to be used
--cpu-strict <0|1>                      use strict CPU placement (default: 0)
-ts,   --tensor-split N0,N1,N2,...      fraction of the model to offload to each GPU
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        override tensor buffer type
--lora FNAME                            path to LoRA adapter (use comma-separated values to load multiple
                                        adapters)
--control-vector-layer-range START END
                                        layer range to apply the control vector(s) to
-l,    --logit-bias TOKEN_ID(+/-)BIAS   modifies the likelihood of token appearing in the completion,
                                        i.e. `--logit-bias 15043+1` to increase likelihood of token ' Hello',
--chat-template-kwargs STRING           sets additional params for the json template parser
--metrics                               enable prometheus compatible metrics endpoint (default: disabled)
--pooling {none,mean,cls,last,rank}     pooling type for embeddings
--host HOST                             ip address to listen, or bind to an UNIX socket if the address ends
                                        with .sock (default: 127.0.0.1)
-np,   --parallel N                     number of server slots (default: -1, -1 = auto)
-hft,  --hf-token TOKEN                 Hugging Face access token
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
                                        (env: LLAMA_ARG_DRAFT_MAX)
--fim-qwen-7b-spec                      use Qwen 2.5 Coder 7B + 0.5B draft (note: can download
                                        weights from the internet)
"""
# Answers as llama-server does, and otherwise does what comes after it.
ANSWERS = f"""\
import os, signal, socket, sys, time
if sys.argv[1:] == ["--version"]:
    print("version: 5000 (abcdef)")
    raise SystemExit
if sys.argv[1:] == ["--help"]:
    print({HELP!r})
    raise SystemExit
def state(text):
    print("cmd_child_to_router:state:" + text, flush=True)
def visit(path):
    gate = socket.socket(socket.AF_UNIX)
    gate.connect(path)
    gate.send(str(os.getpid()).encode())
    gate.recv(1)
def serve(health="200 OK"):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[sys.argv.index("--host") + 1])
    listener.listen()
    while True:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(f"HTTP/1.1 {{health}}\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
        connection.close()
"""


def script(path: Path, text: str, python: bool = True) -> Path:
    """An executable file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{text}" if python else text)
    path.chmod(0o755)
    return path

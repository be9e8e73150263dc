"""Which line of a log tells why a program ended: logs as they were written, the line that tells it marked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.last_words import telling
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.refusals import failed, load_failed

LOGS = {
    "a bad value, b11434": """
> error while handling argument "--cache-type-k": Unsupported cache type: bogus

usage:
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1
                                        (default: f16)
                                        (env: LLAMA_ARG_CACHE_TYPE_K)


to show complete usage, run with -h
""",
    "an unknown option": "> error: invalid argument: --nosuch",
    "no file": """
0.00.034.169 E common_fit_params: encountered an error while trying to fit params: failed to load model
> 0.00.034.203 E gguf_init_from_file: failed to open GGUF file '/nope.gguf' (No such file or directory)
0.00.034.232 E llama_model_load: error loading model: llama_model_loader: failed to load model from /nope.gguf
0.00.034.245 E llama_model_load_from_file_impl: failed to load model
0.00.034.249 E cmn  common_init_: failed to load model '/nope.gguf'
0.00.034.252 E srv    load_model: failed to load model, '/nope.gguf'
0.00.034.253 I srv    operator(): operator(): cleaning up before exit...
0.00.036.795 E srv  llama_server: exiting due to model loading error
""",
    "a file cut off": """
> 0.00.036.795 E llama_model_load: error loading model: tensor 'x' data is not within the file bounds, model is bad
0.00.034.245 E llama_model_load_from_file_impl: failed to load model
0.00.036.795 E srv  llama_server: exiting due to model loading error
""",
    "no socket, in colours": """
\x1b[34m0.00.020.367\x1b[0m \x1b[35mW srv  llama_server: security: no API key is set and CORS allows all origins\x1b[0m
> \x1b[34m0.00.020.476\x1b[0m \x1b[31mE srv         start: couldn't bind HTTP server socket, hostname: /tmp/zz.sock
\x1b[0m\x1b[34m0.00.020.495\x1b[0m \x1b[32mI srv    operator(): operator(): cleaning up before exit...
\x1b[0m\x1b[34m0.00.021.669\x1b[0m \x1b[31mE srv  llama_server: exiting due to HTTP server error
""",
    "a bad chat template": """
error: the supplied chat template is not supported: {% bad
> 0.00.002.983 E common_chat_templates_init: error: Unknown statement: bad
0.00.004.872 E common_chat_templates_init: failed to initialize chat template
0.00.004.872 E common_chat_templates_init: please consider disabling jinja via --no-jinja
0.00.004.902 E common_chat_verify_template: failed to apply template: std::exception
""",
    "docker": """
docker: Error response from daemon: pull access denied for nosuch, repository does not exist or may require login
> docker: denied: requested access to the resource is denied

Run 'docker run --help' for more information
""",
    "a shell": "> sh: 1: whisper-server: not found",
    "Python": """
Traceback (most recent call last):
  File "/srv/server.py", line 3, in <module>
    raise ValueError("cannot find it")
> ModuleNotFoundError: No module named 'vllm'
""",
    "llama-cpp-python": """
llama_model_load: error loading model: llama_model_loader: failed to load model from /t.gguf
llama_model_load_from_file_impl: failed to load model
> cannot load model /t.gguf: it is no GGUF file
""",
    "C++": """
terminate called after throwing an instance of 'std::runtime_error'
>   what():  the device was lost
Aborted (core dumped)
""",
    "a GPU": """
> CUDA error: out of memory
  current device: 0, in function alloc at /src/ggml-cuda.cu:449
  cudaMalloc
/src/ggml-cuda.cu:88: CUDA error
""",
    "no error": """
starting
> and half a
""",
    "only what tells nothing": """
> to show complete usage, run with -h
""",
}


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS.keys())
def test_the_line_that_tells_it(log: str) -> None:
    lines = log.strip("\n").split("\n")
    [marked] = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
    assert telling([line.removeprefix("> ") for line in lines]) == marked


@given(st.lists(st.text()))
def test_it_is_one_of_them(lines: list[str]) -> None:
    found = telling(lines)
    assert found in lines if any(line.strip() for line in lines) else found is None


def test_refusals_tell_it() -> None:
    reason = EndReason(Kind.EXITED, code=1, last_lines=("error: bad value", "", "to show complete usage, run with -h"))
    assert load_failed("m", reason).message.endswith("exited with code 1; its log says: error: bad value")
    assert "its log says: error: bad value; after fixing it" in failed("m", reason).message

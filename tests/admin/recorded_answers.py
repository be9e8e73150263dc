"""Answers of real servers, as recorded of llama-server b11434 and llama-cpp-python 0.3.36 with SmolLM2 135M; what says
nothing of tokens is shortened."""

from __future__ import annotations

TIMINGS = (
    b'"timings":{"cache_n":31,"prompt_n":1,"prompt_ms":10.29,"prompt_per_token_ms":10.29,'
    b'"prompt_per_second":97.18172983479107,"predicted_n":6,"predicted_ms":50.516,'
    b'"predicted_per_token_ms":10.1032,"predicted_per_second":98.97854145221316}'
)
OPENAI = (
    b'"usage":{"completion_tokens":6,"prompt_tokens":32,"total_tokens":38,"prompt_tokens_details":{"cached_tokens":31}}'
)
RESPONSES = (
    b'"usage":{"input_tokens":32,"output_tokens":6,"total_tokens":38,"input_tokens_details":{"cached_tokens":31}}'
)

CHAT = (
    b'{"choices":[{"finish_reason":"length","index":0,"message":{"role":"assistant","content":"Welcome to"}}],'
    b'"created":1,"model":"m","object":"chat.completion",' + OPENAI + b',"id":"x",' + TIMINGS + b"}"
)
_ROLE = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"id":"x"}\n\n'
_PIECE = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" to"}}],"id":"x"}\n\n'
_END = b'data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],"id":"x"'
CHAT_STREAM = _ROLE + 6 * _PIECE + _END + b"," + TIMINGS + b"}\n\ndata: [DONE]\n\n"
CHAT_STREAM_WITH_USAGE = (
    _ROLE + 6 * _PIECE + _END + b'}\n\ndata: {"choices":[],' + OPENAI + b"," + TIMINGS + b"}\n\ndata: [DONE]\n\n"
)
COMPLETION = (
    b'{"index":0,"content":"-in-a-lif","tokens":[],"stop":true,"tokens_predicted":6,"tokens_evaluated":32,'
    b'"generation_settings":{"seed":4294967295,"timings_per_token":false},"prompt":"Once",' + TIMINGS + b"}"
)
COMPLETION_STREAM = (
    6 * b'data: {"index":0,"content":"-","tokens":[29],"stop":false,"tokens_predicted":1,"tokens_evaluated":1}\n\n'
    + b"data: "
    + COMPLETION
    + b"\n\n"
)
RESPONSE = b'{"id":"resp_x","object":"response","output":[],"status":"completed",' + RESPONSES + b"}"
RESPONSE_STREAM = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_x"}}\n\n'
    + 6 * b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"H"}\n\n'
    + b'event: response.completed\ndata: {"type":"response.completed","response":'
    + RESPONSE
    + b","
    + TIMINGS
    + b"}\n\n"
)
MESSAGES = (
    b'{"id":"x","type":"message","content":[{"type":"text","text":"hi"}],"stop_reason":"max_tokens",'
    b'"usage":{"cache_read_input_tokens":31,"input_tokens":1,"output_tokens":6}}'
)
MESSAGES_STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"x","content":[],'
    b'"usage":{"cache_read_input_tokens":31,"input_tokens":1,"output_tokens":0}}}\n\n'
    + 6
    * b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"M"}}\n\n'
    + b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},'
    b'"usage":{"output_tokens":6}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)
PYTHON_CHAT = (
    b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"Just","role":"assistant"}}],'
    b'"usage":{"prompt_tokens":32,"completion_tokens":6,"total_tokens":38}}'
)
_PYTHON = b'data: {"id": "x", "choices": [{"index": 0, "delta": %b, "logprobs": null, "finish_reason": %b}]}\n\n'
PYTHON_CHAT_STREAM = (
    _PYTHON % (b'{"role": "assistant"}', b"null")
    + 6 * (_PYTHON % (b'{"content": "Ah"}', b"null"))
    + _PYTHON % (b"{}", b'"length"')
    + b"data: [DONE]\n\n"
)
_TEXT = b'data: {"id": "x", "choices": [{"text": "%b", "index": 0, "logprobs": null, "finish_reason": %b}]}\n\n'
PYTHON_COMPLETION_STREAM = 6 * (_TEXT % (b"-", b"null")) + _TEXT % (b"", b'"length"') + b"data: [DONE]\n\n"
PYTHON_EMBEDDING = (
    b'{"object":"list","data":[{"embedding":[%b]}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}'
    % b", ".join([b"0.25"] * 5000)
)

"""Routes of the tokenizer, in the forms that lm-eval looks for (those of vLLM)."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from charlm.server.bodies import read_json
from charlm.server.prompts import checked_ids, encode, text_and_offsets
from charlm.server.requests import MAX_TOKENS, REQUIRED, Fields, flag, read_fields, text
from charlm.server.service import Service
from charlm.server.threads import compute
from charlm.text.tokenizers.tokenizer_json import EOS, EOS_TOKEN


def token_ids(value: Any) -> list[int]:
    """Return token ids."""
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise ValueError("a list of token ids, which are whole numbers")
    return value


TOKENIZE: Fields = {
    "model": (None, text),
    "prompt": (REQUIRED, text),
    "add_special_tokens": (False, flag),
}
"""Fields of POST /tokenize."""
DETOKENIZE: Fields = {"model": (None, text), "tokens": (REQUIRED, token_ids)}
"""Fields of POST /detokenize."""


async def tokenize(request: Request) -> Response:
    """Return the ids of a text, with an EOS in front if special tokens are asked for."""
    service: Service = request.app.state.service
    values = read_fields(await read_json(request), TOKENIZE)
    model, prompt = service.find(values["model"]).model, values["prompt"]

    def answer() -> Response:
        ids = encode(prompt, model.run.text_vocabulary, model.run.boundaries).tolist()
        if values["add_special_tokens"] and prompt != EOS_TOKEN:
            ids.insert(0, EOS)
        return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": MAX_TOKENS})

    return await compute(answer, len(prompt))


async def detokenize(request: Request) -> Response:
    """Return the text of ids; an EOS is the line end, or the blank line, that it is read as."""
    service: Service = request.app.state.service
    values = read_fields(await read_json(request), DETOKENIZE)
    run = service.find(values["model"]).model.run

    def answer() -> Response:
        ids = checked_ids(values["tokens"], run.vocabulary, "tokens")
        text, _ = text_and_offsets(ids, run.text_vocabulary, run.boundaries)
        return JSONResponse({"prompt": text})

    return await compute(answer, len(values["tokens"]))


async def tokenizer_info(request: Request) -> Response:
    """Return facts about the tokenizer of a model, by default the first one."""
    service: Service = request.app.state.service
    run = service.find(request.query_params.get("model")).model.run
    return JSONResponse(
        {
            "tokenizer_class": "charlm",
            "eos_token": EOS_TOKEN,
            "bos_token": None,
            "pad_token": None,
            "chat_template": None,
            "unit": run.vocabulary.unit,
            "vocab_size": len(run.vocabulary),
            "ends": run.boundaries.has_ends,
        }
    )

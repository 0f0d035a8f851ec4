"""Routes of the tokenizer, in the forms that lm-eval looks for (vLLM's)."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from charlm.inference.rows import prompt_text
from charlm.server.bodies import read_json
from charlm.server.errors import Refused
from charlm.server.prompts import checked_ids, encode
from charlm.server.requests import MAX_TOKENS, Read, flag, read_fields, text
from charlm.server.service import Served, Service
from charlm.text.tokenizers.tokenizer_json import EOS, EOS_TOKEN

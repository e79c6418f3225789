"""Typed calls: a record goes out, a record comes back, and everything that is not success is an error."""

from typing import Any, Final, Generic, TypeVar

import msgspec
import requests

from topstep_sync import codes, errors
from topstep_sync.clock import Deadline
from topstep_sync.http.classify import bad_reply
from topstep_sync.http.drop_in import DropInSession
from topstep_sync.http.prepare import Prepared
from topstep_sync.http.routes import Priority
from topstep_sync.messages import Reply as Envelope
from topstep_sync.models import Record, given, read

R = TypeVar("R", bound=Envelope)

_JSON: Final = {"Content-Type": "application/json"}


class Reader(Generic[R]):
    """Reads replies of one kind."""

    def __init__(self, kind: type[R]) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode

    def decode(self, body: bytes) -> R:
        """*body* as such a reply; times without a zone are UTC. Raises what a `msgspec` decoder does."""
        try:
            return self._decode(body)
        except msgspec.ValidationError:
            return read(msgspec.json.decode(body), self._kind)


class TypedSession(DropInSession):
    """A session whose `call` speaks records."""

    def __init__(self) -> None:
        super().__init__()
        self._decoders: dict[type[Any], Reader[Any]] = {}

    def call(
        self,
        path: str,
        request: Record | None,
        reply: type[R],
        *,
        priority: Priority | None = None,
        must_try: bool = False,
        timeout: float | None = None,
    ) -> R:
        """The reply of a successful call.

        Args:
            path: such as ``/api/Account/search``.
            request: the body; None for none.
            reply: what the body of the answer is.
            priority: who goes first where permits are scarce; None: as the path has it.
            must_try: pass an open breaker; for what reduces risk.
            timeout: seconds for the whole call; None: `HttpConfig.total_timeout`.

        Raises:
            APIError: the gateway answered, and not with success.
            RequestError: there is no answer; `fate` says what became of the request.
        """
        prepared = self._typed(path, None if request is None else msgspec.json.encode(request))
        prepared.priority, prepared.must_try = priority, must_try
        prepared.decoder = decoder = self._decoder(reply)
        prepared.deadline = Deadline(timeout or self._total_timeout, self._clock)
        response = self.send(prepared)
        answer = self._answer(path, response, decoder)
        if not answer.success:
            raise self._refusal(path, response, answer)
        return answer

    def _typed(self, path: str, body: bytes | None) -> Prepared:
        url = self._base + path
        made = self._templates.make(self, "POST", url, None, body) if self._may_hurry() else None
        if made is None:
            plain = self.prepare_request(requests.Request("POST", url, data=body, headers=_JSON))
            made = Prepared.of(plain, self._base)
        return made

    def _decoder(self, reply: type[R]) -> Reader[R]:
        found = self._decoders.get(reply)
        if found is None:
            found = self._decoders[reply] = Reader(reply)
        return found

    def _answer(self, path: str, response: requests.Response, decoder: Reader[R]) -> R:
        if response.status_code != 200:
            error: errors.APIError = self._adapter.handler.classify_error(
                response.status_code, response.content, endpoint=path, headers=response.headers
            )
            raise self._marked(error, response)
        try:
            made = getattr(response, "decoded", None)
            return decoder.decode(response.content) if made is None else made
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as trouble:
            raise self._marked(bad_reply(path, str(trouble)), response) from None

    def _refusal(self, path: str, response: requests.Response, answer: Envelope) -> errors.APIError:
        message = answer.error_message
        error = codes.failure(path, answer.error_code, message if isinstance(message, str) else None)
        order_id = getattr(answer, "order_id", None)
        if isinstance(error, errors.OrderError) and given(order_id):
            error.order_id = order_id
        return self._marked(error, response)

    def _marked(self, error: errors.APIError, response: requests.Response) -> errors.APIError:
        error.response, error.request = response, response.request
        error.attempts = getattr(response, "attempts", 1)
        return error

    def get_text(self, path: str) -> str:
        """The text that a GET of *path* returns.

        Raises:
            APIError: the status is not 200.
            RequestError: there is no answer.
        """
        response = self.get(path)
        if response.status_code != 200:
            error = self._adapter.handler.classify_error(
                response.status_code, response.content, endpoint=path, headers=response.headers
            )
            raise self._marked(error, response)
        return response.text

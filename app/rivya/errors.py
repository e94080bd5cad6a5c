"""How talking to Rivya fails: refused with a clear answer, unavailable, or answered with something unreadable."""


class PayloadUnreadable(ValueError):
    """A body says nothing that we understand. What it would have said is unknown, never "nothing"."""


class RivyaError(Exception):
    """Rivya could not be asked, or said no. Bodies and secrets never show in its text.

    `request_id` is Rivya's name for the exchange, `retry_after` the seconds it asks to wait, each None if it gave none.
    """

    request_id: str | None = None
    retry_after: float | None = None


class RivyaRefused(RivyaError):
    """Rivya answered with an error of its own: final, unless the class or `code` says otherwise.

    `body` is the answer as it came, for whoever relays it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str | None = None,
        *,
        request_id: str | None = None,
        retry_after: float | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(f"Rivya answered {status} {code} (request {request_id or 'unnamed'})")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after
        self.body = body


class RivyaUnauthorized(RivyaRefused):
    """401: the key is missing, wrong, revoked or expired. Stop calling and tell the operator."""


class RivyaForbidden(RivyaRefused):
    """403: the key lacks a scope. Stop that feature and name the scope."""


class RivyaNotFound(RivyaRefused):
    """404: missing, or another account's."""


class RivyaRateLimited(RivyaRefused):
    """429: back off, by `retry_after` seconds where Rivya says so."""


class RivyaNotAsked(RivyaError):
    """The request was held back before its first byte left: its moment had passed."""


class RivyaUnavailable(RivyaError):
    """No clear answer: a transport error, a time-out, a 5xx, or an answer that isn't Rivya's. Worth trying again.

    `sent` is False only when the request certainly never reached Rivya. Otherwise it may have taken effect.
    `status` and `code` are known when there was an answer.
    """

    def __init__(
        self,
        situation: str,
        *,
        sent: bool,
        status: int | None = None,
        code: str | None = None,
        message: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(situation)
        self.sent = sent
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after


class RivyaUnreadable(RivyaError):
    """Rivya answered 2xx with something we can't understand: whatever was asked for has probably happened."""

    def __init__(self, situation: str, *, status: int) -> None:
        super().__init__(situation)
        self.status = status

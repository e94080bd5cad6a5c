"""The certificates of the world's authorities, read once a process: every httpx client reads them anew, in 23 ms."""

import functools
import ssl


def read_certificates_once() -> None:
    """Have `ssl.create_default_context(cafile=…)` answer equal calls with one context, which nobody changes."""
    create = ssl.create_default_context
    cached = functools.cache(lambda cafile: create(cafile=cafile))

    @functools.wraps(create)
    def create_default_context(*arguments: object, **named: object) -> ssl.SSLContext:
        if not arguments and named.keys() == {"cafile"}:
            return cached(named["cafile"])
        return create(*arguments, **named)  # type: ignore[arg-type]

    ssl.create_default_context = create_default_context

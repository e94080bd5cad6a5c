"""Where Rivya calls us: the callback URL, and the random key at its end that proves an endpoint is ours; pure."""

from urllib.parse import SplitResult, unquote, urlsplit

PATH = "/rivya/webhook/"

_DEFAULT_PORTS = {"https": 443, "http": 80}
_SHOWN = 4


def callback_url(public_url: str, path_key: str) -> str:
    """The URL that is registered with Rivya."""
    return f"{public_url.rstrip('/')}{PATH}{path_key}"


def path_key_of(url: str) -> str | None:
    """The last segment of the URL's path in lower case, whatever else the URL says; None where there is none."""
    parts = _split(url)
    return None if parts is None else unquote(parts.path).rstrip("/").rpartition("/")[2].casefold() or None


def is_path_key(path_key: str, found: str | None) -> bool:
    """`found`, from `path_key_of`, is this key: 192 random bits are the same bits in any case."""
    return found is not None and path_key.casefold() == found


def is_same_place(one: str, other: str) -> bool:
    """Both URLs lead to the same place: upper or lower case, default port and trailing slash don't matter."""
    return one == other or (_place(one) is not None and _place(one) == _place(other))


def masked(url: str, path_key: str) -> str:
    """The URL with all but the first 4 characters of its key hidden; nothing of a URL that doesn't hold the key."""
    before, key, _ = url.partition(path_key)
    return f"{before}{path_key[:_SHOWN]}****" if key else "****"


def _place(url: str) -> tuple[str, str, int | None, str] | None:
    parts = _split(url)
    if parts is None or not parts.hostname:
        return None
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, parts.hostname.rstrip("."), port, unquote(parts.path).rstrip("/").casefold()


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts

"""Public ids and secrets in Rivya's look: a prefix that names the kind, then random characters."""

import base64
import secrets


def new_id(prefix: str) -> str:
    """`task_…`, `evt_…`, `whend_…`, `whdel_…`, `file_…`, `chatcmpl_…` or `req_…`."""
    return f"{prefix}_{secrets.token_hex(12)}"


def new_secret(key_form: str) -> str:
    """A signing secret `whsec_…`; its suffix is 64 hex digits (base64 as well), unless the form asks for base64."""
    if key_form == "base64":
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    return "whsec_" + secrets.token_hex(32)

"""Read what an account can use: the models with their categories, and the credits left."""

from decimal import Decimal

from app.rivya.errors import PayloadUnreadable
from app.rivya.json_body import list_items, read_json
from app.rivya.storable import plausible_amount, usable_name


def read_models(body: bytes) -> dict[str, str]:
    """Return the category of each model by its id; entries without both are left out. Raises PayloadUnreadable."""
    items = [item for item in list_items(read_json(body)) if isinstance(item, dict)]
    pairs = ((usable_name(item.get("id")), usable_name(item.get("category"))) for item in items)
    return {model: category for model, category in pairs if model and category}


def read_credits(body: bytes) -> Decimal:
    """Return the account's current credits. Raises PayloadUnreadable."""
    value = read_json(body)
    amount = plausible_amount(value.get("current_credits")) if isinstance(value, dict) else None
    if amount is None:
        raise PayloadUnreadable("no current_credits")
    return Decimal(str(amount))

"""The tables of programs' webhook endpoints and of what is sent to them."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.core.database import Id, UtcDateTime, enum_check, metadata, partial_index
from app.notifications.models import NotificationState, SubscriptionStatus

PENDING = text("state = 'pending'")
WAITING = text("state IN ('pending', 'held') AND generation_id IS NOT NULL")
OPEN = text("state IN ('pending', 'held')")
NOT_DELIVERED = text("state <> 'delivered'")

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("token", Id, nullable=False, comment="name of the token that it belongs to"),
    Column("owner", Id, comment="the token, if it gets only its own generations"),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", Text, nullable=False, comment="as JSON"),
    Column("model", Id, comment="only generations of this model; null: all"),
    Column("submitted_by", Id, comment="only generations that this token submitted; null: all"),
    Column("status", Text, nullable=False),
    Column("secret", Text, nullable=False, comment="encrypted"),
    Column("secret_preview", Text, nullable=False),
    Column("previous_secret", Text, comment="encrypted; it signs too for some time after `rotated_at`"),
    Column("rotated_at", UtcDateTime),
    Column("begins_after", BigInteger, nullable=False, comment="the position in the feed at which it was created"),
    Column("failure_count", Integer, nullable=False, comment="in a row"),
    Column("failing_since", UtcDateTime, comment="the first failure in a row"),
    Column("last_success_at", UtcDateTime),
    Column("last_failure_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    enum_check("status", SubscriptionStatus),
    CheckConstraint("(revoked_at IS NOT NULL) = (status = 'revoked')", name="revoked_when_revoked"),
    CheckConstraint("failure_count >= 0", name="failures_counted"),
    Index("ix_subscriptions_token", "token"),
)

# One row for each event and receiver. All changes of `state`, and of the endpoints' status, are made by who holds the
# lock of the row of `notification_dispatch`, so no two of them can block each other.
notifications = Table(
    "notifications",
    metadata,
    Column("id", Id, primary_key=True),
    Column("queue", Id, nullable=False, comment="the endpoint, or `callbacks:` and the token"),
    Column("subscription_id", Id, comment="null: a callback of one job"),
    Column("callback_url", Text),
    Column("token", Id, nullable=False, comment="name of the token that it belongs to"),
    Column("event_id", Id, nullable=False),
    Column("event_type", Id, nullable=False),
    Column("generation_id", Id),
    Column("number", SmallInteger, nullable=False, comment="of the transition; the order within the generation"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, comment="when it was delivered, given up or canceled"),
    Column("next_attempt_at", UtcDateTime, comment="null: none is to be made"),
    Column("lease_until", UtcDateTime, comment="a sender has it until then"),
    Column("attempts", SmallInteger, nullable=False, comment="since it was last made due by hand"),
    Column("response_status", SmallInteger, comment="of the last attempt; null: no answer"),
    Column("error", Text, comment="of the last attempt, or why it ended"),
    Column("state", Text, nullable=False),
    Column("attempt_log", Text, nullable=False, comment="the newest attempts, as JSON"),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("queue", "event_id"),
    enum_check("state", NotificationState),
    CheckConstraint("(subscription_id IS NULL) <> (callback_url IS NULL)", name="one_receiver"),
    CheckConstraint("(next_attempt_at IS NOT NULL) = (state = 'pending')", name="due_while_pending"),
    CheckConstraint("(ended_at IS NOT NULL) = (state IN ('delivered', 'dead', 'canceled'))", name="ended_when_over"),
    partial_index("ix_notifications_due", "queue", "next_attempt_at", where=PENDING),
    partial_index("ix_notifications_leased", "queue", where=text("lease_until IS NOT NULL")),
    partial_index("ix_notifications_waiting", "queue", "generation_id", "number", where=WAITING),
    partial_index("ix_notifications_open", "created_at", where=OPEN),
    partial_index("ix_notifications_not_delivered", "id", where=NOT_DELIVERED),
    partial_index("ix_notifications_ended_at", "ended_at", where=text("ended_at IS NOT NULL")),
    partial_index("ix_notifications_generation_id", "generation_id", where=text("generation_id IS NOT NULL")),
    Index("ix_notifications_subscription_id_id", "subscription_id", "id"),
    Index("ix_notifications_token_id", "token", "id"),
)

# One row, made by the migration.
notification_dispatch = Table(
    "notification_dispatch",
    metadata,
    Column("name", Id, primary_key=True),
    Column("cursor", Text, comment="the place in the feed up to which notifications are written; null: nobody asks"),
)

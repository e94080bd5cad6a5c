"""The metrics of our registration and its deliveries."""

from prometheus_client import Counter, Gauge

REPAIRS = Counter("receiver_endpoint_repairs", "Repairs of our endpoint at Rivya, by kind.", ["repair"])
ORPHANS = Gauge("receiver_endpoint_orphans", "Endpoints at Rivya of our name and host that the database lacks.")
CONTRADICTIONS = Counter(
    "receiver_signature_contradictions", "Deliveries refused by the pinned scheme that another scheme proves."
)
ROTATIONS = Counter("receiver_secret_rotations", "Signing secrets replaced, by reason.", ["reason"])
LEADER = Gauge("receiver_leader", "1 while this process looks after the registration.")
REFUSALS_SINCE_VERIFIED = Gauge(
    "receiver_refusals_since_verified", "Deliveries refused at our secret path since the last one that was verified."
)
ENDPOINT_PROVEN = Gauge("receiver_endpoint_proven", "1 once a delivery was verified with the current secret.")
RIVYA_FAILURES = Gauge("receiver_endpoint_failures", "Failed deliveries to our endpoint, as Rivya counts them.")

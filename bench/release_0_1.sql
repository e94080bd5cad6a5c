-- The tables of release 0.1 that recording writes to: what the cost of recording is compared with.

CREATE TABLE generations (
    id text CONSTRAINT pk_generations PRIMARY KEY,
    status text NOT NULL,
    model text,
    rivya_object text NOT NULL,
    reserved_credits double precision,
    final_credits double precision,
    created_at timestamptz,
    updated_at timestamptz,
    client_request_id text,
    metadata text,
    first_seen_at timestamptz NOT NULL,
    settled_at timestamptz,
    settled_by text,
    callback_received_at timestamptz,
    last_number smallint NOT NULL,
    revision integer NOT NULL,
    tracking text NOT NULL,
    next_poll_at timestamptz,
    lease_until timestamptz,
    polls integer NOT NULL,
    poll_failures integer NOT NULL,
    last_poll_error text,
    not_found_count integer NOT NULL,
    not_found_since timestamptz,
    submitted_by text,
    CHECK (next_poll_at IS NULL OR tracking IN ('watching', 'stalled')),
    CHECK (settled_by IN ('submit', 'webhook', 'poll', 'operator')),
    CHECK ((settled_at IS NOT NULL) = (status IN ('succeeded', 'failed'))),
    CHECK (status IN ('queued', 'processing', 'succeeded', 'failed')),
    CHECK (tracking IN ('watching', 'settled', 'stalled', 'lost')),
    CHECK ((tracking = 'settled') = (settled_at IS NOT NULL))
);
CREATE INDEX ON generations (client_request_id, first_seen_at, id) WHERE client_request_id IS NOT NULL;
CREATE INDEX ON generations (first_seen_at, id);
CREATE INDEX ON generations (model, first_seen_at, id);
CREATE INDEX ON generations (next_poll_at) WHERE next_poll_at IS NOT NULL;
CREATE INDEX ON generations (status, first_seen_at, id);
CREATE INDEX ON generations (submitted_by, first_seen_at, id) WHERE submitted_by IS NOT NULL;
CREATE INDEX ON generations (tracking, first_seen_at, id) WHERE tracking <> 'settled';

CREATE TABLE transitions (
    sequence bigserial CONSTRAINT pk_transitions PRIMARY KEY,
    generation_id text NOT NULL REFERENCES generations ON DELETE CASCADE,
    number smallint NOT NULL,
    from_status text,
    to_status text NOT NULL,
    source text NOT NULL,
    event_id text,
    occurred_at timestamptz,
    recorded_at timestamptz NOT NULL,
    UNIQUE (generation_id, number),
    UNIQUE (generation_id, to_status),
    CHECK ((number = 1) = (from_status IS NULL)),
    CHECK (from_status IN ('queued', 'processing', 'succeeded', 'failed')),
    CHECK (source IN ('submit', 'webhook', 'poll', 'operator')),
    CHECK (from_status IS NULL OR from_status IN ('queued', 'processing')),
    CHECK (to_status IN ('queued', 'processing', 'succeeded', 'failed'))
);

CREATE TABLE deliveries (
    event_id text CONSTRAINT pk_deliveries PRIMARY KEY,
    event_type text,
    generation_id text,
    endpoint_id text,
    received_at timestamptz NOT NULL,
    body bytea NOT NULL,
    headers text NOT NULL,
    outcome text NOT NULL,
    attempts integer NOT NULL,
    body_pruned_at timestamptz,
    CHECK (attempts >= 1),
    CHECK (outcome IN ('applied', 'stale', 'conflict', 'test', 'unknown_type', 'unreadable'))
);
CREATE INDEX ON deliveries (body_pruned_at) WHERE body_pruned_at IS NOT NULL;
CREATE INDEX ON deliveries (event_type, received_at, event_id) WHERE event_type <> 'generation.succeeded';
CREATE INDEX ON deliveries (generation_id);
CREATE INDEX ON deliveries (outcome, received_at, event_id) WHERE outcome <> 'applied';
CREATE INDEX ON deliveries (received_at, event_id);

CREATE TABLE usage_changes (
    id bigserial PRIMARY KEY,
    hour timestamptz NOT NULL,
    submitted_by text,
    model text,
    generations integer NOT NULL,
    open integer NOT NULL,
    reserved_credits numeric NOT NULL,
    final_credits numeric NOT NULL
);
-- Both triggers run for an upsert.
CREATE FUNCTION count_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM added) THEN
        INSERT INTO usage_changes (hour, submitted_by, model, generations, open, reserved_credits, final_credits)
        SELECT * FROM (
            SELECT hour, submitted_by, model, sum(n) AS n, coalesce(sum(n) FILTER (WHERE settled_at IS NULL), 0) AS open,
                round(coalesce(sum(n * reserved), 0)::numeric, 9) AS reserved,
                round(coalesce(sum(n * final), 0)::numeric, 9) AS final
            FROM (
                SELECT date_bin('1 hour', first_seen_at, '2000-01-01 00:00:00+00') AS hour, submitted_by, model,
                    settled_at, reserved_credits AS reserved, final_credits AS final, 1 AS n FROM added
                UNION ALL
                SELECT date_bin('1 hour', first_seen_at, '2000-01-01 00:00:00+00') AS hour, submitted_by, model,
                    settled_at, reserved_credits AS reserved, final_credits AS final, -1 AS n FROM removed
            ) AS each GROUP BY 1, 2, 3
        ) AS changed WHERE (n, open, reserved, final) <> (0, 0, 0, 0);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER generations_usage_update AFTER UPDATE ON generations
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_usage();

CREATE FUNCTION count_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_changes (hour, submitted_by, model, generations, open, reserved_credits, final_credits)
    SELECT date_bin('1 hour', first_seen_at, '2000-01-01 00:00:00+00'), submitted_by, model, count(*),
        count(*) FILTER (WHERE settled_at IS NULL), coalesce(sum(reserved_credits), 0), coalesce(sum(final_credits), 0)
    FROM added GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;
CREATE TRIGGER generations_usage_insert AFTER INSERT ON generations
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_new();

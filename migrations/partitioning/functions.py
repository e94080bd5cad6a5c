"""The functions in the database that split a table by month, make months ahead, drop old ones, and undo it all."""

from typing import Final

PARTITION: Final = """
CREATE FUNCTION receiver_partition(whole text, moment text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first text := whole || '_first';
    rest text := whole || '_default';
    bound text := obj_description(oid, 'pg_constraint') FROM pg_constraint
        WHERE conname = first AND conrelid = whole::regclass;
    it record;
BEGIN
    EXECUTE format('ALTER TABLE %I RENAME TO %I', whole, first);
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (%I)',
        whole, first, moment);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', whole, first);
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', rest, whole);
    -- What is not unique belongs to the whole, under the name that later migrations know it by.
    FOR it IN
        SELECT relname AS name, pg_get_indexdef(indexrelid) AS written FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = first::regclass AND NOT indisunique
    LOOP
        EXECUTE format('ALTER INDEX %I RENAME TO %I', it.name, it.name || '_first');
        EXECUTE replace(it.written, first || ' USING', whole || ' USING');
    END LOOP;
    -- What is unique without the time can only be so within each partition.
    FOR it IN
        SELECT conname AS name, contype AS kind, pg_get_constraintdef(oid) AS written FROM pg_constraint
        WHERE conrelid = first::regclass AND contype IN ('p', 'u', 'f')
    LOOP
        IF it.kind = 'f' THEN
            EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I %s', whole, it.name, it.written);
        ELSE
            EXECUTE format('ALTER TABLE %I RENAME CONSTRAINT %I TO %I', first, it.name, it.name || '_first');
            EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I %s', rest, it.name || '_default', it.written);
        END IF;
    END LOOP;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)', whole, first, bound);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', first, first);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I DEFAULT', whole, rest);
END $$
"""
"""`moment` is the column that decides. The CHECK that spares attaching a scan tells the first bound in its comment."""

BOUNDS: Final = r"""
CREATE VIEW receiver_partitions AS
SELECT whole.relname AS whole, part.relname AS name,
    substring(pg_get_expr(part.relpartbound, part.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz AS ends_at
FROM pg_inherits
JOIN pg_class AS whole ON whole.oid = inhparent
JOIN pg_class AS part ON part.oid = inhrelid
WHERE whole.relkind = 'p' AND whole.relname IN ('deliveries', 'transitions')
"""

AHEAD: Final = """
CREATE FUNCTION receiver_partitions_ahead(months integer) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    month_of_now timestamptz := date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    last timestamptz := now() + make_interval(months => months);
    parent text;
    moment text;
    made text;
    begins_at timestamptz;
    ends_at timestamptz;
BEGIN
    FOREACH parent IN ARRAY ARRAY['deliveries', 'transitions'] LOOP
        moment := CASE parent WHEN 'deliveries' THEN 'received_at' ELSE 'recorded_at' END;
        begins_at := coalesce((SELECT max(p.ends_at) FROM receiver_partitions AS p WHERE whole = parent), month_of_now);
        WHILE begins_at <= last LOOP
            LOCK TABLE generations IN SHARE ROW EXCLUSIVE MODE;  -- in the order in which recording takes them
            ends_at := (begins_at AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
            made := parent || to_char(begins_at AT TIME ZONE 'UTC', '_YYYY_MM');
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', made, parent || '_default');
            -- What came before its month was made.
            EXECUTE format('WITH moved AS (DELETE FROM %1$I WHERE %2$I >= $1 AND %2$I < $2 RETURNING *) '
                'INSERT INTO %3$I SELECT * FROM moved', parent || '_default', moment, made) USING begins_at, ends_at;
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, made, begins_at, ends_at);
            RETURN NEXT made;
            begins_at := ends_at;
        END LOOP;
    END LOOP;
END $$
"""
"""Make the months up to the one in so many months; returns the names of those that were not there."""

DROPPED: Final = """
CREATE TABLE dropped_partitions (
    name text CONSTRAINT pk_dropped_partitions PRIMARY KEY,
    ended_at timestamptz NOT NULL,
    dropped_at timestamptz NOT NULL
)
"""

DROP: Final = """
CREATE FUNCTION receiver_partitions_drop(settled_before timestamptz) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    it record;
    is_needed boolean;
    chosen text[] := '{}';
BEGIN
    FOR it IN SELECT name FROM receiver_partitions WHERE ends_at <= settled_before ORDER BY ends_at, name LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I AS part JOIN generations ON generations.id = part.generation_id '
            'WHERE settled_at IS NULL OR settled_at >= $1)', it.name) INTO is_needed USING settled_before;
        IF NOT is_needed THEN
            chosen := chosen || it.name::text;
        END IF;
    END LOOP;
    IF cardinality(chosen) > 0 THEN
        LOCK TABLE generations, deliveries, transitions IN ACCESS EXCLUSIVE MODE;
    END IF;
    FOR it IN SELECT name, ends_at FROM receiver_partitions WHERE name = ANY(chosen) ORDER BY ends_at, name LOOP
        INSERT INTO dropped_partitions VALUES (it.name, it.ends_at, now());
        EXECUTE format('DROP TABLE %I', it.name);
        RETURN NEXT it.name;
    END LOOP;
END $$
"""
"""Drop the months that ended by then and hold nothing of a generation that is open or was settled later."""

FORGET: Final = """
CREATE FUNCTION receiver_events_forget(after interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    forgotten bigint;
BEGIN
    DELETE FROM delivery_keys
    WHERE received_at < (SELECT max(ended_at) FROM dropped_partitions WHERE dropped_at < now() - after)
    AND NOT EXISTS (
        SELECT FROM deliveries
        WHERE deliveries.event_id = delivery_keys.event_id AND deliveries.received_at = delivery_keys.received_at
    );
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$
"""
"""Forget events whose deliveries were dropped that long ago: such an event would be taken for a new one."""

WHOLE: Final = """
CREATE FUNCTION receiver_make_whole(whole text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    months text := whole || '_months';
    rest text := whole || '_default';
    written text[] := '{}';
    it record;
BEGIN
    FOR it IN
        SELECT relname AS name, pg_get_indexdef(indexrelid) AS written FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = whole::regclass
    LOOP
        written := written || replace(it.written, 'ON ONLY ', 'ON ');
        EXECUTE format('ALTER INDEX %I RENAME TO %I', it.name, it.name || '_months');
    END LOOP;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', whole, months);
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL EXCLUDING INDEXES)', whole, months);
    IF whole = 'transitions' THEN
        ALTER SEQUENCE transitions_sequence_seq OWNED BY transitions.sequence;
    END IF;
    EXECUTE format('INSERT INTO %I SELECT * FROM %I', whole, months);
    FOR it IN
        SELECT replace(conname, '_default', '') AS name, pg_get_constraintdef(oid) AS written FROM pg_constraint
        WHERE conrelid = rest::regclass AND contype IN ('p', 'u')
        UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = months::regclass AND contype = 'f'
    LOOP
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I %s', whole, it.name, it.written);
    END LOOP;
    EXECUTE format('DROP TABLE %I', months);
    FOR it IN SELECT unnest(written) AS written LOOP
        EXECUTE it.written;
    END LOOP;
END $$
"""
"""Copies all rows into a table as it was, and drops the months."""

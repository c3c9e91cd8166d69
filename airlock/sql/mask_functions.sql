-- The masks, made in the private clone and gone with it. All but the keys are immutable, and the
-- one-liners are inlined into the query that copies a table. The search path is pg_catalog.
-- HMAC as in RFC 2104 with SHA-256, whose blocks have 64 bytes. airlock_mask.key is a session's
-- setting: a derived key in hexadecimal, so that no statement contains it.
DROP SCHEMA IF EXISTS airlock_mask CASCADE;
CREATE SCHEMA airlock_mask;

CREATE FUNCTION airlock_mask.padded(key pg_catalog.bytea, byte integer) RETURNS pg_catalog.bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    block bytea := key || decode(repeat('00', 64 - length(key)), 'hex');
BEGIN
    FOR place IN 0..63 LOOP
        block := set_byte(block, place, get_byte(block, place) # byte);
    END LOOP;
    RETURN block;
END $$;

CREATE FUNCTION airlock_mask.digest(value pg_catalog.text, inner_key pg_catalog.bytea, outer_key pg_catalog.bytea) RETURNS pg_catalog.bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256(outer_key || sha256(inner_key || convert_to(value, 'UTF8')))
$$;

-- A domain's key is the HMAC of its name; its two pads are computed once per query.
CREATE FUNCTION airlock_mask.pad(domain pg_catalog.text, byte integer) RETURNS pg_catalog.bytea
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    key bytea := decode(current_setting('airlock_mask.key'), 'hex');
BEGIN
    RETURN airlock_mask.padded(
        airlock_mask.digest(
            domain, airlock_mask.padded(key, 54), airlock_mask.padded(key, 92)), byte);
END $$;

CREATE FUNCTION airlock_mask.long(digest pg_catalog.bytea) RETURNS pg_catalog.text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(encode(digest, 'hex'), 32)
$$;

-- Six bits a character instead of four, for narrow columns.
CREATE FUNCTION airlock_mask.short(digest pg_catalog.bytea, width integer) RETURNS pg_catalog.text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(encode(digest, 'base64'), width)
$$;

CREATE FUNCTION airlock_mask.uuid(digest pg_catalog.bytea) RETURNS pg_catalog.uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(encode(digest, 'hex'), 32)::uuid
$$;

CREATE FUNCTION airlock_mask.bigint(digest pg_catalog.bytea) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || left(encode(digest, 'hex'), 16))::bit(64)::bigint & 9223372036854775807
$$;

CREATE FUNCTION airlock_mask.bytea(digest pg_catalog.bytea) RETURNS pg_catalog.bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT digest
$$;

-- .invalid can never be delivered to: RFC 2606.
CREATE FUNCTION airlock_mask.email(digest pg_catalog.bytea, digits integer) RETURNS pg_catalog.text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 'u' || left(encode(digest, 'hex'), digits) || '@masked.invalid'
$$;

-- "Masked 3fa29c01bd22": nobody's name. A narrow column has no room for the first word.
CREATE FUNCTION airlock_mask.name(digest pg_catalog.bytea, width integer) RETURNS pg_catalog.text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN width < 19 THEN '' ELSE 'Masked ' END || left(encode(digest, 'hex'), 12)
$$;

-- About as long as the value was, at least 12 characters. The words are always the same, what is
-- in front of them is not; translate() would make words of the digest, and take four times as long
-- as all the rest.
CREATE FUNCTION airlock_mask.filler(size integer, digest pg_catalog.bytea, width integer) RETURNS pg_catalog.text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(
        left(encode(digest, 'hex'), 12) || repeat(
            ' lorem ipsum dolor sit amet consectetur adipiscing elit sed do', size / 62 + 1),
        least(width, greatest(12, size)))
$$;

-- A number up to ``share`` away, at least a tenth of that and one unit of its last place. It keeps
-- its sign, its digits after the point, and stays below ``below``. Zero and what is no number stay.
CREATE FUNCTION airlock_mask.near(
    value numeric, digest pg_catalog.bytea, share numeric, places integer, below numeric) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    part numeric := ('x' || left(encode(digest, 'hex'), 8))::bit(32)::bigint / 4294967296.0;
    digits integer := coalesce(places, scale(value));
    size numeric := abs(value);
    shift numeric;
BEGIN
    IF value::text IN ('NaN', 'Infinity', '-Infinity') THEN
        RETURN value;
    END IF;
    shift := greatest(trunc(size * share * (0.1 + 0.9 * part), digits), 10::numeric ^ -digits);
    IF size + shift >= below OR (shift < size AND get_byte(digest, 4) & 1 = 1) THEN
        shift := -shift;
    END IF;
    RETURN round(sign(value) * (size + shift), digits);
END $$;

CREATE FUNCTION airlock_mask.near(
    value pg_catalog.float8, digest pg_catalog.bytea, share pg_catalog.float8, below pg_catalog.float8) RETURNS pg_catalog.float8
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    part float8 := ('x' || left(encode(digest, 'hex'), 8))::bit(32)::bigint / 4294967296.0;
    shift float8 := share * (0.1 + 0.9 * part);
BEGIN
    IF abs(value) >= below OR get_byte(digest, 4) & 1 = 1 THEN
        shift := -shift;
    END IF;
    RETURN value * (1 + shift);
END $$;

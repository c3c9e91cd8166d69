-- Migration 009: Alert Notifications
-- Purpose: Tell analysts when something happens to a deal that they follow
-- Author: M&A Tracker team
-- Date: 2025-07-14

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Types
CREATE TYPE alert_severity AS ENUM (
    'info',
    'warning',
    'critical'
);

COMMENT ON TYPE alert_severity IS 'How soon a person should look';

-- 2. Tables
CREATE TABLE alert_rules (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),

    name VARCHAR(255) NOT NULL,
    condition JSONB NOT NULL DEFAULT '{}'::jsonb,
    severity alert_severity NOT NULL DEFAULT 'info',
    channel VARCHAR(16) NOT NULL DEFAULT 'email',
    is_enabled BOOLEAN NOT NULL DEFAULT TRUE,

    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT uq_alert_rules_name UNIQUE (name),
    CONSTRAINT ck_alert_rules_channel CHECK (channel IN ('email', 'slack', 'sms', 'webhook'))
);

CREATE TABLE alerts (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),

    deal_id UUID NOT NULL,
    rule_id UUID,
    severity alert_severity NOT NULL DEFAULT 'info',
    message TEXT NOT NULL,
    payload JSONB NOT NULL DEFAULT '{}'::jsonb,
    delivered_at TIMESTAMPTZ,
    acknowledged_at TIMESTAMPTZ,

    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT ck_alerts_message_not_blank CHECK (btrim(message) <> '')
);

-- 3. Foreign keys. Alerts go with their deal; a rule that has fired can be disabled, not removed.
ALTER TABLE alerts
    ADD CONSTRAINT fk_alerts_deal
    FOREIGN KEY (deal_id) REFERENCES deals (id)
    ON DELETE CASCADE;

ALTER TABLE alerts
    ADD CONSTRAINT fk_alerts_rule
    FOREIGN KEY (rule_id) REFERENCES alert_rules (id)
    ON DELETE RESTRICT;

-- 4. Indexes
CREATE INDEX idx_alert_rules_condition ON alert_rules USING GIN (condition);
CREATE INDEX idx_alerts_deal_id ON alerts (deal_id);
CREATE INDEX idx_alerts_rule_id ON alerts (rule_id);
CREATE INDEX idx_alerts_created_at ON alerts (created_at DESC);
CREATE INDEX idx_alerts_undelivered ON alerts (created_at) WHERE delivered_at IS NULL;

-- 5. Comments
COMMENT ON TABLE alert_rules IS 'When to raise an alert, and where to send it';
COMMENT ON COLUMN alert_rules.id IS 'Key';
COMMENT ON COLUMN alert_rules.name IS 'Name as shown to analysts';
COMMENT ON COLUMN alert_rules.condition IS 'What must hold of a deal: fields and values';
COMMENT ON COLUMN alert_rules.severity IS 'Severity of the alerts that it raises';
COMMENT ON COLUMN alert_rules.channel IS 'How they are sent';
COMMENT ON COLUMN alert_rules.is_enabled IS 'False: raises nothing';
COMMENT ON COLUMN alert_rules.created_at IS 'When the row was written';
COMMENT ON COLUMN alert_rules.updated_at IS 'When the row was last changed';

COMMENT ON TABLE alerts IS 'Alerts that were raised, one row for each';
COMMENT ON COLUMN alerts.id IS 'Key';
COMMENT ON COLUMN alerts.deal_id IS 'Deal that it is about';
COMMENT ON COLUMN alerts.rule_id IS 'Rule that raised it; null when a person did';
COMMENT ON COLUMN alerts.severity IS 'How soon a person should look';
COMMENT ON COLUMN alerts.message IS 'Text that is sent';
COMMENT ON COLUMN alerts.payload IS 'Values behind the text';
COMMENT ON COLUMN alerts.delivered_at IS 'When the channel took it; null before';
COMMENT ON COLUMN alerts.acknowledged_at IS 'When a person said "seen"; null before';
COMMENT ON COLUMN alerts.created_at IS 'When it was raised';

-- 6. The rules look for deals that are about to close. Deals is large and busy: CONCURRENTLY, and
--    so outside the transaction, last, when nothing after it can fail.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_deals_expected_close_on
    ON deals (expected_close_on)
    WHERE expected_close_on IS NOT NULL;

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
-- DROP INDEX CONCURRENTLY IF EXISTS idx_deals_expected_close_on;
-- DROP TABLE alerts;
-- DROP TABLE alert_rules;
-- DROP TYPE alert_severity;

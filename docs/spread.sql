-- Postgres: every key of what belongs to an account names the account, as an engine asks for that spreads tables by account.
-- The app works on these tables as on its own. Run by their owner, once, with the apps stopped:
--     psql -v ON_ERROR_STOP=1 -f docs/spread.sql "postgresql://billing_owner@host/billing"
BEGIN;

ALTER TABLE idempotency DROP CONSTRAINT idempotency_entry_id_fkey;
ALTER TABLE reversal_item
    DROP CONSTRAINT reversal_item_entry_id_fkey,
    DROP CONSTRAINT reversal_item_reversal_id_fkey;
ALTER TABLE hold
    DROP CONSTRAINT hold_precharge_id_fkey,
    DROP CONSTRAINT hold_ended_by_fkey,
    DROP CONSTRAINT hold_pkey;
ALTER TABLE entry
    DROP CONSTRAINT entry_precharge_id_fkey,
    DROP CONSTRAINT entry_reverses_id_fkey,
    DROP CONSTRAINT entry_reprices_id_fkey,
    DROP CONSTRAINT entry_operator_id_fkey, -- another account's row may be on another node
    DROP CONSTRAINT entry_pkey;
DROP INDEX entry_of_account, entry_reversed_once;

ALTER TABLE entry ADD CONSTRAINT entry_pkey PRIMARY KEY (account_id, id);
CREATE UNIQUE INDEX entry_reversed_once ON entry (account_id, reverses_id) WHERE reverses_id IS NOT NULL;
-- Who has only an entry's number asks every node, each with these.
CREATE INDEX entry_number ON entry (id);
CREATE INDEX entry_reverses ON entry (reverses_id) WHERE reverses_id IS NOT NULL;
ALTER TABLE entry
    ADD CONSTRAINT entry_precharge_id_fkey FOREIGN KEY (account_id, precharge_id) REFERENCES entry (account_id, id),
    ADD CONSTRAINT entry_reverses_id_fkey FOREIGN KEY (account_id, reverses_id) REFERENCES entry (account_id, id),
    ADD CONSTRAINT entry_reprices_id_fkey FOREIGN KEY (account_id, reprices_id) REFERENCES entry (account_id, id);
ALTER TABLE hold
    ADD CONSTRAINT hold_pkey PRIMARY KEY (account_id, precharge_id),
    ADD CONSTRAINT hold_precharge_id_fkey FOREIGN KEY (account_id, precharge_id) REFERENCES entry (account_id, id),
    ADD CONSTRAINT hold_ended_by_fkey FOREIGN KEY (account_id, ended_by) REFERENCES entry (account_id, id);

COMMIT;

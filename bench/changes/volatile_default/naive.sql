ALTER TABLE trades ADD COLUMN reference uuid DEFAULT gen_random_uuid();

ALTER TABLE trades ADD COLUMN memo text;

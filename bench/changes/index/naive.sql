CREATE INDEX trades_desk ON trades (desk_id, settled_on);

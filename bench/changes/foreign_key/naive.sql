ALTER TABLE trades ADD CONSTRAINT trades_desk FOREIGN KEY (desk_id) REFERENCES desks (id);

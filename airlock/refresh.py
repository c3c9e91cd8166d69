"""A target replaced by a masked copy of another one."""

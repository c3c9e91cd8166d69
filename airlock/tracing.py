"""The steps of a deploy as OpenTelemetry spans."""

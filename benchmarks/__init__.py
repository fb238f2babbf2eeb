"""Programs that measure; nothing in them is asserted on time."""

-- KEYS: a lease. Arguments: name, lease_ms, dead (a value whose holder is dead). Returns '' when `name` has it now, else
-- its value.
return hold(KEYS[1])

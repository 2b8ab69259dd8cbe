-- KEYS: a lease. ARGV: who wants it, ms, a value whose holder is dead. Returns '' when that one has it now, else its value.
return hold(KEYS[1], ARGV[1], ARGV[2], ARGV[3])

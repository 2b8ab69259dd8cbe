-- KEYS: sweeper, due. ARGV: who asks, lease ms, a value of the lease whose holder is dead, most ids, 1 to look at all.
-- Takes or renews the sweeper's lease. Returns {its value} when another process has it, else {'', ms now, ids of jobs whose
-- time has come...}.
local value = hold(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if value ~= '' then
  return {value}
end
local until_time = ARGV[5] == '1' and '+inf' or now
return {'', now, unpack(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', until_time, 'LIMIT', 0, ARGV[4]))}

-- KEYS: sweeper, due. Arguments: name, lease_ms, dead (as of `hold`), most (ids), all (whether to look at all).
-- Takes or renews the sweeper's lease. Returns {its value} when another process has it, else {'', ms now, ids of jobs whose
-- time has come...}.
local value = hold(KEYS[1])
if value ~= '' then
  return {value}
end
local until_time = args.all and '+inf' or now
return {'', now, unpack(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', until_time, 'LIMIT', 0, args.most))}

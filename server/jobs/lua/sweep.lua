-- KEYS: sweeper, due. ARGV: who asks, lease ms, most ids. Takes or renews the sweeper's lease.
-- Returns {0} when another process has it, else {1, ids of jobs whose time has come...}.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return {0}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, unpack(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[3]))}

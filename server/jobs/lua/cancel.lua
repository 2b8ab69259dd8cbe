-- ARGV: group, prefix of control streams, result ttl, tombstone ttl, lease ms.
-- A waiting job ends at once; a running one is flagged and its worker told. Should that worker be dead and no other
-- alive, the sweeper ends the job when the lease has run out. Returns the state afterwards.
local state = field('state')
if state == 'queued' then
  conclude(ARGV[1], 'canceled', '{}', ARGV[3], ARGV[4])
  return 'canceled'
end
if state == 'running' and field('cancel') ~= '1' then
  redis.call('HSET', KEYS[1], 'cancel', 1)
  redis.call('XADD', ARGV[2] .. field('owner'), 'MAXLEN', '~', 1000, '*', 'job', field('id'))
  redis.call('ZADD', KEYS[6], now + ARGV[5], field('id'))
end
return state

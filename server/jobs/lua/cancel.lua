-- ARGV: group, prefix of control streams, result ttl, tombstone ttl, lease ms, ttl of a job that was never begun.
-- A waiting job ends at once, and is soon forgotten if it was never begun: nobody waits for a result. A running one is flagged and its worker told. Should that worker be dead and no other
-- alive, the sweeper ends the job when the lease has run out. Returns the state afterwards.
local state = field('state')
if state == 'queued' then
  local is_begun = field('started') ~= ''
  conclude(ARGV[1], 'canceled', '{}', is_begun and ARGV[3] or ARGV[6], is_begun and ARGV[4] or ARGV[3])
  return 'canceled'
end
if state == 'running' and field('cancel') ~= '1' then
  redis.call('HSET', KEYS[1], 'cancel', 1)
  redis.call('XADD', ARGV[2] .. field('owner'), 'MAXLEN', '~', 1000, '*', 'job', field('id'))
  redis.call('ZADD', KEYS[6], now + ARGV[5], field('id'))
end
return state

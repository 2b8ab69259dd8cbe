-- Arguments: result_ms, tombstone_ms, unbegun_ms, look_again_ms.
-- A waiting job ends at once, and is soon forgotten if it was never begun: nobody waits for a result. A running one is
-- flagged and its worker notified. Should that worker be dead and no other alive, the sweeper ends the job when the lease
-- has run out. Returns the state afterwards.
local state = field('state')
if state == 'queued' then
  local is_begun = field('started') ~= ''
  local result_ms = is_begun and args.result_ms or args.unbegun_ms
  conclude('canceled', '{}', result_ms, is_begun and args.tombstone_ms or args.result_ms)
  return 'canceled'
end
if state == 'running' and field('cancel') ~= '1' then
  redis.call('HSET', key.job, 'cancel', 1)
  redis.call('XADD', control_key(field('owner')), 'MAXLEN', '~', 1000, '*', 'job', field('id'))
  redis.call('ZADD', key.due, now + args.look_again_ms, field('id'))
end
return state

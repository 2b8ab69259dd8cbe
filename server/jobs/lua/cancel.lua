-- ARGV: group, prefix of control streams, result ttl, tombstone ttl, job id.
-- A waiting job ends at once; a running one is flagged and its worker told. Returns the state afterwards.
local state = field('state')
if state == 'queued' then
  conclude(ARGV[1], 'canceled', '{}', ARGV[3], ARGV[4])
  return 'canceled'
end
if state == 'running' and field('cancel') ~= '1' then
  redis.call('HSET', KEYS[1], 'cancel', 1)
  redis.call('XADD', ARGV[2] .. field('owner'), 'MAXLEN', '~', 1000, '*', 'job', ARGV[5])
end
return state

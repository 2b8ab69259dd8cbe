-- ARGV: group, job id, lease ms, body if late, result ttl, tombstone ttl. Looks at a job whose time has come.
-- A job that no worker holds ends here; one that a living worker holds is that worker's to end, and is looked at again.
-- Returns the state afterwards, and 1 if this call ended the job.
local group, id, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local state = field('state')
if state == '' or is_terminal(state) then
  redis.call('ZREM', KEYS[6], id)
  return {state, 0}
end
local is_held = false
if state == 'running' then
  local pending = redis.call('XPENDING', KEYS[3], group, field('entry'), field('entry'), 1)
  is_held = #pending > 0 and pending[1][3] < lease
end
local wish = order()
if is_held and wish ~= 0 then
  redis.call('ZADD', KEYS[6], now + lease, id)
elseif wish == 1 then
  conclude(group, 'canceled', '{}', ARGV[5], ARGV[6])
elseif wish == 2 then
  conclude(group, 'failed', ARGV[4], ARGV[5], ARGV[6])
elseif number('deadline') > 0 then
  redis.call('ZADD', KEYS[6], number('deadline'), id)
else
  redis.call('ZREM', KEYS[6], id)
end
local after = field('state')
return {after, is_terminal(after) and 1 or 0}

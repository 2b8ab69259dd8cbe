-- ARGV: group, job id, ms until a job that is held is looked at again, body if late, result ttl, tombstone ttl, stamp of a
-- holder that is dead, as the caller has observed it. Looks at a job whose time has come.
-- A job that no worker holds ends here; one that a living worker holds is that worker's to end, and is looked at again.
-- Returns the state afterwards, 1 if this call ended the job, and the stamp of the worker that has to end it or ''.
local group, id = ARGV[1], ARGV[2]
local state = field('state')
if state == '' or is_terminal(state) then
  redis.call('ZREM', KEYS[6], id)
  return {state, 0, ''}
end
local stamp = ''
if state == 'running' then
  local held = redis.call('XPENDING', KEYS[3], group, field('entry'), field('entry'), 1)[1]
  stamp = held and held[2] .. ' ' .. held[4] or ''
end
local is_held = stamp ~= '' and stamp ~= ARGV[7]
local wish = order()
if is_held and wish ~= 0 then
  redis.call('ZADD', KEYS[6], now + ARGV[3], id)
  return {state, 0, stamp}
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
return {after, is_terminal(after) and 1 or 0, ''}

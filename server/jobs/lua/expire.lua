-- Arguments: id, look_again_ms (of a job that is held), late (event body), result_ms, tombstone_ms, dead (stamp of a holder
-- that is dead, as the caller has observed it). Looks at a job whose time has come.
-- A job that no worker holds ends here; one that a living worker holds is that worker's to end, and is looked at again.
-- Returns the state afterwards, 1 if this call ended the job, and the stamp of the worker that has to end it or ''.
local state = field('state')
if state == '' or is_terminal(state) then
  redis.call('ZREM', key.due, args.id)
  return {state, 0, ''}
end
local stamp = ''
if state == 'running' then
  local held = redis.call('XPENDING', key.queue, GROUP, field('entry'), field('entry'), 1)[1]
  stamp = held and held[2] .. ' ' .. held[4] or ''
end
local is_held = stamp ~= '' and stamp ~= args.dead
local due = order()
if is_held and due ~= 0 then
  redis.call('ZADD', key.due, now + args.look_again_ms, args.id)
  return {state, 0, stamp}
elseif due == 1 then
  conclude('canceled', '{}', args.result_ms, args.tombstone_ms)
elseif due == 2 then
  conclude('failed', args.late, args.result_ms, args.tombstone_ms)
elseif number('deadline') > 0 then
  redis.call('ZADD', key.due, number('deadline'), args.id)
else
  redis.call('ZREM', key.due, args.id)
end
local after = field('state')
return {after, is_terminal(after) and 1 or 0, ''}
